//! Decides when the next request may be sent: pauses after failures, and
//! exceptions from them for callers that wait.
//!
//! While the server accepts nothing, requests are sent one at a time, after
//! pauses that grow. A caller with a deadline gets an attempt at once, further
//! ones each second, and one shortly before its deadline.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::delivery::retry::RetryPolicy;
use crate::pipeline::deadlines::Deadlines;

/// The pause between attempts while a caller with a deadline waits.
pub(super) const WAITING_INTERVAL: Duration = Duration::from_secs(1);

/// At most this many attempts for callers are made in as many seconds, and one more
/// before a deadline.
const MAX_WANTED: usize = 3;

/// The time before a caller's deadline that its last attempt may take.
const LAST_ATTEMPT: Duration = Duration::from_secs(1);

/// The number of responses without an accepted event that cause no pause yet.
/// A single invalid event causes up to two in a row, because its batch is split.
const FREE_REFUSALS: u32 = 2;

/// From this number of responses without an accepted event on, at most one
/// request is sent per second.
const MANY_REFUSALS: u32 = 6;

/// The same two numbers for events of which it is known that they are too large.
const FREE_KNOWN_REFUSALS: u32 = 64;
const MANY_KNOWN_REFUSALS: u32 = 70;

#[derive(Debug)]
pub(crate) struct Pace {
    retry: RetryPolicy,
    rng: fastrand::Rng,
    /// The number of failures since the server last accepted an event.
    failures: u32,
    /// The number of responses that accepted nothing, in a row.
    refusals: u32,
    paused_until: Option<Instant>,
    /// The end of a pause that the server asked for.
    server_pause: Option<Instant>,
    last_attempt: Option<Instant>,
    /// A caller began to wait and no attempt was made since.
    attempt_wanted: bool,
    /// A deadline is near and no attempt was made since.
    last_chance: bool,
    /// When the attempts for callers were made.
    wanted_attempts: VecDeque<Instant>,
    /// The latest deadline of all callers.
    waiting_until: Option<Instant>,
    /// When a last attempt is to be made for a caller.
    planned: Deadlines,
}

impl Pace {
    pub(crate) fn new(retry: RetryPolicy, rng: fastrand::Rng) -> Self {
        Self {
            retry,
            rng,
            failures: 0,
            refusals: 0,
            paused_until: None,
            server_pause: None,
            last_attempt: None,
            attempt_wanted: false,
            last_chance: false,
            wanted_attempts: VecDeque::new(),
            waiting_until: None,
            planned: Deadlines::default(),
        }
    }

    /// Returns whether only one request may be in flight at a time.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Returns the pause before a retry of something that failed this often.
    pub(crate) fn delay(&mut self, failures: u32) -> Duration {
        self.retry.delay(failures, &mut self.rng)
    }

    /// Notes that a caller began to wait.
    pub(crate) fn want_attempt(&mut self) {
        self.attempt_wanted = true;
    }

    /// Notes that a caller waits until `deadline`.
    pub(crate) fn wait_until(&mut self, deadline: Instant, now: Instant) {
        let timeout = deadline.saturating_duration_since(now);
        self.waiting_until = self.waiting_until.max(Some(deadline));
        self.planned.add(deadline - LAST_ATTEMPT.min(timeout / 4));
    }

    /// Notes that a last attempt is to be made, even if the server asked for a
    /// pause.
    pub(crate) fn take_last_chance(&mut self) {
        self.last_chance = true;
    }

    /// Returns whether a caller with a deadline waits.
    pub(crate) fn has_waiting_caller(&self) -> bool {
        self.waiting_until.is_some()
    }

    /// Returns whether an attempt for a caller or an event is due, whether or
    /// not another request is in flight.
    pub(crate) fn is_wanted(&self) -> bool {
        self.attempt_wanted || self.last_chance
    }

    /// Turns planned attempts whose time has come into wanted ones. Returns
    /// whether there was one.
    pub(crate) fn advance(&mut self, now: Instant) -> bool {
        let has_come = self.planned.remove_past(now);
        self.last_chance |= has_come;
        if self.waiting_until.is_some_and(|until| until <= now) {
            self.waiting_until = None;
        }
        has_come
    }

    /// Returns whether a request may be sent now.
    pub(crate) fn may_send(&self, now: Instant) -> bool {
        self.send_at().is_none_or(|at| at <= now)
    }

    /// Returns when a request may be sent, or `None` if that is always allowed.
    pub(crate) fn send_at(&self) -> Option<Instant> {
        let paused_until = self.paused_until?;
        let mut at = paused_until;
        let is_server_pause = self.server_pause.is_some_and(|until| until >= paused_until);
        if self.last_chance || (self.attempt_wanted && !is_server_pause) {
            at = at.min(self.wanted_at(paused_until));
        }
        if let (Some(_), Some(last), false) =
            (self.waiting_until, self.last_attempt, is_server_pause)
        {
            at = at.min(last + WAITING_INTERVAL);
        }
        Some(at)
    }

    /// Returns when the next attempt for a caller may be made.
    fn wanted_at(&self, otherwise: Instant) -> Instant {
        let window = WAITING_INTERVAL * u32::try_from(MAX_WANTED).unwrap_or(1);
        let most = MAX_WANTED + usize::from(self.last_chance);
        // The attempts that are not among the latest `most` do not count.
        match (self.wanted_attempts.iter().nth_back(most - 1), self.last_attempt) {
            (Some(first), _) => *first + window,
            (_, Some(last)) => last,
            (_, None) => otherwise,
        }
    }

    /// Returns when [`advance`](Self::advance) has something to do.
    pub(crate) fn planned_at(&self) -> Option<Instant> {
        self.planned.first()
    }

    /// Records that a request is sent.
    pub(crate) fn begin_attempt(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| now < until) {
            if self.wanted_attempts.len() > MAX_WANTED {
                self.wanted_attempts.pop_front();
            }
            self.wanted_attempts.push_back(now);
        }
        self.last_attempt = Some(now);
        self.attempt_wanted = false;
        self.last_chance = false;
    }

    /// Records that the server accepted an event. Returns whether that ends a
    /// series of failures.
    pub(crate) fn succeed(&mut self) -> bool {
        let was_failing = self.failures > 0;
        self.failures = 0;
        self.refusals = 0;
        self.paused_until = None;
        self.server_pause = None;
        was_failing
    }

    /// Pauses all requests after a failure, at least for as long as the server
    /// asked.
    pub(crate) fn fail(&mut self, retry_after: Option<Duration>, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let delay = self.delay(self.failures);
        if let Some(retry_after) = retry_after {
            self.server_pause = self.server_pause.max(Some(now + retry_after));
        }
        self.pause(delay.max(retry_after.unwrap_or_default()), now);
    }

    /// Records a response that accepted nothing and that no retry can change.
    /// Several in a row cause a pause.
    pub(crate) fn refuse(&mut self, now: Instant) {
        self.count_refusal(FREE_REFUSALS, MANY_REFUSALS, now);
    }

    /// Like [`refuse`](Self::refuse), for an event that the server was expected to
    /// refuse while it accepts others.
    pub(crate) fn refuse_known(&mut self, now: Instant) {
        self.count_refusal(FREE_KNOWN_REFUSALS, MANY_KNOWN_REFUSALS, now);
    }

    fn count_refusal(&mut self, free: u32, many: u32, now: Instant) {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals <= free {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let least = if self.refusals < many { Duration::ZERO } else { WAITING_INTERVAL };
        let delay = self.delay(self.failures).max(least.min(self.retry.max));
        self.pause(delay, now);
    }

    /// Returns whether the server accepted something recently.
    pub(crate) fn has_accepted(&self) -> bool {
        self.refusals <= FREE_REFUSALS
    }

    fn pause(&mut self, delay: Duration, now: Instant) {
        self.paused_until = self.paused_until.max(Some(now + delay));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace() -> Pace {
        let retry =
            RetryPolicy { base: SECOND / 10, max: 30 * SECOND, delivery_timeout: 120 * SECOND };
        Pace::new(retry, fastrand::Rng::with_seed(7))
    }

    /// Lets requests fail until the pause after them is long.
    fn failing(start: Instant) -> (Pace, Instant) {
        let (mut pace, mut now) = (pace(), start);
        while pace.paused_until.is_none_or(|until| until < now + 10 * SECOND) {
            now = pace.send_at().unwrap_or(now).max(now);
            pace.begin_attempt(now);
            pace.fail(None, now);
        }
        (pace, now + SECOND)
    }

    #[test]
    fn a_caller_gets_an_attempt_at_once_and_again_before_its_deadline() {
        let (mut pace, now) = failing(Instant::now());
        assert!(!pace.may_send(now));
        pace.want_attempt();
        let deadline = now + SECOND / 2;
        pace.wait_until(deadline, now);
        assert!(pace.may_send(now));
        pace.begin_attempt(now);
        pace.fail(None, now);
        assert!(!pace.may_send(now));
        let planned = pace.planned_at().unwrap();
        assert!(planned > now && planned < deadline);
        pace.advance(planned);
        assert!(pace.may_send(planned));
        pace.begin_attempt(planned);
        assert!(!pace.may_send(planned));
    }

    #[test]
    fn a_pause_that_the_server_asked_for_ends_only_for_a_last_attempt() {
        let (mut pace, now) = (pace(), Instant::now());
        pace.begin_attempt(now);
        pace.fail(Some(60 * SECOND), now);
        pace.want_attempt();
        pace.wait_until(now + 8 * SECOND, now);
        assert!(!pace.may_send(now + 5 * SECOND));
        let planned = pace.planned_at().unwrap();
        pace.advance(planned);
        assert!(planned < now + 8 * SECOND && pace.may_send(planned));
    }

    #[test]
    fn many_other_callers_take_no_last_attempt_away() {
        let (mut pace, now) = (pace(), Instant::now());
        pace.begin_attempt(now);
        pace.fail(Some(300 * SECOND), now);
        for caller in 0..5000 {
            pace.wait_until(now + 100 * SECOND + SECOND / 1000 * caller, now);
        }
        pace.wait_until(now + 4 * SECOND, now);
        assert_eq!(pace.planned_at(), Some(now + 3 * SECOND));
    }

    proptest! {
        /// Callers that come all the time cause one request per second, after a
        /// few at the beginning.
        #[test]
        fn callers_cannot_cause_a_storm(timeouts in prop::collection::vec(0_u64..5000, 1..300), seed: u64) {
            let start = Instant::now();
            let (mut pace, mut now) = failing(start);
            pace.rng = fastrand::Rng::with_seed(seed);
            let begin = now;
            let mut attempts = 0;
            for millis in timeouts {
                pace.want_attempt();
                pace.wait_until(now + Duration::from_millis(millis), now);
                pace.advance(now);
                if pace.may_send(now) {
                    pace.begin_attempt(now);
                    pace.fail(None, now);
                    attempts += 1;
                }
                now += Duration::from_millis(50);
            }
            prop_assert!(attempts <= 4 + 2 * (now - begin).as_secs(), "{attempts}");
        }

        /// A server that refuses everything receives few requests.
        #[test]
        fn refusals_are_paced(seed: u64) {
            let (mut pace, start) = (pace(), Instant::now());
            pace.rng = fastrand::Rng::with_seed(seed);
            let mut now = start;
            let mut attempts = 0;
            while now < start + 60 * SECOND {
                now = pace.send_at().unwrap_or(now).max(now);
                pace.begin_attempt(now);
                pace.refuse(now);
                attempts += 1;
            }
            prop_assert!(attempts <= 60, "{attempts}");
        }
    }
}
