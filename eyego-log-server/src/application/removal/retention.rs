//! When expired events are deleted, and in which part of the store they can be.

use std::time::{Duration, SystemTime};

use eyego_log_core::query::Cursor;
use eyego_log_core::{LogId, Timestamp};
use tokio::time::Instant;

use super::remover::{Remover, Task};
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
/// For each rule, the first pass covers everything older than its duration. Each
/// further one covers only what has become older since, so that the events that are
/// kept longer are not read again and again. The rule of an action reads only its
/// events, if the store can find them.
#[derive(Debug)]
pub(super) struct RetentionPasses {
    rules: Vec<Rule>,
    interval: Duration,
    next: Instant,
}

#[derive(Debug)]
struct Rule {
    action: Option<String>,
    kept: Duration,
    /// Where the previous pass ended.
    done_until: Option<Timestamp>,
}

impl Task for RetentionPasses {
    const DELETES: &'static str = "expired events";

    fn start(retention: &Retention) -> Self {
        let rule = |(action, kept): (Option<&str>, Duration)| Rule {
            action: action.map(str::to_owned),
            kept,
            done_until: None,
        };
        let rules: Vec<_> = retention.rules().map(rule).collect();
        let shortest = rules.iter().map(|rule| rule.kept).min().unwrap_or(MAX_INTERVAL);
        let interval = (shortest / 10).clamp(MIN_INTERVAL, MAX_INTERVAL);
        Self { rules, interval, next: Instant::now() }
    }

    /// Deletes what is expired, if a pass is due.
    async fn step(&mut self, remover: &Remover) -> Result<(), StoreError> {
        let began = Instant::now();
        if began < self.next {
            return Ok(());
        }
        let now = SystemTime::now().into();
        for rule in &mut self.rules {
            let window = rule.window(now);
            let end = window.before;
            remover.delete_expired(window, now).await?;
            if !remover.status.has_lease() {
                return Ok(());
            }
            rule.done_until = Some(end);
        }
        let oldest = remover.removal.oldest().await?;
        remover.status.set_pass(began.elapsed(), oldest);
        self.next = Instant::now() + self.interval;
        Ok(())
    }
}

impl Rule {
    /// Returns the part of the store in which events have expired since the previous
    /// pass.
    fn window(&self, now: Timestamp) -> Window {
        let after = self.done_until.map(|done_until| Cursor {
            timestamp: before(done_until, OVERLAP),
            id: LogId::from_bytes([0; 12]),
        });
        Window { action: self.action.clone(), after, before: before(now, self.kept) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_pass_covers_what_has_become_older_since() {
        const HOUR: Duration = Duration::from_secs(3600);
        let at = |minutes: i64| Timestamp::from_millis(minutes * 60_000).unwrap();
        let mut rule = Rule { action: Some("A".to_owned()), kept: HOUR, done_until: None };
        let first = rule.window(at(1000));
        assert_eq!(first, Window { action: rule.action.clone(), after: None, before: at(940) });
        rule.done_until = Some(first.before);
        let second = rule.window(at(1005));
        assert_eq!(second.before, at(945));
        assert_eq!(second.after.unwrap().timestamp, at(935), "with an overlap");
    }

    #[test]
    fn a_short_retention_is_checked_often() {
        let interval = |seconds| {
            let retention = Retention::new(Some(Duration::from_secs(seconds)), []);
            RetentionPasses::start(&retention).interval.as_secs()
        };
        assert_eq!([1, 30, 600, 1_000_000].map(interval), [1, 3, 60, 300]);
    }
}
