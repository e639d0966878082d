//! Decompresses gzip and zstd within the limits of a body.

use std::io::{self, Read};

use super::negotiation::Compression;
use super::{BodyLimits, ReadBody, charge, too_large};
use crate::application::ingest::Budget;
use crate::interface::http::error::ApiError;

/// Largest window of a zstd frame, as a power of two: 32 MiB.
const ZSTD_MAX_WINDOW_LOG: u32 = 25;

/// Decompresses a body. Blocks the thread: the decompressed size is not known in
/// advance.
///
/// # Errors
/// Returns an error if the data is invalid, decompresses to more than the limit,
/// or exceeds the memory budget.
pub(super) fn decompress(
    body: ReadBody,
    compression: Compression,
    limits: BodyLimits,
) -> Result<ReadBody, ApiError> {
    let ReadBody { bytes, mut share } = body;
    let decoded = decode(&bytes, compression, limits, |length| {
        charge(&mut share, Budget::cost_of_decoded(length))
    })?;
    Ok(ReadBody { bytes: decoded.into(), share })
}

/// Decodes in chunks. `charge` is called with the length of each chunk before the
/// chunk is kept.
fn decode(
    bytes: &[u8],
    compression: Compression,
    limits: BodyLimits,
    mut charge: impl FnMut(usize) -> Result<(), ApiError>,
) -> Result<Vec<u8>, ApiError> {
    let invalid = |error: io::Error| {
        let name = match compression {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        };
        ApiError::invalid(format!("the body is not valid {name}: {error}"))
    };
    let mut reader: Box<dyn Read> = match compression {
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(invalid)?;
            decoder.window_log_max(ZSTD_MAX_WINDOW_LOG).map_err(invalid)?;
            Box::new(decoder)
        }
    };
    let mut decoded = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let length = reader.read(&mut chunk).map_err(invalid)?;
        if length == 0 {
            return Ok(decoded);
        }
        // Stops a decompression bomb at the limit.
        if decoded.len() + length > limits.max_bytes {
            return Err(too_large(limits));
        }
        charge(length)?;
        decoded.extend_from_slice(&chunk[..length]);
    }
}

/// Decompresses any bytes, for this repository's fuzz targets.
///
/// # Panics
/// Panics if more than the limit is charged, or if the charges differ from the
/// decoded size.
#[cfg(feature = "fuzzing")]
pub fn fuzz_decompression(bytes: &[u8]) {
    const MAX: usize = 1 << 20;
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut charged = 0;
        let decoded =
            decode(bytes, compression, BodyLimits { what: "the body", max_bytes: MAX }, |length| {
                charged += length;
                Ok(())
            });
        assert!(charged <= MAX, "{charged} bytes were charged");
        if let Ok(decoded) = decoded {
            assert_eq!(decoded.len(), charged);
        }
    }
}
