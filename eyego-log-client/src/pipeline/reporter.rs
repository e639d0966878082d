//! Reports losses and problems to the program through its hooks.
//!
//! Every loss reaches the loss hook. A problem is reported once and not again
//! until it is resolved.

use std::cell::Cell;
use std::fmt;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::loss::Loss;
use crate::model::loss_reason::LossReason;

/// Called for each loss; see [`ClientBuilder::on_loss`](crate::ClientBuilder::on_loss).
pub(crate) type LossHook = Arc<dyn Fn(&Loss<'_>) + Send + Sync>;

/// Called for each problem; see
/// [`ClientBuilder::on_problem`](crate::ClientBuilder::on_problem).
pub(crate) type ProblemHook = Arc<dyn Fn(&str) + Send + Sync>;

thread_local! {
    static IN_HOOK: Cell<bool> = const { Cell::new(false) };
}

/// The bits of problems other than losses. A loss has the bit `1 << reason`.
const DELIVERY_FAILS: u32 = 1 << 30;
const SPOOL_FAILS: u32 = 1 << 29;

/// Collects problems from any thread. The worker passes them to the hook, so
/// that callers never wait for it.
#[derive(Default)]
pub(crate) struct Reporter {
    on_loss: Option<LossHook>,
    on_problem: Option<ProblemHook>,
    /// The problems that were reported and are not resolved.
    active: AtomicU32,
    /// Messages for the problem hook.
    unreported: Mutex<Vec<String>>,
}

impl Reporter {
    pub(crate) fn new(on_loss: Option<LossHook>, on_problem: Option<ProblemHook>) -> Self {
        Self { on_loss, on_problem, ..Self::default() }
    }

    /// Passes a loss to the loss hook. Panics in the hook are caught.
    pub(crate) fn report_loss(&self, loss: &Loss<'_>) {
        let Some(hook) = &self.on_loss else { return };
        outside_hooks(|| drop(catch_unwind(AssertUnwindSafe(|| hook(loss)))));
    }

    /// Notes that events are lost. Returns whether this is a new problem.
    pub(crate) fn note_loss(&self, reason: LossReason, message: &str) -> bool {
        let is_new = self.activate(1 << (reason as u32));
        if is_new {
            self.note(format!("events are lost ({reason}): {message}"));
        }
        is_new
    }

    /// Notes that a request failed and will be retried.
    pub(crate) fn note_delivery_failure(&self, message: &str) {
        if self.activate(DELIVERY_FAILS) {
            self.note(format!("delivery is failing and will be retried: {message}"));
        }
    }

    /// Notes that a request succeeded, which resolves every problem with the
    /// server.
    pub(crate) fn note_delivery(&self) {
        let server_problems =
            [LossReason::Unauthorized, LossReason::Expired, LossReason::UnexpectedResponse];
        let bits = server_problems
            .into_iter()
            .fold(DELIVERY_FAILS, |bits, reason| bits | 1 << (reason as u32));
        self.active.fetch_and(!bits, Ordering::Relaxed);
    }

    /// Notes that the spool accepts no events.
    pub(crate) fn note_spool_failure(&self, message: &str) {
        if self.activate(SPOOL_FAILS) {
            self.note(format!("the spool accepts no events: {message}"));
        }
    }

    /// Notes that the spool accepts events.
    pub(crate) fn note_spool_works(&self) {
        self.active.fetch_and(!SPOOL_FAILS, Ordering::Relaxed);
    }

    /// Notes a problem that is reported each time it occurs.
    pub(crate) fn note(&self, message: String) {
        self.lock_unreported().push(message);
    }

    /// Passes all noted problems to the problem hook, or to standard error.
    pub(crate) fn report_problems(&self) {
        let messages = std::mem::take(&mut *self.lock_unreported());
        for message in messages {
            outside_hooks(|| match &self.on_problem {
                Some(hook) => drop(catch_unwind(AssertUnwindSafe(|| hook(&message)))),
                None => drop(writeln!(std::io::stderr(), "eyego-log: {message}")),
            });
        }
    }

    fn activate(&self, bit: u32) -> bool {
        self.active.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    fn lock_unreported(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.unreported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").field("active", &self.active).finish_non_exhaustive()
    }
}

/// Runs `call` unless this thread is already inside a hook. Otherwise a hook
/// that logs could be called for its own losses without end.
fn outside_hooks(call: impl FnOnce()) {
    let is_inside = IN_HOOK.try_with(|inside| inside.replace(true)).unwrap_or(true);
    if !is_inside {
        call();
        let _ = IN_HOOK.try_with(|inside| inside.set(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_reported_once_until_it_is_resolved() {
        let reported = Arc::new(Mutex::new(Vec::new()));
        let messages = Arc::clone(&reported);
        let hook = move |message: &str| messages.lock().unwrap().push(message.to_owned());
        let reporter = Reporter::new(None, Some(Arc::new(hook)));
        let report = || {
            reporter.report_problems();
            std::mem::take(&mut *reported.lock().unwrap()).len()
        };
        reporter.note_delivery_failure("connection refused");
        reporter.note_delivery_failure("connection refused");
        assert!(reporter.note_loss(LossReason::Unauthorized, "401"));
        assert_eq!(report(), 2);
        assert!(!reporter.note_loss(LossReason::Unauthorized, "401"));
        assert_eq!(report(), 0);
        reporter.note_delivery();
        reporter.note_delivery_failure("connection refused");
        assert_eq!(report(), 1);
    }
}
