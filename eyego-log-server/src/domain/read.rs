//! What all reads share: why they fail, the memory they may use, and pages that
//! are bounded by number and by bytes.

use std::ops::ControlFlow;
use std::time::Duration;

use eyego_log_core::LogEntry;
use eyego_log_core::query::Cursor;

/// Maximum size of a page as JSON, in bytes. A single larger item is a page of
/// its own.
pub const MAX_PAGE_BYTES: usize = 8 << 20;

/// Maximum size of an event as JSON that is returned, in bytes: the largest document of
/// MongoDB, and some for what surrounds its values in JSON. Another program may have
/// stored a larger one.
pub const MAX_EVENT_BYTES: usize = (16 << 20) + (64 << 10);

/// Memory that a page reserves at a time, in bytes: reserving it for each item takes
/// longer.
const RESERVED_AT_ONCE: usize = 4 << 10;

/// The reason a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store is unreachable.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store returned a response that cannot be interpreted.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The query exceeded this time limit.
    #[error("the query took longer than {0:?}")]
    TimedOut(Duration),
    /// The event is larger than [`MAX_EVENT_BYTES`].
    #[error("the event has more than {MAX_EVENT_BYTES} bytes as JSON")]
    TooLarge,
    /// Other reads use the capacity or the memory that this one needs.
    #[error("too many reads at the same time: {0}")]
    Overloaded(&'static str),
}

/// The memory reserved for one read. The share is released when the last
/// reference is dropped.
pub trait ReadMemory: Send + Sync {
    /// Adds `bytes` to the share.
    ///
    /// # Errors
    /// Returns [`ReadError::Overloaded`] if the memory of all reads is used up.
    fn reserve(&self, bytes: usize) -> Result<(), ReadError>;
}

/// Memory without a limit.
#[cfg(test)]
pub(crate) struct Unlimited;

#[cfg(test)]
impl ReadMemory for Unlimited {
    fn reserve(&self, _bytes: usize) -> Result<(), ReadError> {
        Ok(())
    }
}

/// One page of a result, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T = LogEntry> {
    /// Entries of the page.
    pub entries: Vec<T>,
    /// Position after which the next page begins, if more entries may follow. It is that of the
    /// last entry, or of the last item that was skipped after it.
    pub next: Option<Cursor>,
}

/// What a page can consist of.
pub trait PageItem {
    /// Returns the position in the order of the result.
    fn position(&self) -> Cursor;

    /// Returns the size as JSON, in bytes.
    fn json_bytes(&self) -> usize;
}

/// Builds a page from a result that is read item by item.
pub struct PageBuilder<'a, T> {
    limit: usize,
    memory: &'a dyn ReadMemory,
    bytes: usize,
    reserved: usize,
    entries: Vec<T>,
    has_more: bool,
    /// Position up to which the result was read, if that is after the last entry.
    examined: Option<Cursor>,
}

impl<T> std::fmt::Debug for PageBuilder<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageBuilder").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<'a, T: PageItem> PageBuilder<'a, T> {
    /// Starts a page of at most `limit` items. Their size is reserved from `memory`
    /// before they are kept, a few KiB at a time.
    #[must_use]
    pub fn new(limit: u32, memory: &'a dyn ReadMemory) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            limit,
            memory,
            bytes: 0,
            reserved: 0,
            entries: Vec::new(),
            has_more: false,
            examined: None,
        }
    }

    /// Adds the next item of the result. Returns [`ControlFlow::Break`] if the
    /// page is complete without it.
    ///
    /// # Errors
    /// Returns [`ReadError::Overloaded`] if there is no memory for the item.
    pub fn push(&mut self, item: T) -> Result<ControlFlow<()>, ReadError> {
        let bytes = item.json_bytes();
        let is_too_large = !self.entries.is_empty() && self.bytes + bytes > MAX_PAGE_BYTES;
        if self.entries.len() >= self.limit || is_too_large {
            self.has_more = true;
            return Ok(ControlFlow::Break(()));
        }
        if self.bytes + bytes > self.reserved {
            let more = (self.bytes + bytes - self.reserved).max(RESERVED_AT_ONCE);
            self.memory.reserve(more)?;
            self.reserved += more;
        }
        self.bytes += bytes;
        self.entries.push(item);
        Ok(ControlFlow::Continue(()))
    }

    /// Records that the result was read up to `position`, and that more items may follow. The
    /// page can be empty if everything up to there was skipped.
    pub fn expect_more_after(&mut self, position: Cursor) {
        self.has_more = true;
        self.examined = Some(position);
    }

    /// Returns the page.
    #[must_use]
    pub fn finish(self) -> Page<T> {
        let last = self.examined.or_else(|| self.entries.last().map(T::position));
        Page { entries: self.entries, next: last.filter(|_| self.has_more) }
    }
}

impl PageItem for LogEntry {
    fn position(&self) -> Cursor {
        self.into()
    }

    fn json_bytes(&self) -> usize {
        /// Keys, punctuation, the id and the timestamp.
        const FIXED: usize = 104;

        FIXED
            + json_text_bytes(self.user_id.as_str())
            + json_text_bytes(self.action.as_str())
            + self.metadata.as_json().len()
    }
}

/// Returns the size of a text as a JSON string, in bytes.
#[must_use]
pub fn json_text_bytes(text: &str) -> usize {
    let escaped = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    2 + text.as_bytes().iter().map(escaped).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use eyego_log_core::{Action, LogId, Metadata, Timestamp, UserId};

    use super::*;

    struct Limited(usize);

    impl ReadMemory for Limited {
        fn reserve(&self, bytes: usize) -> Result<(), ReadError> {
            if bytes <= self.0 { Ok(()) } else { Err(ReadError::Overloaded("test")) }
        }
    }

    fn entry(n: u8, text_bytes: usize) -> LogEntry {
        let metadata = format!("{{\"a\":\"{}\"}}", "x".repeat(text_bytes));
        LogEntry::new(
            LogId::from_bytes([n; 12]),
            UserId::new("a\"\\\n\u{1}\u{7f}ü").unwrap(),
            Action::new("A").unwrap(),
            Timestamp::from_millis(i64::from(n)).unwrap(),
            Metadata::from_json(metadata).unwrap(),
        )
    }

    fn page(limit: u32, sizes: &[usize]) -> (usize, bool) {
        let memory = Limited(usize::MAX);
        let mut page = PageBuilder::new(limit, &memory);
        for (n, size) in (0..).zip(sizes) {
            if page.push(entry(n, *size)).unwrap().is_break() {
                break;
            }
        }
        let page = page.finish();
        (page.entries.len(), page.next.is_some())
    }

    #[test]
    fn a_page_ends_at_its_limit_or_at_its_bytes() {
        assert_eq!(page(2, &[1, 1]), (2, false));
        assert_eq!(page(2, &[1, 1, 1]), (2, true));
        assert_eq!(page(9, &[4 << 20, 3 << 20, 2 << 20]), (2, true));
        assert_eq!(page(9, &[4 << 20, 3 << 20]), (2, false));
        assert_eq!(page(9, &[9 << 20, 1]), (1, true), "a large event is a page of its own");
        assert_eq!(page(9, &[1, 9 << 20]), (1, true));
    }

    #[test]
    fn a_page_of_skipped_items_continues_after_the_last_of_them() {
        let memory = Limited(usize::MAX);
        let mut page = PageBuilder::<LogEntry>::new(9, &memory);
        let position = PageItem::position(&entry(7, 1));
        page.expect_more_after(position);
        assert_eq!(page.finish(), Page { entries: Vec::new(), next: Some(position) });
    }

    #[test]
    fn a_page_without_memory_is_an_error() {
        let memory = Limited(RESERVED_AT_ONCE);
        let mut page = PageBuilder::new(9, &memory);
        assert!(page.push(entry(1, 10)).unwrap().is_continue());
        let large = entry(2, 2 * RESERVED_AT_ONCE);
        assert!(matches!(page.push(large), Err(ReadError::Overloaded(_))));
    }
}
