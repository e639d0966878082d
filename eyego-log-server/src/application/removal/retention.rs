//! When expired events are deleted, and in which part of the store they can be.

use std::time::Duration;

use eyego_log_core::query::Cursor;
use eyego_log_core::{LogId, Timestamp};
use tokio::time::Instant;

use super::remover::Remover;
use crate::domain::removal::Window;
use crate::domain::repository::StoreError;
use crate::domain::retention::{Retention, before};

/// Longest and shortest interval between two passes.
const MAX_INTERVAL: Duration = Duration::from_secs(300);
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// How far a pass goes back before the end of the previous one: an event that a
/// worker accepted just before it expired may be stored after that.
const OVERLAP: Duration = Duration::from_secs(300);

/// The passes over the store that delete expired events.
///
/// For each distinct duration, the first pass covers everything older than it. Each
/// further one covers only what has become older since, so that the events that are
/// kept longer are not read again and again.
#[derive(Debug)]
pub(super) struct RetentionPasses {
    durations: Vec<(Duration, Option<Timestamp>)>,
    interval: Duration,
    next: Instant,
}

impl RetentionPasses {
    pub(super) fn new(retention: &Retention) -> Self {
        let durations = retention.durations();
        let shortest = durations.last().copied().unwrap_or(MAX_INTERVAL);
        Self {
            durations: durations.into_iter().map(|duration| (duration, None)).collect(),
            interval: (shortest / 10).clamp(MIN_INTERVAL, MAX_INTERVAL),
            next: Instant::now(),
        }
    }

    /// Deletes what is expired, if a pass is due.
    pub(super) async fn step(
        &mut self,
        remover: &Remover,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let began = Instant::now();
        if began < self.next {
            return Ok(());
        }
        for (duration, done_until) in &mut self.durations {
            let window = window(*duration, *done_until, now);
            remover.delete_expired(window, now).await?;
            if !remover.status.has_lease() {
                return Ok(());
            }
            *done_until = Some(window.before);
        }
        let oldest = remover.removal.oldest().await?;
        remover.status.set_pass(began.elapsed(), oldest);
        self.next = Instant::now() + self.interval;
        Ok(())
    }
}

/// Returns the part of the store in which events have become older than `duration`
/// since the pass that ended at `done_until`.
fn window(duration: Duration, done_until: Option<Timestamp>, now: Timestamp) -> Window {
    let after = done_until.map(|done_until| Cursor {
        timestamp: before(done_until, OVERLAP),
        id: LogId::from_bytes([0; 12]),
    });
    Window { after, before: before(now, duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_pass_covers_what_has_become_older_since() {
        const HOUR: Duration = Duration::from_secs(3600);
        let at = |minutes: i64| Timestamp::from_millis(minutes * 60_000).unwrap();
        let first = window(HOUR, None, at(1000));
        assert_eq!(first, Window { after: None, before: at(940) });
        let second = window(HOUR, Some(first.before), at(1005));
        assert_eq!(second.before, at(945));
        assert_eq!(second.after.unwrap().timestamp, at(935), "with an overlap");
    }

    #[test]
    fn a_short_retention_is_checked_often() {
        let interval = |seconds| {
            let retention = Retention::new(Some(Duration::from_secs(seconds)), []);
            RetentionPasses::new(&retention).interval.as_secs()
        };
        assert_eq!([1, 30, 600, 1_000_000].map(interval), [1, 3, 60, 300]);
    }
}
