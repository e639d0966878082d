//! What all clones of a client share, and how it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eyego_log_core::LogIdGenerator;

use crate::api::caller::Caller;
use crate::api::client::deadline_after;
use crate::delivery::starter::Starter;
use crate::pipeline::event_queue::EventQueue;
use crate::pipeline::filter::Filter;
use crate::pipeline::hooks::is_in_hook;
use crate::pipeline::reporter::Reporter;
use crate::sync::process::Process;
use crate::sync::timer::Timer;

/// How much longer than its timeout a shutdown waits for the client's threads to
/// settle and report what is left. Without it, a shutdown would return before the
/// events that its deadline ends are counted as lost.
pub(super) const GRACE: Duration = Duration::from_millis(250);

/// The time between attempts to start the worker's thread while a caller waits.
pub(super) const START_INTERVAL: Duration = Duration::from_millis(10);

/// The part that all clones share.
pub(super) struct Inner {
    pub(super) queue: Arc<EventQueue>,
    pub(super) reporter: Reporter,
    pub(super) caller: Caller,
    /// `None` if the client is disabled.
    pub(super) starter: Option<Arc<Starter>>,
    pub(super) timer: Timer,
    pub(super) process: Arc<Process>,
    pub(super) ids: LogIdGenerator,
    pub(super) max_event_bytes: usize,
    pub(super) shutdown_timeout: Duration,
    /// `None` if every valid event is logged.
    pub(super) filter: Option<Filter>,
}

impl Inner {
    /// Returns whether the worker has a thread, after another attempt to start it.
    fn has_thread(&self) -> bool {
        self.starter.as_ref().is_none_or(|starter| starter.start())
    }

    /// Waits until the worker has a thread, at most until `deadline`.
    pub(super) async fn wait_for_thread(&self, deadline: Instant) {
        while !self.has_thread() && Instant::now() < deadline {
            let until = deadline.min(Instant::now() + START_INTERVAL);
            self.timer.within(until, std::future::pending::<()>()).await;
            // If the timer cannot start a thread either, nobody would wake this task.
            if Instant::now() < until {
                std::thread::sleep(START_INTERVAL);
            }
        }
    }

    pub(super) fn give_up_without_thread(&self) {
        if let Some(starter) = self.starter.as_ref().filter(|starter| !starter.start_now()) {
            starter.give_up();
        }
    }

    /// Shuts down and blocks until that is done or `timeout` has passed.
    pub(super) fn close_blocking(&self, timeout: Duration) {
        if self.process.is_forked() {
            return;
        }
        let deadline = deadline_after(timeout);
        drop(self.queue.close(deadline));
        while !self.has_thread() && Instant::now() < deadline {
            std::thread::sleep(START_INTERVAL.min(timeout));
        }
        self.give_up_without_thread();
        let is_in_hook = is_in_hook();
        // A hook would wait for itself.
        self.queue.wait_closed(deadline.saturating_duration_since(Instant::now()) + GRACE);
        if !is_in_hook {
            self.reporter.wait_drained(deadline + GRACE);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.process.is_forked() {
            return;
        }
        // A runtime's thread must not be blocked.
        if tokio::runtime::Handle::try_current().is_err() {
            self.close_blocking(self.shutdown_timeout);
            return;
        }
        let pending = self.queue.stats().pending;
        drop(self.queue.close(deadline_after(self.shutdown_timeout)));
        self.give_up_without_thread();
        if pending > 0 {
            tracing::warn!(
                target: "eyego_log_client",
                "the client was dropped in an async runtime with {pending} undelivered events, \
                 which are lost if the process exits now: await `Client::shutdown`, or keep a \
                 `Client::guard` in `main`"
            );
        }
    }
}
