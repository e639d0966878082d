//! Reports losses, deliveries and problems to the program, on a thread of its own, so that
//! the program's functions cannot delay delivery or callers.
//!
//! Losses wait in a queue of limited size; what does not fit is counted. The
//! thread is started by the first report and ends when it is idle.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use crate::model::loss_reason::LossReason;
use crate::model::problem::Problem;
use crate::model::stats::Stats;
use crate::pipeline::batch::Batch;
use crate::pipeline::hooks::Hooks;
use crate::pipeline::problems::{ProblemKind, Problems};
use crate::pipeline::report_queue::{ReportQueue, SettledEvents};
use crate::sync::mark_own_thread;

/// How long the thread waits for another report before it ends.
const IDLE: Duration = Duration::from_secs(10);

struct State {
    problems: Problems,
    settled: ReportQueue,
    has_thread: bool,
    is_calling: bool,
    /// The client has ended, so nothing is delayed any more.
    is_closed: bool,
    /// Calls that wait until everything is reported.
    waiters: Vec<oneshot::Sender<()>>,
}

impl State {
    fn is_idle(&self) -> bool {
        !self.is_calling && self.settled.is_empty() && !self.problems.has_unreported()
    }
}

/// What the thread does next.
enum Task {
    Settled(Box<SettledEvents>),
    Problem(String),
}

struct Shared {
    hooks: Hooks,
    state: Mutex<State>,
    changed: Condvar,
}

/// Collects losses and problems from any thread.
#[derive(Clone)]
pub(crate) struct Reporter {
    shared: Arc<Shared>,
}

impl Default for Reporter {
    fn default() -> Self {
        Self::new(Hooks::default())
    }
}

impl Reporter {
    pub(crate) fn new(hooks: Hooks) -> Self {
        let state = State {
            problems: Problems::new(),
            settled: ReportQueue::default(),
            has_thread: false,
            is_calling: false,
            is_closed: false,
            waiters: Vec::new(),
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Self { shared: Arc::new(Shared { hooks, state, changed }) }
    }

    /// Notes a problem. `introduction` precedes the message in the report.
    pub(crate) fn note(&self, kind: ProblemKind, introduction: &str, message: &str) {
        let mut state = self.shared.lock();
        if state.problems.note(kind, introduction, message, Instant::now()) {
            self.wake(&mut state);
        }
    }

    /// Notes that events are lost.
    pub(crate) fn note_loss(&self, reason: LossReason, message: &str) {
        let introduction = format_args!("events are lost ({reason}): ");
        let mut state = self.shared.lock();
        let (kind, now) = (ProblemKind::Loss(reason), Instant::now());
        if state.problems.note(kind, introduction, message, now) {
            self.wake(&mut state);
        }
    }

    /// Notes that these problems are resolved.
    pub(crate) fn resolve(&self, kinds: &[ProblemKind]) {
        self.shared.lock().problems.resolve(kinds);
    }

    /// Queues the events of a lost batch for the loss hook. Returns the batch if
    /// there is no hook, or if the queue is full and `is_forced` is false.
    pub(crate) fn report_batch(
        &self,
        reason: LossReason,
        message: &str,
        batch: Batch,
        is_forced: bool,
    ) -> Option<Batch> {
        if self.shared.hooks.on_loss.is_none() {
            return Some(batch);
        }
        let mut state = self.shared.lock();
        let refused = state.settled.push_lost(reason, message, batch, is_forced);
        if refused.is_none() {
            self.wake(&mut state);
        }
        refused
    }

    /// Queues the events of a delivered batch for the delivery hook. Returns the
    /// batch if there is no hook or if the queue is full.
    pub(crate) fn report_delivery(&self, batch: Batch) -> Option<Batch> {
        if self.shared.hooks.on_delivery.is_none() {
            return Some(batch);
        }
        let mut state = self.shared.lock();
        let refused = state.settled.push_delivered(batch);
        if refused.is_none() {
            self.wake(&mut state);
        }
        refused
    }

    /// Queues one lost event for the loss hook.
    pub(crate) fn report_line(&self, reason: LossReason, message: &str, line: &[u8]) {
        if self.shared.hooks.on_loss.is_none() {
            return;
        }
        let mut state = self.shared.lock();
        if state.settled.push_line(reason, message, line) {
            self.wake(&mut state);
        }
    }

    /// Queues the loss of events whose content can no longer be read.
    pub(crate) fn report_unreadable(&self, reason: LossReason, message: &str, unreadable: u64) {
        if self.shared.hooks.on_loss.is_some() {
            let mut state = self.shared.lock();
            state.settled.push_unreadable(reason, message, unreadable);
            self.wake(&mut state);
        }
    }

    /// Adds the most recent problem and the number of unreported events.
    pub(crate) fn describe(&self, stats: &mut Stats) {
        let state = self.shared.lock();
        let now = Instant::now();
        stats.unreported = state.settled.unreported;
        stats.unreported_deliveries = state.settled.unreported_deliveries;
        stats.last_problem = state.problems.latest(now).map(|(message, at)| {
            let time = SystemTime::now() - now.saturating_duration_since(at);
            Problem { message: message.to_owned(), time: time.into() }
        });
    }

    /// Reports everything that is left without delay, because the client has
    /// ended.
    pub(crate) fn close(&self) {
        let mut state = self.shared.lock();
        state.is_closed = true;
        self.shared.changed.notify_all();
        if !state.is_idle() {
            self.wake(&mut state);
        }
    }

    /// Returns a channel that closes when everything is reported.
    pub(crate) fn drained(&self) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        let mut state = self.shared.lock();
        if !state.is_idle() {
            state.waiters.push(done);
        }
        receiver
    }

    /// Blocks until everything is reported or `deadline` has passed.
    pub(crate) fn wait_drained(&self, deadline: Instant) {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let is_busy = |state: &mut State| !state.is_idle();
        let guard = self.shared.lock();
        drop(self.shared.changed.wait_timeout_while(guard, timeout, is_busy));
    }

    /// Wakes the thread, and starts it if necessary.
    fn wake(&self, state: &mut State) {
        if state.has_thread {
            self.shared.changed.notify_all();
            return;
        }
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("eyego-log-report".to_owned());
        state.has_thread = thread.spawn(move || shared.run()).is_ok();
        if state.is_closed && !state.has_thread {
            // No later report starts the thread.
            state.settled.give_up();
            state.waiters.clear();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        mark_own_thread();
        let mut state = self.lock();
        loop {
            if let Some(task) = Self::next_task(&mut state) {
                state.is_calling = true;
                drop(state);
                match task {
                    Task::Settled(events) => events.report(&self.hooks),
                    Task::Problem(message) => self.hooks.report_problem(&message),
                }
                state = self.lock();
                state.is_calling = false;
            } else if state.is_idle() {
                state.waiters.clear();
                self.changed.notify_all();
                let idle = if state.is_closed { Duration::ZERO } else { IDLE };
                let waited = self.changed.wait_timeout(state, idle);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                if state.is_idle() {
                    state.waiters.clear();
                    state.has_thread = false;
                    return;
                }
            } else {
                let at = state.problems.report_at();
                let wait = at.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()));
                let waited = self.changed.wait_timeout(state, wait);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn next_task(state: &mut State) -> Option<Task> {
        let report = if state.is_closed {
            state.problems.next_report_at_end()
        } else {
            state.problems.next_report(Instant::now())
        };
        if let Some(report) = report {
            return Some(Task::Problem(report));
        }
        state.settled.pop().map(|events| Task::Settled(Box::new(events)))
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::model::loss::Loss;
    use crate::pipeline::report_queue::MAX_QUEUED_BYTES;

    #[test]
    fn a_hook_that_blocks_delays_nobody_and_what_it_misses_is_counted() {
        let (release, released) = mpsc::channel::<()>();
        let (released, received) = (Mutex::new(released), Arc::new(Mutex::new(0)));
        let counter = Arc::clone(&received);
        let hook = move |loss: &Loss<'_>| {
            let _ = released.lock().unwrap().recv();
            *counter.lock().unwrap() += loss.count() as u64;
        };
        let reporter = Reporter::new(Hooks { on_loss: Some(Arc::new(hook)), ..Hooks::default() });
        let line = [b'x'; 1000];
        let events = 3 * MAX_QUEUED_BYTES as u64 / 1000;
        for _ in 0..events {
            reporter.report_line(LossReason::Overflow, "full", &line);
        }
        let mut stats = Stats::default();
        reporter.describe(&mut stats);
        assert!(stats.unreported > events / 2, "{stats:?}");
        drop(release);
        reporter.close();
        reporter.wait_drained(Instant::now() + Duration::from_secs(30));
        reporter.describe(&mut stats);
        assert_eq!(*received.lock().unwrap() + stats.unreported, events);
    }

    #[test]
    fn the_end_of_the_client_reports_everything_at_once() {
        let (reports, reported) = mpsc::channel();
        let reports = Mutex::new(reports);
        let hook = move |message: &str| reports.lock().unwrap().send(message.to_owned()).unwrap();
        let reporter =
            Reporter::new(Hooks { on_problem: Some(Arc::new(hook)), ..Hooks::default() });
        reporter.note(ProblemKind::Delivery, "delivery: ", "503");
        reporter.note(ProblemKind::Spool, "spool: ", "full");
        reporter.note_loss(LossReason::Expired, "503");
        reporter.close();
        reporter.wait_drained(Instant::now() + Duration::from_secs(30));
        let reports: Vec<_> = reported.try_iter().collect();
        assert_eq!(reports, ["delivery: 503", "spool: full", "events are lost (expired): 503"]);
    }
}
