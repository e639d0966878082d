//! Compresses request bodies, if the crate feature `zstd` is enabled.

/// Compresses with zstd at level 1 and reuses its memory.
#[cfg(feature = "zstd")]
#[derive(Default)]
pub(crate) struct Compressor {
    context: Option<zstd::bulk::Compressor<'static>>,
    scratch: Vec<u8>,
}

#[cfg(feature = "zstd")]
impl Compressor {
    /// Returns `None` if compression fails or does not make the body smaller.
    pub(crate) fn compress(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let context = match &mut self.context {
            Some(context) => context,
            None => self.context.insert(zstd::bulk::Compressor::new(1).ok()?),
        };
        self.scratch.clear();
        // The scratch buffer has room for the worst case; the result is exact.
        self.scratch.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        let length = context.compress_to_buffer(bytes, &mut self.scratch).ok()?;
        (length < bytes.len()).then(|| self.scratch[..length].to_vec())
    }
}

/// Compresses nothing because the crate feature `zstd` is disabled.
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
    fn a_compressed_body_can_be_decompressed() {
        let mut compressor = Compressor::default();
        for text in ["ab".repeat(5000), "cd".repeat(500)] {
            let compressed = compressor.compress(text.as_bytes()).unwrap();
            assert_eq!(zstd::decode_all(&compressed[..]).unwrap(), text.as_bytes());
        }
        assert!(compressor.compress(b"x").is_none(), "compression would enlarge it");
    }
}
