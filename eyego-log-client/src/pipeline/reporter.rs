//! What is said aloud: each kind of problem once, until it is over.

use std::cell::Cell;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::loss::{LossReason, ProblemHook};

thread_local! {
    static IN_HOOK: Cell<bool> = const { Cell::new(false) };
}

/// Problems that are not losses.
const FAILING: u32 = 1 << 30;
const SPOOL: u32 = 1 << 29;

/// What is wrong now, and what of it was not said yet.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    active: u32,
    unsaid: Vec<String>,
}

impl Problems {
    /// Events are lost; answers whether that is news.
    pub(crate) fn lost(&mut self, reason: LossReason, message: &str) -> bool {
        let is_new = self.activate(1 << (reason as u32));
        if is_new {
            self.unsaid.push(format!("events are lost ({reason}): {message}"));
        }
        is_new
    }

    /// A request failed and will be repeated.
    pub(crate) fn failing(&mut self, message: &str) {
        if self.activate(FAILING) {
            self.unsaid.push(format!("events cannot be delivered for now: {message}"));
        }
    }

    /// The spool takes nothing for now.
    pub(crate) fn spool(&mut self, message: &str) {
        if self.activate(SPOOL) {
            self.unsaid.push(format!("the spool takes nothing for now: {message}"));
        }
    }

    /// The spool takes events.
    pub(crate) fn resolve_spool(&mut self) {
        self.active &= !SPOOL;
    }

    /// Something that is always worth saying.
    pub(crate) fn say(&mut self, message: String) {
        self.unsaid.push(message);
    }

    /// A request succeeded: what concerns the server is over.
    pub(crate) fn resolve(&mut self) {
        let of_the_server = [LossReason::Unauthorized, LossReason::Expired, LossReason::Nonsense];
        let bits =
            of_the_server.into_iter().fold(FAILING, |bits, reason| bits | 1 << (reason as u32));
        self.active &= !bits;
    }

    fn activate(&mut self, bit: u32) -> bool {
        let is_new = self.active & bit == 0;
        self.active |= bit;
        is_new
    }

    /// What is to be said now.
    pub(crate) fn take_unsaid(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unsaid)
    }

    /// Tells the hook, or the standard error stream.
    pub(crate) fn tell(hook: Option<&ProblemHook>, message: &str) {
        Self::outside_of_hooks(|| {
            match hook {
                // What the hook broke is the hook's own.
                Some(hook) => drop(catch_unwind(AssertUnwindSafe(|| hook(message)))),
                // Nobody is left to be told that this failed.
                None => drop(writeln!(std::io::stderr(), "eyego-log: {message}")),
            }
        });
    }

    /// Runs `call` unless it is called from within itself: a hook that logs
    /// would be told of its own losses for ever.
    pub(crate) fn outside_of_hooks(call: impl FnOnce()) {
        let is_inside = IN_HOOK.try_with(|inside| inside.replace(true)).unwrap_or(true);
        if !is_inside {
            call();
            let _ = IN_HOOK.try_with(|inside| inside.set(false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_said_once_until_it_is_over() {
        let mut problems = Problems::default();
        problems.failing("refused");
        problems.failing("refused");
        problems.lost(LossReason::Unauthorized, "401");
        assert_eq!(problems.take_unsaid().len(), 2);
        problems.lost(LossReason::Unauthorized, "401");
        assert!(problems.take_unsaid().is_empty());
        problems.resolve();
        problems.failing("refused");
        assert_eq!(problems.take_unsaid().len(), 1);
    }
}
