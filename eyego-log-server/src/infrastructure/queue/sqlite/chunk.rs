//! Records in one piece: what a row of the queue holds.
//!
//! A row for each record would cost more than the record: an insertion, a
//! deletion, a place in the tree. So the records of one transaction share a
//! row, each as its length and the CRC-32 of its bytes (both `u32`,
//! little-endian), then the bytes. SQLite keeps no sums of its pages; with
//! these a bit that a disk has turned is noticed, not stored.

/// A chunk takes no more records at so many bytes: a reader holds one in
/// memory.
pub(super) const FULL: usize = 256 << 10;

/// Length and sum.
pub(super) const HEADER: usize = 8;

/// Records on their way into a row.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    records: u32,
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

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
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
pub fn fuzz_chunk(bytes: &[u8]) {
    let (mut left, mut whole) = (bytes, Chunk::default());
    while let Some(record) = take(&mut left) {
        if let Ok(record) = record {
            whole.push(record);
        }
    }
    assert!(whole.bytes().len() <= bytes.len());
    let (mut again, mut records) = (whole.bytes(), 0);
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

    fn take_all(mut bytes: &[u8]) -> Vec<Result<Vec<u8>, Damaged>> {
        std::iter::from_fn(|| take(&mut bytes)).map(|record| record.map(<[u8]>::to_vec)).collect()
    }

    fn some_records() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8)
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(records in some_records()) {
            let chunk = chunk(&records);
            prop_assert_eq!(chunk.records() as usize, records.len());
            let whole: Vec<_> = records.into_iter().map(Ok).collect();
            prop_assert_eq!(take_all(chunk.bytes()), whole);
        }

        #[test]
        fn a_turned_bit_never_makes_another_record(
            records in some_records(), place in any::<prop::sample::Index>(), bit in 0_u8..8,
        ) {
            let mut bytes = chunk(&records).bytes().to_vec();
            let place = place.index(bytes.len());
            bytes[place] ^= 1_u8 << bit;
            let taken = take_all(&bytes);
            prop_assert!(taken.contains(&Err(Damaged)));
            for record in taken.into_iter().flatten() {
                prop_assert!(records.contains(&record) || record.is_empty());
            }
        }

        #[test]
        fn any_bytes_are_read_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(take_all(&bytes).len() <= bytes.len());
        }
    }
}
