//! Wakes futures at a point in time, under any async runtime and without one.
//!
//! The deadlines of callers must hold even if the worker is stuck, for example
//! in a transport that blocks. They therefore have a thread of their own, which
//! runs no code of the program.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How long the thread waits for another deadline before it ends.
const IDLE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct State {
    /// The futures to wake, by deadline. The number makes the keys unique.
    sleeping: BTreeMap<(Instant, u64), Waker>,
    next_number: u64,
    has_thread: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Clones share the thread, which starts with the first deadline.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timer {
    shared: Arc<Shared>,
}

impl Timer {
    /// Completes when `future` is done or at `deadline`, whichever is first.
    /// Returns `None` at the deadline.
    pub(crate) async fn within<T>(
        &self,
        deadline: Instant,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let mut future = pin!(future);
        let mut sleep = Sleep { timer: self, deadline, number: None };
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => Pin::new(&mut sleep).poll(context).map(|()| None),
        })
        .await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns false if there is no thread and none can be started.
    fn ensure_thread(&self, state: &mut State) -> bool {
        if state.has_thread {
            return true;
        }
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("eyego-log-timer".to_owned());
        state.has_thread = thread.spawn(move || shared.run()).is_ok();
        state.has_thread
    }
}

/// A future that completes at its deadline. Dropping it forgets the deadline.
struct Sleep<'a> {
    timer: &'a Timer,
    deadline: Instant,
    number: Option<u64>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.deadline <= Instant::now() {
            return Poll::Ready(());
        }
        let mut state = self.timer.state();
        // Without a thread, the deadline could be missed.
        if !self.timer.ensure_thread(&mut state) {
            return Poll::Ready(());
        }
        let number = self.number.unwrap_or(state.next_number);
        state.next_number = state.next_number.max(number + 1);
        let key = (self.deadline, number);
        state.sleeping.insert(key, context.waker().clone());
        let is_next = state.sleeping.keys().next() == Some(&key);
        drop(state);
        self.number = Some(number);
        if is_next {
            self.timer.shared.changed.notify_one();
        }
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.timer.state().sleeping.remove(&(self.deadline, number));
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            let later = state.sleeping.split_off(&(now + Duration::from_nanos(1), 0));
            let due = std::mem::replace(&mut state.sleeping, later);
            if !due.is_empty() {
                drop(state);
                // Waking runs code of the program's async runtime.
                due.into_values().for_each(Waker::wake);
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let next = state.sleeping.keys().next().map(|(deadline, _)| *deadline);
            let wait = next.map_or(IDLE, |deadline| deadline - now);
            let waited = self.changed.wait_timeout(state, wait);
            let (guard, result) = waited.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if result.timed_out() && state.sleeping.is_empty() {
                state.has_thread = false;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_ends_at_its_deadline_and_not_before() {
        let timer = Timer::default();
        let begin = Instant::now();
        let timeout = Duration::from_millis(30);
        let never = timer.within(begin + timeout, std::future::pending::<()>());
        assert_eq!(futures_executor::block_on(never), None);
        assert!(begin.elapsed() >= timeout);
        let ready = timer.within(begin, std::future::ready(7));
        assert_eq!(futures_executor::block_on(ready), Some(7));
        assert!(timer.state().sleeping.is_empty());
    }
}
