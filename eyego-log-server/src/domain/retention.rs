//! Retention: how long events are kept.

use std::collections::HashMap;
use std::time::Duration;

use eyego_log_core::Timestamp;

/// How long events are kept, for all actions and for single ones.
///
/// The age of an event is counted from its timestamp. An event that is older than
/// its retention is *expired*: it is not stored, and deleted if it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    default: Option<Duration>,
    by_action: HashMap<String, Duration>,
}

impl Retention {
    /// Creates a retention of `default` for all actions except those in
    /// `by_action`. `None` keeps events for ever.
    pub fn new(
        default: Option<Duration>,
        by_action: impl IntoIterator<Item = (String, Duration)>,
    ) -> Self {
        Self { default, by_action: by_action.into_iter().collect() }
    }

    /// Returns how long events of this action are kept, or `None` for ever.
    #[must_use]
    pub fn of(&self, action: &str) -> Option<Duration> {
        self.by_action.get(action).copied().or(self.default)
    }

    /// Returns `true` if all events are kept for ever.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.default.is_none() && self.by_action.is_empty()
    }

    /// Returns `true` if an event of this action and time is older than its
    /// retention.
    #[must_use]
    pub fn is_expired(&self, action: &str, timestamp: Timestamp, now: Timestamp) -> bool {
        self.of(action).is_some_and(|kept| timestamp < before(now, kept))
    }

    /// Returns the durations, with the action of each. The default, if there is one,
    /// comes first and has none.
    pub fn rules(&self) -> impl Iterator<Item = (Option<&str>, Duration)> {
        let by_action = self.by_action.iter().map(|(action, kept)| (Some(&**action), *kept));
        self.default.map(|kept| (None, kept)).into_iter().chain(by_action)
    }
}

/// Returns the time this long before `now`, or the earliest one.
#[must_use]
pub fn before(now: Timestamp, age: Duration) -> Timestamp {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis_clamped(now.as_millis().saturating_sub(age))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn at(days: i64) -> Timestamp {
        Timestamp::from_millis(days * 24 * 60 * 60 * 1000).unwrap()
    }

    #[test]
    fn an_action_of_its_own_overrides_the_default() {
        let retention =
            Retention::new(Some(30 * DAY), [("A".to_owned(), DAY), ("B".to_owned(), 90 * DAY)]);
        let now = at(1000);
        for (action, days, is_expired) in [
            ("A", 999, false),
            ("A", 998, true),
            ("B", 910, false),
            ("B", 909, true),
            ("other", 970, false),
            ("other", 969, true),
        ] {
            assert_eq!(retention.is_expired(action, at(days), now), is_expired, "{action} {days}");
        }
        let mut rules: Vec<_> = retention.rules().collect();
        rules.sort_unstable();
        assert_eq!(rules, [(None, 30 * DAY), (Some("A"), DAY), (Some("B"), 90 * DAY)]);
    }

    #[test]
    fn without_a_rule_events_are_kept_for_ever() {
        let only_one = Retention::new(None, [("A".to_owned(), DAY)]);
        assert!(only_one.is_expired("A", at(1), at(1000)));
        assert!(!only_one.is_expired("B", Timestamp::MIN, at(1000)));
        assert!(!only_one.is_unlimited());
        assert!(Retention::default().is_unlimited());
        let eternal = Retention::new(Some(Duration::MAX), []);
        assert!(!eternal.is_expired("A", Timestamp::MIN, at(1000)));
    }
}
