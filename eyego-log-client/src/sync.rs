//! The synchronization primitives that callers and the client's threads share.
//!
//! Under `--cfg eyego_loom` they are loom's, which explores every order in
//! which the threads can run.

pub(crate) mod process;
pub(crate) mod timer;

#[cfg(eyego_loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(eyego_loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(eyego_loom))]
pub(crate) use tokio::sync::Notify;

use std::any::Any;
use std::cell::Cell;
use std::sync::PoisonError;
use std::time::Duration;

thread_local! {
    static IS_OWN: Cell<bool> = const { Cell::new(false) };
}

/// Marks the current thread as one of a client's own.
pub(crate) fn mark_own_thread() {
    IS_OWN.set(true);
}

/// Returns whether the current thread belongs to a client. Events that are
/// traced there come from the client itself.
#[cfg(feature = "tracing")]
pub(crate) fn is_own_thread() -> bool {
    IS_OWN.try_with(Cell::get).unwrap_or(true)
}

/// Returns the message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Locks a mutex. A panic while it was held does not matter: each change to
/// the state is a single call, which leaves the state consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `condition` is false or `timeout` has passed.
#[cfg(not(eyego_loom))]
pub(crate) fn wait_while<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
    condition: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    let result = condvar.wait_timeout_while(guard, timeout, condition);
    result.unwrap_or_else(PoisonError::into_inner).0
}

/// Waits until `condition` is false. A model has no clock, so loom reports a
/// thread that is never notified as a deadlock.
#[cfg(eyego_loom)]
pub(crate) fn wait_while<'a, T>(
    condvar: &Condvar,
    mut guard: MutexGuard<'a, T>,
    _: Duration,
    mut condition: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    while condition(&mut guard) {
        guard = condvar.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    guard
}

/// Like tokio's `Notify`: a notification without a waiter is kept for the next
/// one.
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

    /// The models run without an async runtime.
    #[expect(clippy::unused_async, reason = "the same signature as tokio's")]
    pub(crate) async fn notified(&self) {
        self.wait();
    }
}
