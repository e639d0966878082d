//! Reports losses and problems to the program, on a thread of its own, so that
//! the program's functions cannot delay delivery or callers.
//!
//! Losses wait in a queue of limited size; what does not fit is counted. The
//! thread is started by the first report and ends when it is idle.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use crate::model::line::Lines;
use crate::model::loss::Loss;
use crate::model::loss_reason::LossReason;
use crate::model::problem::Problem;
use crate::model::stats::Stats;
use crate::pipeline::batch::Batch;
use crate::pipeline::problems::{ProblemKind, Problems};
use crate::sync::mark_own_thread;

/// Called for each loss; see [`ClientBuilder::on_loss`](crate::ClientBuilder::on_loss).
pub(crate) type LossHook = Arc<dyn Fn(&Loss<'_>) + Send + Sync>;

/// Called for each problem; see
/// [`ClientBuilder::on_problem`](crate::ClientBuilder::on_problem).
pub(crate) type ProblemHook = Arc<dyn Fn(&str) + Send + Sync>;

/// The memory that lost events may occupy while they wait for the hook.
const MAX_QUEUED_BYTES: usize = 8 << 20;

/// The number of single events that are passed to the hook together.
const MAX_MERGED: usize = 500;

/// How long the thread waits for another report before it ends.
const IDLE: Duration = Duration::from_secs(10);

thread_local! {
    static IN_HOOK: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether the current thread is running a hook.
pub(crate) fn is_in_hook() -> bool {
    IN_HOOK.try_with(Cell::get).unwrap_or(true)
}

/// Lost events that wait for the hook.
struct QueuedLoss {
    reason: LossReason,
    message: String,
    batch: Batch,
    unreadable: u64,
    /// The memory that it occupies.
    bytes: usize,
}

impl QueuedLoss {
    fn events(&self) -> u64 {
        self.batch.len() as u64 + self.unreadable
    }
}

struct State {
    problems: Problems,
    losses: VecDeque<QueuedLoss>,
    /// The memory of `losses`, in bytes.
    queued_bytes: usize,
    /// Events that the loss hook did not receive.
    unreported: u64,
    has_thread: bool,
    is_calling: bool,
    /// The client has ended, so nothing is delayed any more.
    is_closed: bool,
    /// Calls that wait until everything is reported.
    waiters: Vec<oneshot::Sender<()>>,
}

impl State {
    fn is_idle(&self) -> bool {
        !self.is_calling && self.losses.is_empty() && !self.problems.has_unreported()
    }
}

/// What the thread does next.
enum Task {
    Loss(QueuedLoss),
    Problem(String),
}

struct Shared {
    on_loss: Option<LossHook>,
    on_problem: Option<ProblemHook>,
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
        Self::new(None, None)
    }
}

impl Reporter {
    pub(crate) fn new(on_loss: Option<LossHook>, on_problem: Option<ProblemHook>) -> Self {
        let state = State {
            problems: Problems::new(),
            losses: VecDeque::new(),
            queued_bytes: 0,
            unreported: 0,
            has_thread: false,
            is_calling: false,
            is_closed: false,
            waiters: Vec::new(),
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Self { shared: Arc::new(Shared { on_loss, on_problem, state, changed }) }
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
        if self.shared.on_loss.is_none() {
            return Some(batch);
        }
        let mut state = self.shared.lock();
        let cost = batch.resident_bytes();
        if is_in_hook() || (state.queued_bytes + cost > MAX_QUEUED_BYTES && !is_forced) {
            state.unreported += batch.len() as u64;
            return Some(batch);
        }
        let message = message.to_owned();
        let loss = QueuedLoss { reason, message, batch, unreadable: 0, bytes: cost };
        self.queue(&mut state, loss);
        None
    }

    /// Queues one lost event for the loss hook.
    pub(crate) fn report_line(&self, reason: LossReason, message: &str, line: &[u8]) {
        if self.shared.on_loss.is_none() {
            return;
        }
        let mut state = self.shared.lock();
        let cost = Batch::cost_of(line.len());
        if is_in_hook() || state.queued_bytes + cost > MAX_QUEUED_BYTES {
            state.unreported += 1;
            return;
        }
        if let Some(last) = state.losses.back_mut()
            && (last.reason == reason && last.message == message)
            && (1..MAX_MERGED).contains(&last.batch.len())
        {
            last.batch.push(line, None);
            last.bytes += cost;
            state.queued_bytes += cost;
            return;
        }
        let mut batch = Batch::new(0);
        batch.push(line, None);
        let message = message.to_owned();
        let loss = QueuedLoss { reason, message, batch, unreadable: 0, bytes: cost };
        self.queue(&mut state, loss);
    }

    /// Queues the loss of events whose content can no longer be read.
    pub(crate) fn report_unreadable(&self, reason: LossReason, message: &str, unreadable: u64) {
        if self.shared.on_loss.is_some() {
            let message = message.to_owned();
            let batch = Batch::new(0);
            let loss = QueuedLoss { reason, message, batch, unreadable, bytes: 0 };
            self.queue(&mut self.shared.lock(), loss);
        }
    }

    fn queue(&self, state: &mut State, loss: QueuedLoss) {
        state.queued_bytes += loss.bytes;
        state.losses.push_back(loss);
        self.wake(state);
    }

    /// Adds the most recent problem and the number of unreported events.
    pub(crate) fn describe(&self, stats: &mut Stats) {
        let state = self.shared.lock();
        let now = Instant::now();
        stats.unreported = state.unreported;
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
                self.call(task);
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
        let loss = state.losses.pop_front()?;
        state.queued_bytes -= loss.bytes;
        Some(Task::Loss(loss))
    }

    /// Calls a hook. Panics in it are caught.
    fn call(&self, task: Task) {
        IN_HOOK.set(true);
        match (task, &self.on_loss, &self.on_problem) {
            (Task::Problem(message), _, Some(hook)) => {
                drop(catch_unwind(AssertUnwindSafe(|| hook(&message))));
            }
            (Task::Problem(message), _, None) => {
                let warn = || tracing::warn!(target: "eyego_log_client", "{message}");
                drop(catch_unwind(AssertUnwindSafe(warn)));
            }
            (Task::Loss(loss), Some(hook), _) => {
                let lines = if loss.batch.is_empty() { Lines::EMPTY } else { loss.batch.lines() };
                let QueuedLoss { reason, message, unreadable, .. } = &loss;
                let (reason, unreadable) = (*reason, *unreadable);
                let loss = Loss { reason, message, lines, unreadable };
                drop(catch_unwind(AssertUnwindSafe(|| hook(&loss))));
            }
            (Task::Loss(loss), None, _) => self.lock().unreported += loss.events(),
        }
        IN_HOOK.set(false);
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

    #[test]
    fn a_hook_that_blocks_delays_nobody_and_what_it_misses_is_counted() {
        let (release, released) = mpsc::channel::<()>();
        let (released, received) = (Mutex::new(released), Arc::new(Mutex::new(0)));
        let counter = Arc::clone(&received);
        let hook = move |loss: &Loss<'_>| {
            let _ = released.lock().unwrap().recv();
            *counter.lock().unwrap() += loss.count() as u64;
        };
        let reporter = Reporter::new(Some(Arc::new(hook)), None);
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
        let reporter = Reporter::new(None, Some(Arc::new(hook)));
        reporter.note(ProblemKind::Delivery, "delivery: ", "503");
        reporter.note(ProblemKind::Spool, "spool: ", "full");
        reporter.note_loss(LossReason::Expired, "503");
        reporter.close();
        reporter.wait_drained(Instant::now() + Duration::from_secs(30));
        let reports: Vec<_> = reported.try_iter().collect();
        assert_eq!(reports, ["delivery: 503", "spool: full", "events are lost (expired): 503"]);
    }
}
