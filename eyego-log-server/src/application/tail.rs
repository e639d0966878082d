//! Tails on behalf of API callers: stored events first, then each new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eyego_log_core::query::{Order, Start};
use eyego_log_core::{LogEntry, LogId, LogQuery};

use super::read_budget::{ReadBudget, ReadShare};
use crate::domain::read::{MAX_PAGE_BYTES, PageItem as _};
use crate::domain::repository::LogRepository;
use crate::domain::tail::{LogTail, MAX_BATCH_BYTES, Tail, TailError, TailedEvent};

/// Starts tails.
#[derive(Clone)]
pub struct Tails {
    store: Arc<dyn LogTail>,
    repository: Arc<dyn LogRepository>,
    budget: ReadBudget,
    counters: Arc<TailCounters>,
}

impl std::fmt::Debug for Tails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tails").field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// Counts tails and their events.
#[derive(Debug, Default)]
pub struct TailCounters {
    open: AtomicU64,
    sent: AtomicU64,
    skipped: AtomicU64,
}

/// Snapshot of the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailCounts {
    /// Open tails.
    pub open: u64,
    /// Events sent on tails.
    pub sent: u64,
    /// Events that tails missed because their readers were too slow.
    pub skipped: u64,
}

impl TailCounters {
    /// Returns a snapshot.
    #[must_use]
    pub fn counts(&self) -> TailCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TailCounts { open: read(&self.open), sent: read(&self.sent), skipped: read(&self.skipped) }
    }
}

/// Where a tail starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailStart {
    /// With up to this many matching events that are already stored: those that the
    /// list returns first, in the opposite order.
    Last(u32),
    /// After the position of this token.
    After(String),
}

/// A tail in progress.
pub struct RunningTail {
    tail: Box<dyn Tail>,
    backlog: std::iter::Peekable<std::vec::IntoIter<LogEntry>>,
    /// The share of the backlog, until it has been returned.
    share: Option<Arc<ReadShare>>,
    /// Events of the backlog, which the tail may contain too. Sorted.
    returned: Vec<LogId>,
    counters: Arc<TailCounters>,
}

impl std::fmt::Debug for RunningTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningTail").finish_non_exhaustive()
    }
}

/// The next events for a caller.
#[derive(Debug, Default)]
pub struct Sent {
    /// Events of the backlog. No tail can continue behind them.
    pub backlog: Vec<LogEntry>,
    /// Number of events that were missed before the next ones.
    pub skipped: u64,
    /// Events that were stored after the tail started.
    pub events: Vec<Arc<TailedEvent>>,
}

impl Sent {
    /// Returns whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.skipped == 0 && self.backlog.is_empty() && self.events.is_empty()
    }
}

impl Tails {
    /// Creates the use case.
    #[must_use]
    pub fn new(
        store: Arc<dyn LogTail>,
        repository: Arc<dyn LogRepository>,
        budget: ReadBudget,
    ) -> Self {
        Self { store, repository, budget, counters: Arc::default() }
    }

    /// Returns the counters.
    #[must_use]
    pub fn counters(&self) -> &Arc<TailCounters> {
        &self.counters
    }

    /// Starts a tail of the events that match the filters of `filter`.
    ///
    /// # Errors
    /// Returns an error if the token is not valid or too old, or if the store cannot be
    /// read.
    pub async fn start(
        &self,
        filter: LogQuery,
        start: TailStart,
    ) -> Result<RunningTail, TailError> {
        let after = match &start {
            TailStart::Last(_) => None,
            TailStart::After(token) => Some(token.as_str()),
        };
        // The tail starts first, so that nothing is missing between it and the backlog.
        let tail = self.store.follow(&filter, after).await?;
        let (mut backlog, mut share) = (Vec::new(), None);
        if let TailStart::Last(limit @ 1..) = start {
            let memory = self.budget.start()?;
            let query = LogQuery { limit, order: Order::Descending, ..filter };
            backlog = self.backlog(query, &memory).await?;
            backlog.reverse();
            share = Some(memory);
        }
        let mut returned: Vec<_> = backlog.iter().map(|entry| entry.id).collect();
        returned.sort_unstable();
        self.counters.open.fetch_add(1, Ordering::Relaxed);
        let counters = Arc::clone(&self.counters);
        Ok(RunningTail { tail, backlog: backlog.into_iter().peekable(), share, returned, counters })
    }

    /// Returns the first entries of a query, up to its limit and the size of a page. Further
    /// pages are read if one is short because documents were skipped.
    async fn backlog(
        &self,
        mut query: LogQuery,
        memory: &Arc<ReadShare>,
    ) -> Result<Vec<LogEntry>, TailError> {
        let (mut backlog, mut bytes) = (Vec::new(), 0);
        loop {
            let page = self.repository.find(&query, Arc::clone(memory) as Arc<_>).await?;
            for entry in page.entries {
                bytes += entry.json_bytes();
                if !backlog.is_empty() && bytes > MAX_PAGE_BYTES {
                    return Ok(backlog);
                }
                query.limit = query.limit.saturating_sub(1);
                backlog.push(entry);
            }
            match page.next {
                Some(next) if query.limit > 0 => query.start = Start::After(next),
                _ => return Ok(backlog),
            }
        }
    }
}

impl RunningTail {
    /// Waits for the next events. There may be none: then the position has changed.
    ///
    /// # Errors
    /// Returns an error if the tail cannot continue.
    pub async fn next(&mut self) -> Result<Sent, TailError> {
        let sent = if self.backlog.peek().is_some() {
            self.next_of_backlog()
        } else {
            // Releases the memory of the backlog.
            self.share = None;
            let batch = self.tail.next().await?;
            let mut events = batch.events;
            events.retain(|event| match self.returned.binary_search(&event.entry.id) {
                Ok(index) => {
                    // An event that is removed and stored again is a new one.
                    self.returned.remove(index);
                    false
                }
                Err(_) => true,
            });
            Sent { backlog: Vec::new(), skipped: batch.skipped, events }
        };
        let count = sent.backlog.len() + sent.events.len();
        self.counters.sent.fetch_add(count as u64, Ordering::Relaxed);
        self.counters.skipped.fetch_add(sent.skipped, Ordering::Relaxed);
        Ok(sent)
    }

    fn next_of_backlog(&mut self) -> Sent {
        let (mut sent, mut bytes) = (Sent::default(), 0);
        while bytes < MAX_BATCH_BYTES
            && let Some(entry) = self.backlog.next()
        {
            bytes += entry.json_bytes();
            sent.backlog.push(entry);
        }
        sent
    }

    /// Returns the token after which another tail continues, or `None` if a part of the
    /// backlog has not been returned.
    pub fn token(&mut self) -> Option<String> {
        self.backlog.peek().is_none().then(|| self.tail.token())
    }
}

impl Drop for RunningTail {
    fn drop(&mut self) {
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}
