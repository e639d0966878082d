//! The encoding of records within one row of the queue (ADR 0008).
//!
//! One row per record would cost more than the record itself, so the records of
//! a transaction share a row. Each record is encoded as
//!
//! | field | type |
//! |---|---|
//! | length of the value | `u32`, little-endian |
//! | CRC-32 of the value | `u32`, little-endian |
//! | value | bytes |
//!
//! SQLite has no page checksums; with this one, altered records are detected.
//!
//! A row that would fill pages is stored as a zstd frame of that encoding. The
//! magic number of a frame, read as a length, exceeds the maximum length of a
//! record, so that both kinds of row can be told apart.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{compress_bound, get_frame_content_size};

/// Size at which a chunk accepts no more records. A reader holds a whole chunk
/// in memory.
pub(super) const FULL: usize = 256 << 10;

/// Size of the length and the checksum of a record.
pub(super) const HEADER: usize = 8;

/// Minimum size of a compressed chunk. Smaller ones share pages with others.
const MIN_COMPRESSED: usize = 2 << 10;

/// Maximum size of a compressed chunk: a full one whose last record has the
/// maximum size. It bounds the memory that a damaged frame can request.
const MAX_COMPRESSED: usize = 16 << 20;

/// Compression level; callers wait meanwhile (ADR 0008).
const LEVEL: i32 = -1;

/// The first bytes of a zstd frame.
const FRAME_MAGIC: [u8; 4] = zstd::zstd_safe::MAGICNUMBER.to_le_bytes();

/// Records to be written as a row.
#[derive(Default)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    records: u32,
    compressor: Option<Compressor<'static>>,
    compressed: Vec<u8>,
}

impl Chunk {
    /// Appends a record.
    pub(super) fn push(&mut self, record: &[u8]) {
        // The maximum event size is far below 4 GiB.
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&crc32fast::hash(record).to_le_bytes());
        self.bytes.extend_from_slice(record);
        self.records += 1;
    }

    /// Returns the bytes of the row.
    pub(super) fn encode(&mut self) -> &[u8] {
        let is_compressible = (MIN_COMPRESSED..=MAX_COMPRESSED).contains(&self.bytes.len());
        if is_compressible && self.compress().is_some() { &self.compressed } else { &self.bytes }
    }

    /// Compresses the records. Returns `None` if that fails or saves nothing.
    fn compress(&mut self) -> Option<()> {
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            None => self.compressor.insert(Compressor::new(LEVEL).ok()?),
        };
        self.compressed.clear();
        self.compressed.reserve(compress_bound(self.bytes.len()));
        let length = compressor.compress_to_buffer(&self.bytes, &mut self.compressed).ok()?;
        (length < self.bytes.len()).then_some(())
    }

    pub(super) fn records(&self) -> u32 {
        self.records
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    /// Removes all records, and releases the memory of unusually large ones.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.records = 0;
        self.bytes.shrink_to(2 * FULL);
        self.compressed.shrink_to(2 * FULL);
    }
}

/// Decodes rows.
#[derive(Default)]
pub(super) struct ChunkDecoder(Decompressor<'static>);

impl ChunkDecoder {
    /// Decompresses a row if necessary. [`next_record`] reads the result.
    pub(super) fn decode(&mut self, row: Vec<u8>) -> Result<Vec<u8>, Damaged> {
        if !row.starts_with(&FRAME_MAGIC) {
            return Ok(row);
        }
        let bytes = get_frame_content_size(&row).ok().flatten().ok_or(Damaged)?;
        let bytes = usize::try_from(bytes).map_err(|_| Damaged)?;
        if bytes > MAX_COMPRESSED {
            return Err(Damaged);
        }
        self.0.decompress(&row, bytes).map_err(|_| Damaged)
    }
}

/// The bytes on disk differ from those that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

/// Removes the first record from a decoded chunk and returns it, or `None` at
/// the end. Records after a damaged one may be intact.
pub(super) fn next_record<'a>(chunk: &mut &'a [u8]) -> Option<Result<&'a [u8], Damaged>> {
    if chunk.is_empty() {
        return None;
    }
    let Some((header, rest)) = chunk.split_first_chunk::<HEADER>() else {
        *chunk = &[];
        return Some(Err(Damaged));
    };
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    let Some((record, rest)) = rest.split_at_checked(length) else {
        *chunk = &[];
        return Some(Err(Damaged));
    };
    *chunk = rest;
    let checksum = u32::from_le_bytes([c0, c1, c2, c3]);
    Some(if crc32fast::hash(record) == checksum { Ok(record) } else { Err(Damaged) })
}

/// Fuzz target: decodes any bytes, and checks that intact records survive
/// another round trip.
///
/// # Panics
/// Panics if that property does not hold.
#[cfg(feature = "fuzzing")]
pub fn fuzz_chunk(row: &[u8]) {
    let mut decoder = ChunkDecoder::default();
    let Ok(bytes) = decoder.decode(row.to_vec()) else { return };
    let (mut rest, mut intact) = (&bytes[..], Chunk::default());
    while let Some(record) = next_record(&mut rest) {
        if let Ok(record) = record {
            intact.push(record);
        }
    }
    assert!(intact.bytes.len() <= bytes.len());
    let again = decoder.decode(intact.encode().to_vec());
    let again = again.unwrap_or_else(|Damaged| panic!("an encoded chunk cannot be decoded"));
    let (mut again, mut records) = (&again[..], 0);
    while let Some(record) = next_record(&mut again) {
        assert!(record.is_ok());
        records += 1;
    }
    assert_eq!(records, intact.records());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(records: &[Vec<u8>]) -> Chunk {
        let mut chunk = Chunk::default();
        for record in records {
            chunk.push(record);
        }
        chunk
    }

    fn decode_all(row: &[u8]) -> Result<Vec<Result<Vec<u8>, Damaged>>, Damaged> {
        let bytes = ChunkDecoder::default().decode(row.to_vec())?;
        let mut rest = &bytes[..];
        let records = std::iter::from_fn(|| next_record(&mut rest));
        Ok(records.map(|record| record.map(<[u8]>::to_vec)).collect())
    }

    fn random_records() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8)
    }

    /// Many records that resemble each other, as events do.
    fn similar_records() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let record = (0..9999_u32, "[a-z]{0,20}").prop_map(|(user, what)| {
            format!(r#"{{"userId":"user-{user}","action":"CLICK","metadata":{{"on":"{what}"}}}}"#)
                .into_bytes()
        });
        prop::collection::vec(record, 40..200)
    }

    proptest! {
        #[test]
        fn records_survive_a_round_trip(records in prop_oneof![random_records(), similar_records()]) {
            let mut chunk = chunk(&records);
            prop_assert_eq!(chunk.records() as usize, records.len());
            let expected: Vec<_> = records.into_iter().map(Ok).collect();
            prop_assert_eq!(decode_all(chunk.encode()), Ok(expected));
        }

        #[test]
        fn similar_records_are_compressed(records in similar_records()) {
            let mut chunk = chunk(&records);
            let bytes = chunk.bytes.len();
            let row = chunk.encode();
            prop_assert!(row.starts_with(&FRAME_MAGIC));
            prop_assert!(row.len() < bytes / 2, "{} of {bytes} bytes", row.len());
        }

        #[test]
        fn flipped_bit_never_yields_a_different_record(
            records in prop_oneof![random_records(), similar_records()],
            index in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let mut row = chunk(&records).encode().to_vec();
            let index = index.index(row.len());
            row[index] ^= 1_u8 << bit;
            let Ok(decoded) = decode_all(&row) else { return Ok(()) };
            let intact = decoded.iter().flatten().count();
            // Some bits of a zstd frame have no meaning.
            let is_harmless = row.starts_with(&FRAME_MAGIC) && intact == records.len();
            prop_assert!(is_harmless || intact < records.len() || decoded.contains(&Err(Damaged)));
            for record in decoded.into_iter().flatten() {
                prop_assert!(records.contains(&record) || record.is_empty());
            }
        }

        #[test]
        fn arbitrary_bytes_are_decoded_to_their_end(
            is_frame in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let row = if is_frame { [&FRAME_MAGIC[..], &bytes].concat() } else { bytes };
            if let Ok(records) = decode_all(&row) {
                prop_assert!(is_frame || records.len() <= row.len());
            }
        }
    }

    #[test]
    fn frame_cannot_request_more_memory_than_a_chunk_has() {
        let bomb = zstd::bulk::compress(&vec![0; MAX_COMPRESSED + 1], LEVEL).unwrap();
        assert_eq!(ChunkDecoder::default().decode(bomb), Err(Damaged));
    }

    #[test]
    fn largest_record_is_compressed_and_its_memory_released() {
        let record = vec![b'x'; 15 << 20];
        let mut chunk = chunk(&[vec![b'y'; FULL - HEADER - 1], record.clone()]);
        let row = chunk.encode().to_vec();
        assert!(row.len() < 1 << 20);
        let records = decode_all(&row).unwrap();
        assert!(records[1].as_ref() == Ok(&record));
        chunk.clear();
        assert!(chunk.bytes.capacity() + chunk.compressed.capacity() <= 4 * FULL);
    }
}
