//! The program's own functions. They may log, block and panic.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::model::delivered::Delivered;
use crate::model::loss::Loss;

/// Called for each loss; see [`ClientBuilder::on_loss`](crate::ClientBuilder::on_loss).
pub(crate) type LossHook = Arc<dyn Fn(&Loss<'_>) + Send + Sync>;

/// Called for each problem; see
/// [`ClientBuilder::on_problem`](crate::ClientBuilder::on_problem).
pub(crate) type ProblemHook = Arc<dyn Fn(&str) + Send + Sync>;

/// Called for each delivered batch; see
/// [`ClientBuilder::on_delivery`](crate::ClientBuilder::on_delivery).
pub(crate) type DeliveryHook = Arc<dyn Fn(&Delivered<'_>) + Send + Sync>;

/// The program's own functions.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) on_loss: Option<LossHook>,
    pub(crate) on_delivery: Option<DeliveryHook>,
    pub(crate) on_problem: Option<ProblemHook>,
}

thread_local! {
    static IN_HOOK: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether the current thread is running a hook.
pub(crate) fn is_in_hook() -> bool {
    IN_HOOK.try_with(Cell::get).unwrap_or(true)
}

impl Hooks {
    /// Reports losses to the program.
    pub(crate) fn report_loss(&self, loss: &Loss<'_>) {
        if let Some(hook) = &self.on_loss {
            call(|| hook(loss));
        }
    }

    /// Reports deliveries to the program.
    pub(crate) fn report_delivery(&self, delivered: &Delivered<'_>) {
        if let Some(hook) = &self.on_delivery {
            call(|| hook(delivered));
        }
    }

    /// Reports a problem to the program, or through `tracing`.
    pub(crate) fn report_problem(&self, message: &str) {
        call(|| match &self.on_problem {
            Some(hook) => hook(message),
            None => tracing::warn!(target: "eyego_log_client", "{message}"),
        });
    }
}

/// Calls a hook. Panics in it are caught.
fn call(hook: impl FnOnce()) {
    IN_HOOK.set(true);
    drop(catch_unwind(AssertUnwindSafe(hook)));
    IN_HOOK.set(false);
}
