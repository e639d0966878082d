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
    error: Option<(Instant, String)>,
}

impl ConsumerState {
    /// Returns why nothing can be consumed, if so. `checked_at` is when the last
    /// successful check of the brokers began.
    pub(in crate::infrastructure::queue::kafka) fn problem(
        &self,
        checked_at: Option<Instant>,
    ) -> Option<String> {
        let problems = self.0.lock();
        if let Some(membership) = &problems.membership {
            return Some(membership.clone());
        }
        let (at, error) = problems.error.as_ref()?;
        let is_over = checked_at.is_some_and(|checked_at| checked_at >= *at + ERROR_LASTS);
        (!is_over).then(|| error.clone())
    }

    /// Notes why this process is not a member of the group.
    pub(super) fn is_outside(&self, reason: &str) {
        self.0.lock().membership = Some(reason.to_owned());
    }

    /// Notes an error of the group or of a fetch.
    pub(super) fn fail(&self, error: String, now: Instant) {
        self.0.lock().error = Some((now, error));
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
        state.fail("broken".to_owned(), start);
        assert_eq!(state.problem(None).as_deref(), Some("broken"));
        assert_eq!(state.problem(Some(start)).as_deref(), Some("broken"));
        assert_eq!(state.problem(Some(start + ERROR_LASTS)), None);
        state.succeed();
        assert_eq!(state.problem(None), None);
    }

    #[test]
    fn member_outside_the_group_stays_reported_until_it_is_assigned_partitions() {
        let (state, start) = (ConsumerState::default(), Instant::now());
        state.is_outside("joining");
        assert_eq!(state.problem(Some(start + ERROR_LASTS * 9)).as_deref(), Some("joining"));
        state.succeed();
        assert_eq!(state.problem(None), None);
    }
}
