//! What the tasks of removal share: the ports, the options, and how the store is
//! spared.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eyego_log_core::{LogId, LogIdGenerator, Timestamp};
use tokio::time::{Instant, sleep};

use super::status::RemovalStatus;
use crate::domain::dead_letter::DeadLetters;
use crate::domain::erasure::Erasures;
use crate::domain::removal::{LogRemoval, Window};
use crate::domain::repository::StoreError;
use crate::domain::retention::Retention;

/// Entries that one call examines or deletes.
pub(super) const CHUNK: u32 = 1000;

/// Shortest pause between two calls. A longer call is followed by a pause of the
/// same length, so that each task takes at most half of the store's time.
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// Options of the remover.
#[derive(Debug, Clone)]
pub struct RemoverOptions {
    /// How long events are kept.
    pub retention: Arc<Retention>,
    /// Time from the first pass of an erasure to its second one:
    /// [`SETTLED_AFTER`](super::SETTLED_AFTER).
    pub settled_after: Duration,
}

/// Deletes expired events and those of erased users.
pub struct Remover {
    pub(super) removal: Arc<dyn LogRemoval>,
    pub(super) dead_letters: Arc<dyn DeadLetters>,
    pub(super) erasures: Arc<dyn Erasures>,
    pub(super) status: Arc<RemovalStatus>,
    pub(super) options: RemoverOptions,
    pub(super) id: LogId,
}

/// A task of the remover. Each has a loop of its own: an erasure can take or fail for
/// hours, and expired events must go meanwhile.
pub(super) trait Task: Send {
    /// What the task deletes, for messages.
    const DELETES: &'static str;

    /// Starts from the beginning.
    fn start(retention: &Retention) -> Self;

    /// Does what is due.
    fn step(&mut self, remover: &Remover) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl fmt::Debug for Remover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remover").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Remover {
    /// Creates a remover.
    #[must_use]
    pub fn new(
        removal: Arc<dyn LogRemoval>,
        dead_letters: Arc<dyn DeadLetters>,
        erasures: Arc<dyn Erasures>,
        status: Arc<RemovalStatus>,
        options: RemoverOptions,
    ) -> Self {
        let id = LogIdGenerator::new().generate(SystemTime::now().into());
        Self { removal, dead_letters, erasures, status, options, id }
    }

    /// Deletes everything of `window` that is expired at `now`.
    pub(super) async fn delete_expired(
        &self,
        mut window: Window,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        loop {
            let began = Instant::now();
            let Self { removal, options, .. } = self;
            let examined = removal.delete_expired(&options.retention, now, &window, CHUNK).await?;
            self.status.count_expired(examined.deleted);
            window.after = match examined.next {
                Some(next) if self.status.has_lease() => Some(next),
                _ => return Ok(()),
            };
            pause(began).await;
        }
    }
}

/// Pauses for as long as the call that began at `began` took, so that others can
/// use the store.
pub(super) async fn pause(began: Instant) {
    sleep(began.elapsed().max(MIN_PAUSE)).await;
}
