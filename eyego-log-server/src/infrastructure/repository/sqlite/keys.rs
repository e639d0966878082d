//! The keys of matching entries, merged from the segments of an index.

use std::collections::VecDeque;

use eyego_log_core::LogQuery;
use eyego_log_core::query::{Cursor, Order, Start};
use rusqlite::CachedStatement;

use super::readers::{QueryError, Snapshot};
use super::row::{self, Key};
use super::segments::{self, Segment};
use super::statement;

/// Maximum number of keys that are read at a time.
const MAX_KEYS_PER_READ: usize = 256;

/// Iterates over the keys of matching entries in the query's order, up to one
/// past the page. Keys of one user or one action are merged from the segments of
/// the index by user or by action; all others come from the index by time.
pub(super) struct Keys<'a, 'c> {
    snapshot: &'a mut Snapshot<'c>,
    query: &'a LogQuery,
    /// Selects the keys of a segment, its first parameter, or of all entries from the start
    /// of the query on.
    first: CachedStatement<'c>,
    /// Maximum number of keys still to return.
    remaining: u64,
    /// Segments that are not open yet, the next one last.
    unopened: Vec<Segment>,
    /// Open sources. Each has at least one buffered key.
    open: Vec<Source>,
}

/// Keys of one segment, or of all entries, in the query's order.
struct Source {
    /// Number of the segment. `None` means all entries.
    segment: Option<i64>,
    buffered: VecDeque<Key>,
    /// Position up to which the source has been examined. `None` if no keys follow
    /// the buffered ones.
    examined: Option<Cursor>,
}

impl<'a, 'c> Keys<'a, 'c> {
    pub(super) fn new(
        snapshot: &'a mut Snapshot<'c>,
        query: &'a LogQuery,
    ) -> Result<Self, QueryError> {
        // One key more than the page shows whether there is another page.
        let remaining = query.skipped_rows().saturating_add(u64::from(query.limit) + 1);
        let is_divided = segments::divide(query);
        let (sql, parameters) = statement::select(query, query.start, is_divided.then_some(0));
        let mut first = snapshot.connection().prepare_cached(&sql)?;
        for (index, parameter) in parameters.into_iter().enumerate() {
            first.raw_bind_parameter(index + 1, parameter)?;
        }
        let (unopened, open) = (Vec::new(), Vec::new());
        let mut keys = Self { snapshot, query, first, remaining, unopened, open };
        if is_divided {
            keys.unopened = segments::of_query(keys.snapshot.connection(), query)?;
        } else {
            keys.open(None, query.start)?;
        }
        Ok(keys)
    }

    /// Passes over the keys before the page. Returns the last one, or `None` if there are
    /// fewer or none to pass over.
    pub(super) fn skip_to_page(&mut self) -> Result<Option<Key>, QueryError> {
        let mut last = None;
        for _ in 0..self.query.skipped_rows() {
            last = self.next()?;
            if last.is_none() {
                break;
            }
        }
        Ok(last)
    }

    pub(super) fn next(&mut self) -> Result<Option<Key>, QueryError> {
        self.snapshot.check()?;
        self.snapshot.renew()?;
        if self.remaining == 0 {
            return Ok(None);
        }
        let (index, key) = loop {
            let first = self.peek();
            let may_precede = |segment: &mut Segment| {
                first.is_none_or(|(_, key)| match self.query.order {
                    Order::Descending => segment.latest >= key.timestamp,
                    Order::Ascending => segment.earliest <= key.timestamp,
                })
            };
            if let Some(segment) = self.unopened.pop_if(may_precede) {
                self.open(Some(segment.number), self.query.start)?;
            } else if let Some(first) = first {
                break first;
            } else {
                return Ok(None);
            }
        };
        self.remaining -= 1;
        let source = &mut self.open[index];
        source.buffered.pop_front();
        if source.buffered.is_empty() {
            let Source { segment, examined, .. } = self.open.swap_remove(index);
            if let Some(examined) = examined
                && self.remaining > 0
            {
                self.open(segment, Start::After(examined))?;
            }
        }
        Ok(Some(key))
    }

    /// Returns the first buffered key and the index of its source.
    fn peek(&self) -> Option<(usize, Key)> {
        let firsts = self.open.iter().enumerate();
        let firsts = firsts.filter_map(|(index, source)| Some((index, *source.buffered.front()?)));
        match self.query.order {
            Order::Descending => firsts.max_by_key(|(_, key)| *key),
            Order::Ascending => firsts.min_by_key(|(_, key)| *key),
        }
    }

    /// Opens the segment, or all entries, with the keys that follow `start`.
    fn open(&mut self, segment: Option<i64>, mut start: Start) -> Result<(), QueryError> {
        loop {
            let source = self.read(segment, start)?;
            if !source.buffered.is_empty() {
                self.open.push(source);
                return Ok(());
            }
            let Some(examined) = source.examined else { return Ok(()) };
            // The read ended early, for a checkpoint.
            start = Start::After(examined);
            self.snapshot.renew()?;
        }
    }

    /// Reads matching keys, beginning at `start`. Stops early if a checkpoint
    /// needs the snapshot back.
    fn read(&mut self, segment: Option<i64>, start: Start) -> Result<Source, QueryError> {
        let limit = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(MAX_KEYS_PER_READ);
        let mut following;
        let mut rows = if start == self.query.start {
            if let Some(segment) = segment {
                self.first.raw_bind_parameter(1, segment)?;
            }
            self.first.raw_query()
        } else {
            let (sql, parameters) = statement::select(self.query, start, segment);
            following = self.snapshot.connection().prepare_cached(&sql)?;
            following.query(rusqlite::params_from_iter(parameters))?
        };
        let mut buffered = VecDeque::with_capacity(limit);
        let mut examined = None;
        while buffered.len() < limit && !(examined.is_some() && self.snapshot.is_wanted_back()) {
            self.snapshot.check()?;
            let Some(row) = rows.next()? else {
                examined = None;
                break;
            };
            let key = row::read_key(row)?;
            examined = Some(key.cursor());
            if statement::matches(self.query, row)? {
                buffered.push_back(key);
            }
        }
        Ok(Source { segment, buffered, examined })
    }
}
