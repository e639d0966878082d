//! The locks and bells by which callers and the worker meet; under `--cfg eyego_loom`
//! those of loom, which tries every order in which threads may run.

#[cfg(eyego_loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(eyego_loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(eyego_loom))]
pub(crate) use tokio::sync::Notify;

use std::sync::PoisonError;
use std::time::Duration;

/// Waits while it is so, at most this long.
#[cfg(not(eyego_loom))]
pub(crate) fn wait_while<'a, T>(
    bell: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
    is_so: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    let waited = bell.wait_timeout_while(guard, timeout, is_so);
    waited.unwrap_or_else(PoisonError::into_inner).0
}

/// Waits while it is so: a model has no time, and whoever is never woken is
/// what it is to find.
#[cfg(eyego_loom)]
pub(crate) fn wait_while<'a, T>(
    bell: &Condvar,
    mut guard: MutexGuard<'a, T>,
    _: Duration,
    mut is_so: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    while is_so(&mut guard) {
        guard = bell.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    guard
}

/// As tokio's: one ring is kept for whoever listens next.
#[cfg(eyego_loom)]
#[derive(Debug)]
pub(crate) struct Notify(loom::sync::Notify);

#[cfg(eyego_loom)]
impl Notify {
    pub(crate) fn new() -> Self {
        Self(loom::sync::Notify::new())
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify();
    }

    pub(crate) fn wait(&self) {
        self.0.wait();
    }

    /// The models do without a runtime.
    #[expect(clippy::unused_async, reason = "the same signature as tokio's")]
    pub(crate) async fn notified(&self) {
        self.wait();
    }
}
