//! Encoded records on their way into the queue.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use eyego_log_core::{LogEntry, record};

/// Encoded records in one contiguous buffer. Clones share the buffer.
#[derive(Clone, Default)]
pub struct RecordBatch {
    records: Arc<Records>,
}

#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    /// End of the key and end of the value of each record, in `bytes`.
    ends: Vec<(usize, usize)>,
    guard: Option<Box<dyn Any + Send + Sync>>,
}

impl Clone for Records {
    /// Copies the records for a caller that modifies a shared batch. The guard
    /// stays with the original.
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), ends: self.ends.clone(), guard: None }
    }
}

impl RecordBatch {
    /// Creates an empty batch with capacity for this many bytes and records.
    #[must_use]
    pub fn with_capacity(bytes: usize, records: usize) -> Self {
        let (bytes, ends) = (Vec::with_capacity(bytes), Vec::with_capacity(records));
        Self { records: Arc::new(Records { bytes, ends, guard: None }) }
    }

    /// Encodes an entry and appends it, keyed by its user.
    pub fn push(&mut self, entry: &LogEntry) {
        let records = Arc::make_mut(&mut self.records);
        records.bytes.extend_from_slice(entry.user_id.as_str().as_bytes());
        let key_end = records.bytes.len();
        record::encode(entry, &mut records.bytes);
        records.ends.push((key_end, records.bytes.len()));
    }

    /// Appends a record that is already encoded.
    pub fn push_encoded(&mut self, key: &[u8], value: &[u8]) {
        let records = Arc::make_mut(&mut self.records);
        records.bytes.extend_from_slice(key);
        let key_end = records.bytes.len();
        records.bytes.extend_from_slice(value);
        records.ends.push((key_end, records.bytes.len()));
    }

    /// Attaches a guard, such as a share of a memory budget. It is dropped with
    /// the last clone of the batch, that is, once the result of every record is
    /// known, even if the caller no longer waits for it.
    pub fn hold_until_settled(&mut self, guard: impl Any + Send + Sync) {
        Arc::make_mut(&mut self.records).guard = Some(Box::new(guard));
    }

    /// Returns the records, in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Returns the record at `index`.
    ///
    /// # Panics
    /// Panics if the batch has no record at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> RecordRef<'_> {
        let Records { bytes, ends, .. } = &*self.records;
        let start = if index == 0 { 0 } else { ends[index - 1].1 };
        let (key_end, end) = ends[index];
        RecordRef { key: &bytes[start..key_end], value: &bytes[key_end..end] }
    }

    /// Returns the number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.ends.len()
    }

    /// Returns `true` if the batch has no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.ends.is_empty()
    }

    /// Returns the total size of all keys and values, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.records.bytes.len()
    }
}

impl fmt::Debug for RecordBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes are personal data and must not reach a log.
        f.debug_struct("RecordBatch")
            .field("records", &self.len())
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

/// One record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Partitioning key: the user id.
    pub key: &'a [u8],
    /// Encoded record; see [`record::encode`].
    pub value: &'a [u8],
}
