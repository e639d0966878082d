//! Compresses bodies; without the feature `zstd` it declines.

/// Compresses with zstd, level 1, with memory that it keeps.
#[cfg(feature = "zstd")]
#[derive(Default)]
pub(crate) struct Compressor {
    context: Option<zstd::bulk::Compressor<'static>>,
    scratch: Vec<u8>,
}

#[cfg(feature = "zstd")]
impl Compressor {
    /// `None` where it does not help.
    pub(crate) fn compress(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let context = match &mut self.context {
            Some(context) => context,
            None => self.context.insert(zstd::bulk::Compressor::new(1).ok()?),
        };
        self.scratch.clear();
        // Room for the worst case, kept; the body itself is as small as it may be.
        self.scratch.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        let length = context.compress_to_buffer(bytes, &mut self.scratch).ok()?;
        (length < bytes.len()).then(|| self.scratch[..length].to_vec())
    }
}

/// Compresses nothing: the feature `zstd` is off.
#[cfg(not(feature = "zstd"))]
#[derive(Default)]
pub(crate) struct Compressor(());

#[cfg(not(feature = "zstd"))]
impl Compressor {
    #[expect(clippy::unused_self, reason = "the same signature with and without the feature")]
    pub(crate) fn compress(&mut self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

#[cfg(all(test, feature = "zstd"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_can_be_read() {
        let mut compressor = Compressor::default();
        for text in ["ab".repeat(5000), "cd".repeat(500)] {
            let compressed = compressor.compress(text.as_bytes()).unwrap();
            assert_eq!(zstd::decode_all(&compressed[..]).unwrap(), text.as_bytes());
        }
        assert!(compressor.compress(b"x").is_none(), "it would grow");
    }
}
