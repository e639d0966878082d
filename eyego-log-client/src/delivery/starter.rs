//! Starts the worker's thread, and tries again if the system refuses.
//!
//! A process can be at its limit of threads for a moment only, so a refusal is not
//! final. No thread could wait for the next attempt, so the calls of the program
//! make it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

use crate::delivery::worker::Worker;
use crate::pipeline::problems::{DELIVERY_FAILS, ProblemKind};
use crate::pipeline::reporter::Reporter;

/// The pauses between attempts. They double.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Starter {
    /// The thread has started, or the worker has ended without one.
    is_done: AtomicBool,
    reporter: Reporter,
    state: Mutex<State>,
}

struct State {
    /// `None` once it has a thread, or has ended.
    worker: Option<Worker>,
    next_attempt: Instant,
    pause: Duration,
}

impl Starter {
    pub(crate) fn new(worker: Worker, reporter: Reporter) -> Self {
        let state =
            State { worker: Some(worker), next_attempt: Instant::now(), pause: FIRST_PAUSE };
        Self { is_done: AtomicBool::new(false), reporter, state: Mutex::new(state) }
    }

    /// Starts the thread unless it has started, or the last attempt was too recent.
    /// Returns whether nothing is left to do.
    #[inline]
    pub(crate) fn start(&self) -> bool {
        self.is_done.load(Ordering::Acquire) || self.try_start(false)
    }

    /// Like [`start`](Self::start), but makes an attempt in any case.
    pub(crate) fn start_now(&self) -> bool {
        self.is_done.load(Ordering::Acquire) || self.try_start(true)
    }

    #[cold]
    fn try_start(&self, is_forced: bool) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        if now < state.next_attempt && !is_forced {
            return false;
        }
        let Some(worker) = state.worker.take() else { return true };
        // A thread that does not start drops what it was given.
        let slot = Arc::new(Mutex::new(Some(worker)));
        let taken = Arc::clone(&slot);
        let started = spawn(move || {
            let worker = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(worker) = worker {
                worker.supervise();
            }
        });
        let Err(error) = started else {
            self.is_done.store(true, Ordering::Release);
            return true;
        };
        state.worker = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        state.next_attempt = now + state.pause;
        state.pause = (2 * state.pause).min(MAX_PAUSE);
        drop(state);
        let message = format!("cannot start the client's thread: {error}");
        self.reporter.note(ProblemKind::Delivery, DELIVERY_FAILS, &message);
        false
    }

    /// Ends a worker that has no thread: what can be spooled is spooled, and the rest
    /// is lost.
    pub(crate) fn give_up(&self) {
        let mut state = self.state();
        if let Some(worker) = state.worker.take() {
            self.is_done.store(true, Ordering::Release);
            drop(state);
            worker.end_without_thread();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Starter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Starter").field("is_done", &self.is_done).finish_non_exhaustive()
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    #[cfg(test)]
    tests::fail_if_requested()?;
    std::thread::Builder::new().name("eyego-log".to_owned()).spawn(work).map(drop)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::transport::{BoxFuture, Request, Response, Transport, TransportError, response};
    use crate::{Client, ClientBuilder, Event, LossReason, RequestError, StoreOutcome};

    thread_local! {
        /// How many attempts of this thread are still to fail.
        static FAILURES: Cell<u32> = const { Cell::new(0) };
    }

    pub(super) fn fail_if_requested() -> io::Result<()> {
        let left = FAILURES.get();
        FAILURES.set(left.saturating_sub(1));
        if left == 0 { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WouldBlock)) }
    }

    /// Accepts every event.
    struct Accepting;

    impl Transport for Accepting {
        fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
            let count = request.body().iter().filter(|byte| **byte == b'\n').count();
            let body = format!(r#"{{"accepted":{count},"rejected":[]}}"#);
            Box::pin(std::future::ready(Ok(response(202, body))))
        }
    }

    fn builder() -> ClientBuilder {
        let builder = Client::builder("http://h").transport(Accepting);
        builder.compression(false).on_problem(|_| {})
    }

    #[tokio::test]
    async fn a_client_whose_thread_cannot_start_delivers_once_it_can() {
        FAILURES.set(3);
        let client = builder().build().unwrap();
        client.log(Event::new("a", "A")).unwrap();
        let problem = client.stats().last_problem.unwrap();
        assert!(problem.message.contains("cannot start the client's thread"), "{problem}");
        let report = client.flush().await;
        assert!(report.all_delivered() && report.stats.delivered == 1, "{report:?}");
        assert_eq!((FAILURES.get(), client.stats().last_problem), (0, None));
    }

    #[tokio::test]
    async fn a_caller_that_waits_for_an_event_causes_attempts() {
        FAILURES.set(4);
        let client = builder().build().unwrap();
        assert!(client.send(Event::new("a", "A")).await.is_ok());
        FAILURES.set(4);
        let client = builder().build().unwrap();
        let sent = client.send_stored(Event::new("a", "A"), Duration::ZERO).await;
        assert!(matches!(sent, Ok(StoreOutcome::Queued(_))), "{sent:?}");
        FAILURES.set(4);
        let client = builder().build().unwrap();
        let error = client.query().fetch().await.unwrap_err();
        assert!(matches!(&error, RequestError::NoResponse(_)) && error.is_retryable());
        assert!(error.to_string().contains("cannot start"), "{error}");
    }

    #[tokio::test]
    async fn events_of_a_client_without_a_thread_are_counted_when_it_ends() {
        let timeout = Duration::from_millis(50);
        FAILURES.set(u32::MAX);
        let client = builder().build().unwrap();
        client.log(Event::new("a", "A")).unwrap();
        let report = client.shutdown_within(timeout).await;
        let stats = &report.stats;
        assert_eq!((stats.lost.get(LossReason::Shutdown), stats.pending), (1, 0), "{report:?}");
        assert!(stats.is_balanced() && report.unsettled == 1);

        let client = builder().build().unwrap();
        client.log(Event::new("a", "A")).unwrap();
        drop(client.guard().timeout(timeout));
        assert_eq!(client.stats().lost.get(LossReason::Shutdown), 1);
        FAILURES.set(0);
    }

    #[cfg(feature = "spool")]
    #[tokio::test]
    async fn events_of_a_client_without_a_thread_stay_in_the_spool() {
        let dir = tempfile::TempDir::new().unwrap();
        FAILURES.set(u32::MAX);
        let client = builder().spool_dir(dir.path()).build().unwrap();
        client.log(Event::new("a", "A")).unwrap();
        let report = client.shutdown_within(Duration::from_millis(50)).await;
        assert_eq!((report.stats.pending, report.stats.lost.total()), (1, 0), "{report:?}");
        drop(client);
        FAILURES.set(0);
        let next = builder().spool_dir(dir.path()).build().unwrap();
        let report = next.flush().await;
        assert_eq!((report.stats.recovered, report.stats.delivered), (1, 1), "{report:?}");
    }
}
