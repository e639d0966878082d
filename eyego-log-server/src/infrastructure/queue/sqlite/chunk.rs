//! Records in one piece: what a row of the queue holds.
//!
//! A row for each record would cost more than the record: an insertion, a
//! deletion, a place in the tree. So the records of one transaction share a
//! row, each as its length and the CRC-32 of its bytes (both `u32`,
//! little-endian), then the bytes. SQLite keeps no sums of its pages; with
//! these a bit that a disk has turned is noticed, not stored.
//!
//! A row that would fill pages is a zstd frame of that: records resemble each
//! other, and what is not written need not be synced, merged and deleted. No
//! record is as long as a frame's first four bytes would say.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{compress_bound, get_frame_content_size};

/// A chunk takes no more records at so many bytes: a reader holds one in
/// memory.
pub(super) const FULL: usize = 256 << 10;

/// Length and sum.
pub(super) const HEADER: usize = 8;

/// Shorter ones share their page with others as they are.
const WORTH_PACKING: usize = 2 << 10;

/// The largest that is packed: a full one whose last record is as large as one
/// may be. A damaged frame cannot ask for more memory.
const LARGEST_PACKED: usize = 16 << 20;

/// Callers wait meanwhile: of 1, -1 and -3 the one with which most is appended
/// in a second (measured).
const LEVEL: i32 = -1;

/// How a zstd frame begins.
const FRAME: [u8; 4] = zstd::zstd_safe::MAGICNUMBER.to_le_bytes();

/// Records on their way into a row.
#[derive(Default)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    records: u32,
    packer: Option<Compressor<'static>>,
    packed: Vec<u8>,
}

impl Chunk {
    pub(super) fn push(&mut self, record: &[u8]) {
        // A record is bounded by the event's limit, far below 4 GiB.
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&crc32fast::hash(record).to_le_bytes());
        self.bytes.extend_from_slice(record);
        self.records += 1;
    }

    /// What the row holds.
    pub(super) fn pack(&mut self) -> &[u8] {
        if (WORTH_PACKING..=LARGEST_PACKED).contains(&self.bytes.len()) && self.try_pack().is_some()
        {
            &self.packed
        } else {
            &self.bytes
        }
    }

    /// Fails where memory does, and where it does not help.
    fn try_pack(&mut self) -> Option<()> {
        let packer = match &mut self.packer {
            Some(packer) => packer,
            None => self.packer.insert(Compressor::new(LEVEL).ok()?),
        };
        self.packed.clear();
        self.packed.reserve(compress_bound(self.bytes.len()));
        let length = packer.compress_to_buffer(&self.bytes, &mut self.packed).ok()?;
        (length < self.bytes.len()).then_some(())
    }

    pub(super) fn records(&self) -> u32 {
        self.records
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.records = 0;
        // Not for ever the memory of the largest record there was.
        self.bytes.shrink_to(2 * FULL);
        self.packed.shrink_to(2 * FULL);
    }
}

/// Reads what rows hold.
#[derive(Default)]
pub(super) struct Unpacker(Decompressor<'static>);

impl Unpacker {
    /// The records, to be [taken](take) one by one.
    pub(super) fn unpack(&mut self, row: Vec<u8>) -> Result<Vec<u8>, Damaged> {
        if !row.starts_with(&FRAME) {
            return Ok(row);
        }
        let bytes = get_frame_content_size(&row).ok().flatten().ok_or(Damaged)?;
        let bytes = usize::try_from(bytes).map_err(|_| Damaged)?;
        if bytes > LARGEST_PACKED {
            return Err(Damaged);
        }
        self.0.decompress(&row, bytes).map_err(|_| Damaged)
    }
}

/// A record was altered on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

/// Takes the first record off a chunk; `None` at its end. After a damaged one
/// the next may be whole again.
pub(super) fn take<'a>(chunk: &mut &'a [u8]) -> Option<Result<&'a [u8], Damaged>> {
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
    let sum = u32::from_le_bytes([c0, c1, c2, c3]);
    Some(if crc32fast::hash(record) == sum { Ok(record) } else { Err(Damaged) })
}

/// For the fuzz targets: any bytes are read to their end, and what is whole is
/// read the same way when it is written again.
#[doc(hidden)]
pub fn fuzz_chunk(row: &[u8]) {
    let mut unpacker = Unpacker::default();
    let Ok(bytes) = unpacker.unpack(row.to_vec()) else { return };
    let (mut left, mut whole) = (&bytes[..], Chunk::default());
    while let Some(record) = take(&mut left) {
        if let Ok(record) = record {
            whole.push(record);
        }
    }
    assert!(whole.bytes.len() <= bytes.len());
    let again = unpacker.unpack(whole.pack().to_vec());
    let again = again.unwrap_or_else(|Damaged| panic!("what was packed is unpacked"));
    let (mut again, mut records) = (&again[..], 0);
    while let Some(record) = take(&mut again) {
        assert!(record.is_ok());
        records += 1;
    }
    assert_eq!(records, whole.records());
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

    fn take_all(row: &[u8]) -> Result<Vec<Result<Vec<u8>, Damaged>>, Damaged> {
        let bytes = Unpacker::default().unpack(row.to_vec())?;
        let mut left = &bytes[..];
        let taken = std::iter::from_fn(|| take(&mut left));
        Ok(taken.map(|record| record.map(<[u8]>::to_vec)).collect())
    }

    fn some_records() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8)
    }

    /// As activity is: many, alike, and not quite.
    fn alike() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let record = (0..9999_u32, "[a-z]{0,20}").prop_map(|(user, what)| {
            format!(r#"{{"userId":"user-{user}","action":"CLICK","metadata":{{"on":"{what}"}}}}"#)
                .into_bytes()
        });
        prop::collection::vec(record, 40..200)
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(records in prop_oneof![some_records(), alike()]) {
            let mut chunk = chunk(&records);
            prop_assert_eq!(chunk.records() as usize, records.len());
            let whole: Vec<_> = records.into_iter().map(Ok).collect();
            prop_assert_eq!(take_all(chunk.pack()), Ok(whole));
        }

        #[test]
        fn records_that_are_alike_are_packed(records in alike()) {
            let mut chunk = chunk(&records);
            let bytes = chunk.bytes.len();
            let row = chunk.pack();
            prop_assert!(row.starts_with(&FRAME));
            prop_assert!(row.len() < bytes / 2, "{} of {bytes} bytes", row.len());
        }

        #[test]
        fn a_turned_bit_never_makes_another_record(
            records in prop_oneof![some_records(), alike()],
            place in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let mut row = chunk(&records).pack().to_vec();
            let place = place.index(row.len());
            row[place] ^= 1_u8 << bit;
            let Ok(taken) = take_all(&row) else { return Ok(()) };
            let whole = taken.iter().flatten().count();
            // A packed one has bits that mean nothing.
            let is_harmless = row.starts_with(&FRAME) && whole == records.len();
            prop_assert!(is_harmless || whole < records.len() || taken.contains(&Err(Damaged)));
            for record in taken.into_iter().flatten() {
                prop_assert!(records.contains(&record) || record.is_empty());
            }
        }

        #[test]
        fn any_bytes_are_read_to_their_end(
            frame in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let row = if frame { [&FRAME[..], &bytes].concat() } else { bytes };
            if let Ok(taken) = take_all(&row) {
                prop_assert!(frame || taken.len() <= row.len());
            }
        }
    }

    #[test]
    fn a_frame_cannot_ask_for_more_memory_than_a_chunk_has() {
        let bomb = zstd::bulk::compress(&vec![0; LARGEST_PACKED + 1], LEVEL).unwrap();
        assert_eq!(Unpacker::default().unpack(bomb), Err(Damaged));
    }

    #[test]
    fn the_largest_record_is_packed_and_its_memory_given_back() {
        let record = vec![b'x'; 15 << 20];
        let mut chunk = chunk(&[vec![b'y'; FULL - HEADER - 1], record.clone()]);
        let row = chunk.pack().to_vec();
        assert!(row.len() < 1 << 20);
        let taken = take_all(&row).unwrap();
        assert!(taken[1].as_ref() == Ok(&record));
        chunk.clear();
        assert!(chunk.bytes.capacity() + chunk.packed.capacity() <= 4 * FULL);
    }
}
