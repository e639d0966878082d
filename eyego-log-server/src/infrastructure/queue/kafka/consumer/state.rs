//! State of this process's consumer, for readiness.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time after an error until a successful check of the brokers ends it, if there
/// is no record that could be delivered.
const ERROR_LASTS: Duration = Duration::from_secs(10);

/// State of this process's consumer, for readiness.
#[derive(Debug, Default)]
pub(in crate::infrastructure::queue::kafka) struct ConsumerState(Mutex<Problems>);

#[derive(Debug, Default)]
struct Problems {
    /// Why this process is not a member of the group.
    membership: Option<String>,
    /// The last error, until a record is delivered.
    error: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    reason: String,
    at: Instant,
    /// Whether a check of the brokers says nothing about it. librdkafka reports a
    /// denied right once.
    is_lasting: bool,
}

impl ConsumerState {
    /// Returns why nothing can be consumed, if so. `checked_at` is when the last
    /// successful check of the brokers began.
    pub(in crate::infrastructure::queue::kafka) fn problem(
        &self,
        checked_at: Option<Instant>,
    ) -> Option<String> {
        let problems = self.0.lock();
        let is_lasting = problems.error.as_ref().is_some_and(|failure| failure.is_lasting);
        if let Some(membership) = problems.membership.as_ref().filter(|_| !is_lasting) {
            return Some(membership.clone());
        }
        let Failure { reason, at, is_lasting } = problems.error.as_ref()?;
        let is_checked = checked_at.is_some_and(|checked_at| checked_at >= *at + ERROR_LASTS);
        (*is_lasting || !is_checked).then(|| reason.clone())
    }

    /// Notes why this process is not a member of the group.
    pub(super) fn is_outside(&self, reason: &str) {
        self.0.lock().membership = Some(reason.to_owned());
    }

    /// Notes an error of the group or of a fetch. A lasting one ends only with a record
    /// or an assignment.
    pub(super) fn fail(&self, reason: String, is_lasting: bool, now: Instant) {
        self.0.lock().error = Some(Failure { reason, at: now, is_lasting });
    }

    /// Notes that partitions were assigned or records were delivered.
    pub(super) fn succeed(&self) {
        *self.0.lock() = Problems::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_lasts_until_a_record_or_a_later_check() {
        let (state, start) = (ConsumerState::default(), Instant::now());
        state.fail("broken".to_owned(), false, start);
        assert_eq!(state.problem(None).as_deref(), Some("broken"));
        assert_eq!(state.problem(Some(start)).as_deref(), Some("broken"));
        assert_eq!(state.problem(Some(start + ERROR_LASTS)), None);
        state.fail("denied".to_owned(), true, start);
        assert_eq!(state.problem(Some(start + ERROR_LASTS * 9)).as_deref(), Some("denied"));
        state.succeed();
        assert_eq!(state.problem(None), None);
    }

    #[test]
    fn member_outside_the_group_stays_reported_until_it_is_assigned_partitions() {
        let (state, start) = (ConsumerState::default(), Instant::now());
        state.is_outside("joining");
        assert_eq!(state.problem(Some(start + ERROR_LASTS * 9)).as_deref(), Some("joining"));
        state.fail("denied".to_owned(), true, start);
        assert_eq!(state.problem(None).as_deref(), Some("denied"), "the reason is more specific");
        state.succeed();
        assert_eq!(state.problem(None), None);
    }
}
