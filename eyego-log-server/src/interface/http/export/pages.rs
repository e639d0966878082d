//! Reads an export page by page.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eyego_log_core::query::Start;
use eyego_log_core::{LogEntry, LogQuery};
use tokio::sync::mpsc::Sender;

use crate::application::read_budget::ReadShare;
use crate::domain::read::ReadError;
use crate::interface::http::api::Api;

/// How long a running export waits for room among the other reads.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Pause before the next attempt.
const PAUSE: Duration = Duration::from_millis(200);

/// Entries, and their share of the read budget.
pub(super) struct FetchedPage {
    pub(super) entries: Vec<LogEntry>,
    pub(super) share: Arc<ReadShare>,
    pub(super) is_last: bool,
}

/// The pages that are not read yet.
pub(super) struct Pages {
    api: Arc<Api>,
    query: LogQuery,
}

impl Pages {
    pub(super) fn new(api: Arc<Api>, query: LogQuery) -> Self {
        Self { api, query }
    }

    /// Reads the next page.
    ///
    /// If matches are so rare that a page exceeds the time limit of a query, smaller
    /// pages are read from then on.
    pub(super) async fn next(&mut self) -> Result<FetchedPage, ReadError> {
        loop {
            let share = self.api.read_budget.start()?;
            match self.api.repository.find(&self.query, Arc::clone(&share) as Arc<_>).await {
                Ok(page) => {
                    if let Some(next) = page.next {
                        self.query.start = Start::After(next);
                    }
                    let is_last = page.next.is_none();
                    return Ok(FetchedPage { entries: page.entries, share, is_last });
                }
                Err(ReadError::TimedOut(_)) if self.query.limit > 1 => {
                    self.query.limit = (self.query.limit / 20).max(1);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the pages that follow, one ahead of the receiver. Ends when the
    /// receiver is dropped.
    pub(super) async fn send_to(mut self, sender: Sender<Result<FetchedPage, ReadError>>) {
        // A page is read only when there is room for it.
        while let Ok(room) = sender.reserve().await {
            let page = tokio::select! {
                biased;
                () = sender.closed() => return,
                page = self.next_patiently() => page,
            };
            let is_end = page.as_ref().map_or(true, |page| page.is_last);
            room.send(page);
            if is_end {
                return;
            }
        }
    }

    /// Reads the next page. Waits for a while if too many reads are running.
    async fn next_patiently(&mut self) -> Result<FetchedPage, ReadError> {
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            match self.next().await {
                Err(ReadError::Overloaded(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                page => return page,
            }
        }
    }
}
