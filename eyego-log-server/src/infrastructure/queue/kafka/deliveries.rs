//! The observed outcomes of deliveries: the latest decides whether Kafka accepts
//! events. The time is an argument.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::domain::health::PartState;
use crate::domain::repeated::Repeated;

/// Time after a failure until a check of the brokers can end it. It doubles
/// with each time that the next delivery fails nevertheless.
const FIRST_DOUBT: Duration = Duration::from_secs(10);
const LONGEST_DOUBT: Duration = Duration::from_secs(160);

/// Outcomes of the deliveries of this process.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    /// Whether `state` contains a failure, so that a success rarely locks it.
    is_failing: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failure: Option<Failure>,
    /// The cause that the topic's monitor sees, if any.
    cause: Option<String>,
    logged: Repeated,
}

#[derive(Debug)]
struct Failure {
    at: Instant,
    reason: String,
    doubt: Duration,
}

impl Deliveries {
    /// Notes that Kafka acknowledged records. Returns `true` if the delivery before
    /// failed.
    pub(super) fn succeed(&self) -> bool {
        if !self.is_failing.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.state.lock();
        self.is_failing.store(false, Ordering::Release);
        let was_failing = state.failure.take().is_some();
        drop(state);
        if was_failing {
            tracing::info!("Kafka accepts events again");
        }
        was_failing
    }

    /// Notes that Kafka did not acknowledge this many records.
    pub(super) fn fail(&self, records: u64, reason: &str, now: Instant) {
        let mut state = self.state.lock();
        let reason = match &state.cause {
            Some(cause) => format!("{reason}: {cause}"),
            None => reason.to_owned(),
        };
        let doubt = match &state.failure {
            None => FIRST_DOUBT,
            Some(last) if now.saturating_duration_since(last.at) < last.doubt => last.doubt,
            Some(last) => (last.doubt * 2).min(LONGEST_DOUBT),
        };
        state.failure = Some(Failure { at: now, reason: reason.clone(), doubt });
        self.is_failing.store(true, Ordering::Release);
        let count = state.logged.note(&reason, records, now);
        drop(state);
        warn(count, &reason);
    }

    /// Logs that this many records were refused without an attempt.
    pub(super) fn refuse(&self, records: u64, reason: &str, now: Instant) {
        let count = self.state.lock().logged.note(reason, records, now);
        warn(count, reason);
    }

    /// Sets the cause that the topic's monitor sees, as part of later reasons.
    pub(super) fn set_cause(&self, cause: Option<String>) {
        self.state.lock().cause = cause;
    }

    /// Returns whether Kafka accepts events: the latest delivery decides.
    ///
    /// `checked_at` is when the last successful check of the brokers began. A
    /// process without traffic would stay down for ever without it, because a
    /// load balancer sends it no event that could succeed.
    pub(super) fn health(&self, checked_at: Option<Instant>) -> PartState {
        let state = self.state.lock();
        let Some(Failure { at, reason, doubt }) = &state.failure else { return PartState::Up };
        if checked_at.is_some_and(|checked_at| checked_at >= *at + *doubt) {
            return PartState::Warning(format!(
                "the last delivery failed ({reason}); all brokers can be reached again, and the \
                 next delivery decides"
            ));
        }
        PartState::Down(format!("the last delivery failed: {reason}"))
    }
}

fn warn(count: Option<u64>, reason: &str) {
    if let Some(count) = count {
        tracing::warn!(count, reason, "Kafka did not acknowledge events");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn latest_outcome_decides() {
        let (deliveries, start) = (Deliveries::default(), Instant::now());
        assert_eq!(deliveries.health(None), PartState::Up);
        deliveries.fail(1, "timed out", start);
        assert!(matches!(deliveries.health(None), PartState::Down(_)));
        // A check that began before the failure, or shortly after it, proves nothing.
        assert!(!deliveries.health(Some(start)).is_up());
        assert!(!deliveries.health(Some(start + seconds(9))).is_up());
        let PartState::Warning(reason) = deliveries.health(Some(start + seconds(10))) else {
            panic!("a check well after the failure allows another attempt")
        };
        assert!(reason.contains("timed out"), "{reason}");
        deliveries.succeed();
        assert_eq!(deliveries.health(None), PartState::Up);
    }

    #[test]
    fn check_that_was_wrong_must_wait_longer_the_next_time() {
        let (deliveries, start) = (Deliveries::default(), Instant::now());
        deliveries.fail(1, "denied", start);
        deliveries.fail(1, "denied", start + seconds(15));
        assert!(!deliveries.health(Some(start + seconds(30))).is_up());
        assert!(deliveries.health(Some(start + seconds(35))).is_up());
    }

    #[test]
    fn cause_is_part_of_the_reason() {
        let deliveries = Deliveries::default();
        deliveries.set_cause(Some("2 of 3 replicas".to_owned()));
        deliveries.fail(1, "timed out", Instant::now());
        let expected = "the last delivery failed: timed out: 2 of 3 replicas".to_owned();
        assert_eq!(deliveries.health(None), PartState::Down(expected));
    }
}
