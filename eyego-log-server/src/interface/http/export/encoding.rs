//! The content encoding of an export.

use std::io::{self, Write as _};

use flate2::write::GzEncoder;
use http::HeaderMap;

use crate::interface::http::accept_encoding;

/// A content encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// Returns the best encoding that the client accepts: `zstd` before `gzip`, if
    /// the client has no preference.
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        let mut best = (0.0, Self::Identity);
        for (name, weight) in accept_encoding::codings(headers) {
            let encoding = if name.eq_ignore_ascii_case("zstd") {
                Self::Zstd
            } else if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
                Self::Gzip
            } else {
                continue;
            };
            let weight = weight.unwrap_or(0.0);
            if weight > best.0 || (weight == best.0 && weight > 0.0 && encoding == Self::Zstd) {
                best = (weight, encoding);
            }
        }
        best.1
    }

    /// Returns the value of `Content-Encoding`.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// Compresses a stream piece by piece.
pub(super) enum Compressor {
    Identity(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Compressor {
    /// # Errors
    /// Returns an error if there is no memory for the compressor.
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::ACCEPT_ENCODING;

    use super::*;

    #[test]
    fn the_client_chooses_the_encoding() {
        for (accepted, expected) in [
            ("", Encoding::Identity),
            ("br, deflate", Encoding::Identity),
            ("gzip, deflate, br, zstd", Encoding::Zstd),
            ("gzip;q=1.0, zstd;q=0.5", Encoding::Gzip),
            ("GZIP", Encoding::Gzip),
            ("zstd;q=0", Encoding::Identity),
        ] {
            let headers = [(ACCEPT_ENCODING, HeaderValue::from_static(accepted))];
            let headers = headers.into_iter().collect();
            assert_eq!(Encoding::accepted(&headers), expected, "{accepted}");
        }
    }
}
