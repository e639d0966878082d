//! Compresses an export.

use std::io::{self, Write as _};

use flate2::write::GzEncoder;

use crate::interface::http::content_encoding::Encoding;

/// Compresses a stream piece by piece.
pub(super) enum Compressor {
    Identity(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Compressor {
    /// # Errors
    /// Returns an error if the memory for the compressor cannot be allocated.
    pub(super) fn new(encoding: Encoding) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::Identity => Self::Identity(Vec::new()),
            Encoding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(3))),
            Encoding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 1)?),
        })
    }

    /// Compresses and removes all of `bytes`.
    pub(super) fn write(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Identity(output) if output.is_empty() => std::mem::swap(output, bytes),
            Self::Identity(output) => output.append(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes)?,
            Self::Zstd(encoder) => encoder.write_all(bytes)?,
        }
        bytes.clear();
        Ok(())
    }

    /// Returns what is compressed so far. The last call ends the stream.
    pub(super) fn take(&mut self, is_end: bool) -> io::Result<Vec<u8>> {
        Ok(match self {
            Self::Identity(output) => std::mem::take(output),
            Self::Gzip(encoder) => {
                if is_end {
                    encoder.try_finish()?;
                }
                std::mem::take(encoder.get_mut())
            }
            Self::Zstd(encoder) => {
                if is_end {
                    encoder.do_finish()?;
                }
                std::mem::take(encoder.get_mut())
            }
        })
    }
}
