//! The memory of a batch: a segment of fixed size that is reused.
//!
//! The general allocator keeps freed memory between live allocations, so buffers
//! that grow and shrink leave the process two to three times as large as the
//! buffer (ADR 0028). A segment is therefore an anonymous mapping of its own. Its
//! pages occupy memory only once they are written, and all of it is returned to
//! the operating system when the segment is dropped.

use memmap2::MmapMut;

/// Up to this size, content is kept in the general allocator, because a mapping
/// occupies whole pages.
const MAX_HEAP_BYTES: usize = 32 << 10;

/// The unit in which the operating system provides memory, in bytes. Larger
/// pages make the figures below slightly too small.
pub(crate) const PAGE_BYTES: usize = 4 << 10;

#[derive(Debug)]
enum Store {
    Heap(Vec<u8>),
    Mapped {
        map: MmapMut,
        len: usize,
        /// The largest length so far. The pages up to it occupy memory.
        touched: usize,
    },
}

#[derive(Debug)]
pub(crate) struct Memory {
    store: Store,
    /// The size of a segment, in bytes.
    segment_bytes: usize,
}

impl Memory {
    /// Creates empty memory for up to `segment_bytes` bytes. It occupies nothing
    /// until it is written.
    pub(crate) const fn new(segment_bytes: usize) -> Self {
        Self { store: Store::Heap(Vec::new()), segment_bytes }
    }

    /// Uses the memory of `bytes`.
    pub(crate) const fn from_vec(bytes: Vec<u8>) -> Self {
        Self { store: Store::Heap(bytes), segment_bytes: 0 }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match &self.store {
            Store::Heap(bytes) => bytes,
            Store::Mapped { map, len, .. } => &map[..*len],
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.store {
            Store::Heap(bytes) => bytes.len(),
            Store::Mapped { len, .. } => *len,
        }
    }

    pub(crate) fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }

    /// Returns whether the content needs no segment of its own.
    pub(crate) fn is_small(&self) -> bool {
        self.len() <= MAX_HEAP_BYTES
    }

    /// Returns whether this occupies a segment.
    pub(crate) fn has_segment(&self) -> bool {
        matches!(self.store, Store::Mapped { .. })
    }

    /// Returns the memory that this occupies, whether or not it is in use.
    pub(crate) fn resident_bytes(&self) -> usize {
        match &self.store {
            Store::Heap(bytes) => bytes.capacity(),
            Store::Mapped { touched, .. } => touched.next_multiple_of(PAGE_BYTES),
        }
    }

    /// Appends `data`.
    pub(crate) fn extend(&mut self, data: &[u8]) {
        let end = self.len() + data.len();
        if let Store::Mapped { map, len, touched } = &mut self.store
            && let Some(free) = map.get_mut(*len..end)
        {
            free.copy_from_slice(data);
            *len = end;
            *touched = end.max(*touched);
            return;
        }
        self.extend_slowly(data, end);
    }

    /// Prepares for content of `bytes` bytes: if it belongs into a segment, it is
    /// kept in one from the beginning.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        let needs_segment = bytes > MAX_HEAP_BYTES && bytes <= self.segment_bytes;
        // If the operating system provides no segment, the general allocator is
        // used.
        if needs_segment
            && let Store::Heap(content) = &self.store
            && let Ok(mut map) = MmapMut::map_anon(self.segment_bytes)
        {
            // A huge page would span several segments and occupy memory that none
            // of them has written.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::NoHugePage);
            let len = content.len();
            map[..len].copy_from_slice(content);
            self.store = Store::Mapped { map, len, touched: len };
        }
    }

    #[cold]
    #[inline(never)]
    fn extend_slowly(&mut self, data: &[u8], end: usize) {
        if let Store::Mapped { .. } = self.store {
            self.store = Store::Heap(self.as_slice().to_vec());
        } else {
            self.reserve(end);
        }
        match &mut self.store {
            Store::Heap(bytes) => bytes.extend_from_slice(data),
            Store::Mapped { .. } => self.extend(data),
        }
    }

    /// Returns a copy that occupies no more than it needs.
    pub(crate) fn compact(&self) -> Self {
        let bytes = self.as_slice();
        let mut copy = Self::new(self.segment_bytes);
        if bytes.len() <= MAX_HEAP_BYTES {
            copy.store = Store::Heap(bytes.to_vec());
        } else {
            copy.extend(bytes);
        }
        copy
    }

    /// Empties the memory and keeps it for later content.
    pub(crate) fn clear(&mut self) {
        match &mut self.store {
            Store::Heap(bytes) => bytes.clear(),
            Store::Mapped { len, .. } => *len = 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The content is the same in either kind of memory.
        #[test]
        fn segmented_memory_holds_what_was_appended(
            pieces in prop::collection::vec(1_usize..9000, 0..40),
            segment_bytes in 0_usize..200_000,
        ) {
            let mut memory = Memory::new(segment_bytes);
            for _ in 0..2 {
                let mut expected = Vec::new();
                for (n, length) in pieces.iter().enumerate() {
                    let piece = vec![u8::try_from(n).unwrap(); *length];
                    memory.extend(&piece);
                    expected.extend(piece);
                }
                prop_assert_eq!(memory.as_slice(), &expected[..]);
                let compact = memory.compact();
                prop_assert_eq!(compact.as_slice(), &expected[..]);
                prop_assert!(memory.resident_bytes() >= memory.len());
                memory.clear();
                prop_assert_eq!(memory.len(), 0);
            }
        }
    }

    #[test]
    fn a_segment_counts_the_pages_that_were_written() {
        let mut memory = Memory::new(1 << 20);
        memory.extend(&[7; 100_000]);
        assert!(memory.resident_bytes() < 110_000, "{}", memory.resident_bytes());
        memory.clear();
        memory.extend(&[7; 1000]);
        assert!(memory.resident_bytes() >= 100_000);
        assert!(memory.compact().resident_bytes() < 2000);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_segment_consists_of_small_pages_whatever_the_system_prefers() {
        let mut memory = Memory::new(1 << 20);
        memory.extend(&[7; 100_000]);
        let address = memory.as_slice().as_ptr().addr();
        let mappings = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let is_inside = |line: &str| {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let hex = |text| usize::from_str_radix(text, 16);
            range.is_some_and(|(start, end)| match (hex(start), hex(end)) {
                (Ok(start), Ok(end)) => (start..end).contains(&address),
                _ => false,
            })
        };
        let mut lines = mappings.lines().skip_while(|line| !is_inside(line));
        let flags = lines.find(|line| line.starts_with("VmFlags:")).unwrap();
        assert!(flags.split(' ').any(|flag| flag == "nh"), "no huge pages: {flags}");
    }
}
