//! Decides which problems are reported and when. The state is pure and receives
//! the time as an argument.
//!
//! A problem begins an episode, which lasts until it is resolved. Each episode
//! is reported once, and no more than one report is made in a second, so a server
//! that alternates between failure and success causes few reports.

use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::model::loss_reason::LossReason;

/// The minimum time between two reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// An episode that nothing resolves ends after this time without the problem.
const QUIET: Duration = Duration::from_secs(10);

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    /// Requests fail or are refused.
    Delivery,
    /// The server accepts some events of a batch and refuses others for now.
    Refusal,
    /// The server refuses a batch because of its size or of one of its events.
    Split,
    /// The spool accepts no events.
    Spool,
    /// An event that a layer logs is invalid.
    Invalid,
    /// The worker panicked.
    Worker,
    /// The file with the API key has no valid key.
    ApiKey,
    /// Events are lost.
    Loss(LossReason),
}

/// Introduces problems of [`ProblemKind::Delivery`].
pub(crate) const DELIVERY_FAILS: &str = "delivery is failing and will be retried: ";

/// The number of kinds other than losses.
const OTHER_KINDS: usize = 7;

const KINDS: usize = OTHER_KINDS + LossReason::ALL.len();

impl ProblemKind {
    /// The problems that end when the server accepts a batch.
    pub(crate) const OF_SERVER: [Self; 5] = [
        Self::Delivery,
        Self::Loss(LossReason::Unauthorized),
        Self::Loss(LossReason::Refused),
        Self::Loss(LossReason::Expired),
        Self::Loss(LossReason::UnexpectedResponse),
    ];

    fn index(self) -> usize {
        match self {
            Self::Delivery => 0,
            Self::Refusal => 1,
            Self::Split => 2,
            Self::Spool => 3,
            Self::Invalid => 4,
            Self::Worker => 5,
            Self::ApiKey => 6,
            Self::Loss(reason) => OTHER_KINDS + reason as usize,
        }
    }

    /// Returns whether an episode ends without being resolved explicitly.
    fn ends_by_itself(self) -> bool {
        match self {
            Self::Refusal | Self::Spool | Self::ApiKey => false,
            Self::Split | Self::Invalid | Self::Worker => true,
            kind => !Self::OF_SERVER.contains(&kind),
        }
    }
}

#[derive(Debug)]
struct Episode {
    message: String,
    last_seen: Instant,
    ends_by_itself: bool,
}

impl Episode {
    fn is_over(&self, now: Instant) -> bool {
        self.ends_by_itself && now.saturating_duration_since(self.last_seen) >= QUIET
    }
}

#[derive(Debug)]
pub(crate) struct Problems {
    episodes: [Option<Episode>; KINDS],
    /// Messages that are not reported yet, in order, at most one of each kind.
    unreported: Vec<(usize, String)>,
    reported_at: Option<Instant>,
}

impl Problems {
    pub(crate) fn new() -> Self {
        Self { episodes: std::array::from_fn(|_| None), unreported: Vec::new(), reported_at: None }
    }

    /// Notes that a problem occurred. `introduction` precedes the message in the
    /// report. Returns whether there is something new to report. This does not
    /// allocate if the same problem occurs again.
    pub(crate) fn note(
        &mut self,
        kind: ProblemKind,
        introduction: impl Display,
        message: &str,
        now: Instant,
    ) -> bool {
        let index = kind.index();
        match &mut self.episodes[index] {
            Some(episode) if !episode.is_over(now) => {
                episode.last_seen = now;
                if episode.message != message {
                    message.clone_into(&mut episode.message);
                }
                return false;
            }
            slot => {
                let ends_by_itself = kind.ends_by_itself();
                *slot =
                    Some(Episode { message: message.to_owned(), last_seen: now, ends_by_itself });
            }
        }
        if self.unreported.iter().any(|(known, _)| *known == index) {
            return false;
        }
        self.unreported.push((index, format!("{introduction}{message}")));
        true
    }

    /// Ends the episodes of these kinds. What is not reported yet will be.
    pub(crate) fn resolve(&mut self, kinds: &[ProblemKind]) {
        for kind in kinds {
            self.episodes[kind.index()] = None;
        }
    }

    pub(crate) fn has_unreported(&self) -> bool {
        !self.unreported.is_empty()
    }

    /// Returns the next report that is due.
    pub(crate) fn next_report(&mut self, now: Instant) -> Option<String> {
        if self.report_at().is_none_or(|at| now < at) && self.reported_at.is_some() {
            return None;
        }
        let report = self.next_report_at_end()?;
        self.reported_at = Some(now);
        Some(report)
    }

    /// Returns the next report, whether or not it is due.
    pub(crate) fn next_report_at_end(&mut self) -> Option<String> {
        if self.unreported.is_empty() {
            return None;
        }
        let (_, report) = self.unreported.remove(0);
        Some(report)
    }

    /// Returns when a report is due, or `None` if there is none or if the first
    /// one is due immediately.
    pub(crate) fn report_at(&self) -> Option<Instant> {
        if self.unreported.is_empty() {
            return None;
        }
        self.reported_at.map(|at| at + REPORT_INTERVAL)
    }

    /// Returns the most recent problem that is not resolved, and when it last
    /// occurred.
    pub(crate) fn latest(&self, now: Instant) -> Option<(&str, Instant)> {
        let open = self.episodes.iter().flatten().filter(|episode| !episode.is_over(now));
        open.max_by_key(|episode| episode.last_seen).map(|e| (&*e.message, e.last_seen))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn note(problems: &mut Problems, now: Instant) -> bool {
        problems.note(ProblemKind::Delivery, "delivery is failing: ", "503", now)
    }

    #[test]
    fn each_episode_is_reported_once() {
        let mut problems = Problems::new();
        let mut now = Instant::now();
        for _ in 0..3 {
            assert!(note(&mut problems, now));
            assert!(!note(&mut problems, now), "the same episode");
            assert_eq!(problems.next_report(now).as_deref(), Some("delivery is failing: 503"));
            assert_eq!(problems.latest(now), Some(("503", now)));
            problems.resolve(&ProblemKind::OF_SERVER);
            assert_eq!(problems.latest(now), None);
            now += REPORT_INTERVAL;
        }
    }

    #[test]
    fn a_short_episode_is_reported_after_the_interval() {
        let mut problems = Problems::new();
        let now = Instant::now();
        note(&mut problems, now);
        assert!(problems.next_report(now).is_some());
        problems.resolve(&ProblemKind::OF_SERVER);
        note(&mut problems, now);
        problems.resolve(&ProblemKind::OF_SERVER);
        assert_eq!(problems.next_report(now), None);
        assert_eq!(problems.report_at(), Some(now + REPORT_INTERVAL));
        assert!(problems.next_report(now + REPORT_INTERVAL).is_some());
    }

    #[test]
    fn problems_of_single_events_end_after_a_while() {
        let mut problems = Problems::new();
        let now = Instant::now();
        let kind = ProblemKind::Loss(LossReason::Overflow);
        assert!(problems.note(kind, "", "full", now));
        let later = now + QUIET / 2;
        assert!(!problems.note(kind, "", "full", later));
        assert!(problems.latest(later + QUIET / 2).is_some());
        assert!(problems.latest(later + QUIET).is_none());
        assert!(problems.next_report(later).is_some());
        assert!(problems.note(kind, "", "full", later + QUIET));
    }

    proptest! {
        /// However often problems come and go, at most one is reported in a
        /// second.
        #[test]
        fn at_most_one_report_a_second(steps in prop::collection::vec((0_u64..400, any::<bool>(), 0..3_usize), 1..200)) {
            let kinds = [ProblemKind::Delivery, ProblemKind::Refusal, ProblemKind::Loss(LossReason::Expired)];
            let mut problems = Problems::new();
            let start = Instant::now();
            let mut now = start;
            let mut reports = 0;
            for (millis, fails, kind) in steps {
                now += Duration::from_millis(millis);
                if fails {
                    problems.note(kinds[kind], "", "x", now);
                } else {
                    problems.resolve(&kinds);
                }
                reports += u64::from(problems.next_report(now).is_some());
            }
            prop_assert!(reports <= (now - start).as_secs() + 1);
        }
    }
}
