//! What callers and the worker share: the buffer and the ledger under one
//! lock, the inbox of the worker, the bell that wakes it.
//!
//! The lock is held for a copy of a line or for bookkeeping, never while code
//! of the user runs.

mod intake;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use eyego_log_core::LogIdGenerator;
use tokio::sync::oneshot;

use crate::batch::{Ack, Batch, End};
use crate::buffer::Buffer;
use crate::config::Validated;
use crate::dispatch::{Settled, Ticket};
use crate::ledger::{Fate, Ledger};
use crate::loss::{Lines, LossReason, Lost, Stats};
use crate::problem::Problems;
use crate::spool::Recovered;
use crate::sync::{Condvar, Mutex, MutexGuard, Notify, wait_while};
use crate::transport::{Request, Response, TransportError};

/// What a transport answered.
pub(crate) type Answer = Result<Response, TransportError>;

/// A request of a reader, to be sent as it is.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// What awaits the worker.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) answers: Vec<(Ticket, Answer)>,
    pub(crate) jobs: Vec<Job>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// Nothing more is taken; what is there is delivered until then.
    Closing(Instant),
    /// The worker has ended.
    Closed(LossReason),
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) buffer: Buffer,
    pub(crate) ledger: Ledger,
    pub(crate) problems: Problems,
    pub(crate) phase: Phase,
    /// Who waits for the end.
    ending: Vec<oneshot::Sender<()>>,
}

pub(crate) struct Shared {
    pub(crate) config: Validated,
    ids: LogIdGenerator,
    state: Mutex<State>,
    inbox: Mutex<Inbox>,
    /// Rings when there is something for the worker.
    pub(crate) news: Notify,
    /// Rings when there is room, or the worker has ended.
    change: Condvar,
    /// How often the worker is to panic, for its test.
    #[cfg(test)]
    pub(crate) panics_left: std::sync::atomic::AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves the bookkeeping as consistent as it was: each change is
    // one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(config: Validated) -> Self {
        let state = State {
            buffer: Buffer::new(config.batch),
            ledger: Ledger::default(),
            problems: Problems::default(),
            phase: Phase::Open,
            ending: Vec::new(),
        };
        Self {
            config,
            ids: LogIdGenerator::new(),
            state: Mutex::new(state),
            inbox: Mutex::default(),
            news: Notify::new(),
            change: Condvar::new(),
            #[cfg(test)]
            panics_left: std::sync::atomic::AtomicU32::new(0),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.state().ledger.stats.clone()
    }

    /// The next batch to be sent, if one is due.
    pub(crate) fn next_batch(&self, now: Instant) -> Option<Batch> {
        self.state().buffer.take(now)
    }

    /// Books what an earlier process left in the spool.
    pub(crate) fn recover(&self, recovered: &Recovered) {
        let Recovered { found, damaged, message } = recovered;
        let mut state = self.state();
        state.ledger.recover(found.events, *damaged);
        if *damaged > 0 {
            state.problems.lost(LossReason::Damaged, message);
            state.ledger.stats.last_problem = Some(message.clone());
            drop(state);
            self.tell_unreadable(*damaged, message);
        }
    }

    /// The batch is in the spool, and need not be in memory.
    pub(crate) fn unload(&self, batch: Batch) {
        let mut state = self.state();
        state.ledger.unload(batch.cost());
        self.let_in(&state);
        self.recycle(&mut state, batch);
    }

    /// The client ends; the batch stays in the spool.
    pub(crate) fn keep(&self, mut batch: Batch) {
        batch.acknowledge(&End::Kept);
        self.state().ledger.unload(batch.cost());
    }

    /// Tells those who wait for events that stay in the spool.
    pub(crate) fn keep_unread(acks: Vec<(usize, Ack)>) {
        for (_, ack) in acks {
            // Who no longer waits does not need to know.
            let _ = ack.send(End::Kept);
        }
    }

    /// Events of the spool cannot be read any more.
    pub(crate) fn lose_unread(
        &self,
        epoch: u64,
        events: u64,
        acks: Vec<(usize, Ack)>,
        message: &str,
    ) {
        let reason = LossReason::Damaged;
        {
            let mut state = self.state();
            state.ledger.settle(epoch, events, 0, Fate::Lost(reason));
            state.problems.lost(reason, message);
            state.ledger.stats.last_problem = Some(message.to_owned());
        }
        for (_, ack) in acks {
            // Who no longer waits does not need to know.
            let _ = ack.send(End::Lost(reason, message.to_owned()));
        }
        self.tell_unreadable(events, message);
    }

    /// Threads that wait for room are let in together when there is some for
    /// each, not one batch at a time.
    fn let_in(&self, state: &State) {
        let limit = self.config.max_buffer_bytes;
        if state.ledger.stats.pending_bytes <= limit - limit / 8 {
            self.change.notify_all();
        }
    }

    /// Keeps the memory of a batch for the next ones.
    fn recycle(&self, state: &mut State, batch: Batch) {
        // A batch has an eighth more memory than it fills: with exact room a
        // full buffer would free each and allocate the next.
        let limit = self.config.max_buffer_bytes + self.config.max_buffer_bytes / 8;
        let room = limit.saturating_sub(state.ledger.stats.pending_bytes);
        state.buffer.recycle(batch, room, Instant::now());
    }

    /// Books the end of a batch and tells those who want to know.
    pub(crate) fn settle(&self, settled: Settled) {
        let Settled { mut batch, fate, message } = settled;
        let (count, cost) = (batch.len() as u64, batch.cost());
        {
            let mut state = self.state();
            state.ledger.settle(batch.epoch, count, cost, fate);
            if let Fate::Lost(reason) = fate {
                state.problems.lost(reason, &message);
                state.ledger.stats.last_problem = Some(message.clone());
            }
            self.let_in(&state);
        }
        match fate {
            Fate::Delivered => batch.acknowledge(&End::Delivered),
            Fate::Lost(reason) => {
                batch.acknowledge(&End::Lost(reason, message.clone()));
                self.tell_loss(reason, &message, batch.lines());
            }
        }
        self.recycle(&mut self.state(), batch);
    }

    fn tell_loss(&self, reason: LossReason, message: &str, lines: Lines<'_>) {
        self.tell(&Lost { reason, message, lines, unreadable: 0 });
    }

    fn tell_unreadable(&self, unreadable: u64, message: &str) {
        let lines = Lines { bytes: &[], ends: &[] };
        self.tell(&Lost { reason: LossReason::Damaged, message, lines, unreadable });
    }

    fn tell(&self, lost: &Lost<'_>) {
        let Some(hook) = &self.config.on_loss else { return };
        Problems::outside_of_hooks(|| {
            // What the hook broke is the hook's own.
            let _ = catch_unwind(AssertUnwindSafe(|| hook(lost)));
        });
    }

    /// Answers when all that was taken before is settled, at the latest then.
    pub(crate) fn flush(&self, deadline: Instant) -> (u64, oneshot::Receiver<()>) {
        let mut state = self.state();
        let epoch = state.buffer.next_epoch();
        let wait = state.ledger.wait(epoch, deadline);
        if matches!(state.phase, Phase::Closed(_)) {
            state.ledger.release_all();
        }
        drop(state);
        self.news.notify_one();
        (epoch, wait)
    }

    /// Takes nothing more, and answers when the worker has ended: at the
    /// latest soon after the deadline. A second call does not move it.
    pub(crate) fn close(&self, deadline: Instant) -> oneshot::Receiver<()> {
        let (ended, wait) = oneshot::channel();
        let mut state = self.state();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing(deadline);
            state.buffer.seal();
        }
        if !matches!(state.phase, Phase::Closed(_)) {
            state.ending.push(ended);
        }
        drop(state);
        self.change.notify_all();
        self.news.notify_one();
        wait
    }

    /// Blocks until the worker has ended, at most this long.
    pub(crate) fn wait_closed(&self, timeout: Duration) {
        let is_running = |state: &mut State| !matches!(state.phase, Phase::Closed(_));
        drop(wait_while(&self.change, self.state(), timeout, is_running));
    }

    /// The worker has ended: what is left is lost, for this reason.
    pub(crate) fn end(&self, reason: LossReason, held: Vec<Batch>, message: &str) {
        let mut left = held;
        {
            let mut state = self.state();
            state.phase = Phase::Closed(reason);
            while let Some(batch) = state.buffer.take_oldest() {
                left.push(batch);
            }
        }
        for batch in left {
            let fate = Fate::Lost(reason);
            self.settle(Settled { batch, fate, message: message.to_owned() });
        }
        let mut state = self.state();
        state.ledger.release_all();
        state.ending.clear();
        drop(state);
        *lock(&self.inbox) = Inbox::default();
        self.change.notify_all();
    }

    /// Hands a reader's request to the worker.
    pub(crate) fn submit(&self, job: Job) {
        // Dropping the job tells the reader.
        if !matches!(self.state().phase, Phase::Closed(_)) {
            lock(&self.inbox).jobs.push(job);
            self.news.notify_one();
        }
    }

    pub(crate) fn deliver_answer(&self, ticket: Ticket, answer: Answer) {
        lock(&self.inbox).answers.push((ticket, answer));
        self.news.notify_one();
    }

    pub(crate) fn empty_inbox(&self) -> Inbox {
        std::mem::take(&mut lock(&self.inbox))
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(all(test, eyego_loom))]
#[path = "shared/models.rs"]
mod models;
