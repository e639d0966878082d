//! The queue between callers and the worker: the buffer and the accounting,
//! under one lock.
//!
//! The lock is held while a line is copied or counts are updated, never while
//! the program's own code runs.

mod close;
mod enqueue;
mod urgency;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use self::urgency::Urgency;
use crate::model::loss_reason::LossReason;
use crate::model::overflow::Overflow;
use crate::model::stats::Stats;
use crate::pipeline::accounting::Accounting;
use crate::pipeline::batch::{Acknowledgement, Acks, Batch, Outcome, SettledBatch};
use crate::pipeline::buffer::{BatchLimits, Buffer};
use crate::pipeline::problems::ProblemKind;
use crate::pipeline::reporter::Reporter;
use crate::spool::LostInFile;
use crate::sync::{Condvar, Mutex, MutexGuard, Notify, lock};

/// The memory that is kept for later batches while the buffer is full.
const MAX_SPARE_BYTES: usize = 4 << 20;

#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueOptions {
    pub(crate) batch: BatchLimits,
    pub(crate) max_bytes: usize,
    pub(crate) overflow: Overflow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// No more events are accepted. Pending events are delivered until the
    /// deadline.
    Closing(Instant),
    /// The worker has ended. Later events are lost for this reason.
    Closed(LossReason),
}

#[derive(Debug)]
struct State {
    buffer: Buffer,
    accounting: Accounting,
    phase: Phase,
    urgency: Urgency,
    /// The worker has ended and every event is settled.
    has_ended: bool,
    /// Calls that wait for that.
    end_waiters: Vec<oneshot::Sender<()>>,
    /// Calls that wait for room without blocking their thread.
    room_waiters: Vec<oneshot::Sender<()>>,
}

/// When the worker must attend to the queue again.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// When a batch is due.
    pub(crate) batch_due_at: Option<Instant>,
    /// When the first event of the oldest batch was added.
    pub(crate) oldest_at: Option<Instant>,
    /// When a deadline passes or memory can be released.
    pub(crate) timer_at: Option<Instant>,
}

pub(crate) struct EventQueue {
    options: QueueOptions,
    reporter: Reporter,
    state: Mutex<State>,
    /// Notified when there is work for the worker.
    worker: Arc<Notify>,
    /// Notified when there is room for events, or when the phase changes.
    changed: Condvar,
}

impl EventQueue {
    pub(crate) fn new(options: QueueOptions, reporter: Reporter, worker: Arc<Notify>) -> Self {
        let state = State {
            buffer: Buffer::new(options.batch),
            accounting: Accounting::default(),
            phase: Phase::Open,
            urgency: Urgency::default(),
            has_ended: false,
            end_waiters: Vec::new(),
            room_waiters: Vec::new(),
        };
        Self { options, reporter, state: Mutex::new(state), worker, changed: Condvar::new() }
    }

    pub(crate) fn options(&self) -> &QueueOptions {
        &self.options
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.state().accounting.stats.clone();
        self.reporter.describe(&mut stats);
        stats
    }

    /// Returns the buffer memory in use, in bytes.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.state().accounting.stats.pending_bytes
    }

    pub(crate) fn update_stats(&self, update: impl FnOnce(&mut Stats)) {
        update(&mut self.state().accounting.stats);
    }

    /// Counts the events that an earlier process left in the spool, and those
    /// that cannot be read any more. Returns the epoch of the former.
    pub(crate) fn recover(&self, found: u64, lost: &[LostInFile]) -> u64 {
        let epoch = {
            let mut state = self.state();
            for LostInFile { reason, events, .. } in lost {
                state.accounting.recover_lost(*reason, *events);
            }
            state.accounting.recover(found)
        };
        for LostInFile { reason, events, message } in lost {
            self.reporter.note_loss(*reason, message);
            self.reporter.report_unreadable(*reason, message, *events);
        }
        epoch
    }

    /// Removes what callers with deadlines asked for since the last call.
    pub(crate) fn take_urgency(&self) -> Urgency {
        std::mem::take(&mut self.state().urgency)
    }

    /// Returns when the first event of the oldest batch was added.
    pub(crate) fn oldest_at(&self) -> Option<Instant> {
        self.state().buffer.oldest_at()
    }

    /// Removes the oldest batch if its first event was added before `time`.
    pub(crate) fn take_older(&self, time: Instant) -> Option<Batch> {
        let mut state = self.state();
        state.buffer.oldest_at().filter(|oldest| *oldest <= time)?;
        state.buffer.take_oldest()
    }

    /// Removes the next batch that is due.
    pub(crate) fn take_due(&self, now: Instant) -> Option<Batch> {
        self.state().buffer.take_due(now)
    }

    /// Records that a batch is in the spool and releases its memory.
    pub(crate) fn spill(&self, batch: Batch) {
        let mut state = self.state();
        state.accounting.spill(batch.cost());
        let admitted = self.admit_waiters(&mut state);
        self.recycle(&mut state, batch);
        drop(state);
        drop(admitted);
    }

    /// Records that a batch of `cost` bytes was read back from the spool.
    pub(crate) fn refill(&self, cost: usize) {
        self.state().accounting.refill(cost);
    }

    /// Records that a batch remains in the spool after the client has ended.
    pub(crate) fn leave_in_spool(&self, mut batch: Batch) {
        batch.acknowledge(&Acknowledgement::Spooled);
        self.state().accounting.spill(batch.cost());
    }

    /// Counts spooled events that can no longer be read as lost.
    pub(crate) fn lose_unreadable(
        &self,
        epoch: u64,
        events: u64,
        acks: Acks,
        reason: LossReason,
        message: &str,
    ) {
        let outcome = Outcome::lost(reason, message);
        let resolved = {
            let mut state = self.state();
            state.accounting.settle(epoch, events, 0, &outcome);
            state.accounting.take_resolved()
        };
        drop(resolved);
        acks.send(&Acknowledgement::from(&outcome));
        self.reporter.note_loss(reason, message);
        self.reporter.report_unreadable(reason, message, events);
    }

    /// Counts the events of a batch, acknowledges them and reports losses.
    pub(crate) fn settle(&self, settled: SettledBatch) {
        self.settle_batch(settled, false);
    }

    /// `is_last` is true once the worker has ended: nothing is added to memory
    /// any more, so all losses can wait there for the hook.
    fn settle_batch(&self, settled: SettledBatch, is_last: bool) {
        let SettledBatch { mut batch, outcome } = settled;
        let (resolved, has_room) = {
            let mut state = self.state();
            let (count, cost) = (batch.len() as u64, batch.cost());
            state.accounting.settle(batch.epoch, count, cost, &outcome);
            let admitted = self.admit_waiters(&mut state);
            let has_room = state.accounting.stats.pending_bytes <= self.options.max_bytes / 2;
            ((state.accounting.take_resolved(), admitted), has_room)
        };
        // Wakes the callers, of which there can be thousands, outside the lock.
        drop(resolved);
        batch.acknowledge(&Acknowledgement::from(&outcome));
        let unused = match &outcome {
            Outcome::Delivered => {
                if has_room {
                    self.reporter.resolve(&[ProblemKind::Loss(LossReason::Overflow)]);
                }
                self.reporter.report_delivery(batch)
            }
            Outcome::Lost { reason, message } => {
                self.reporter.note_loss(*reason, message);
                self.reporter.report_batch(*reason, message, batch, is_last)
            }
        };
        if let Some(batch) = unused {
            self.recycle(&mut self.state(), batch);
        }
    }

    /// Releases idle memory. Returns `None` when the client is closing and
    /// everything is settled, or its deadline has passed.
    pub(crate) fn run_timers(&self, now: Instant) -> Option<Schedule> {
        let mut state = self.state();
        let mut timer_at = state.buffer.trim(now);
        if let Phase::Closing(deadline) = state.phase {
            if deadline <= now || state.accounting.stats.pending == 0 {
                return None;
            }
            timer_at = Some(timer_at.map_or(deadline, |at| at.min(deadline)));
        }
        let (batch_due_at, oldest_at) = (state.buffer.due_at(), state.buffer.oldest_at());
        Some(Schedule { batch_due_at, oldest_at, timer_at })
    }

    /// Wakes the threads that wait for room, once there is enough for several
    /// of them. Waking them for each batch would cost more. The calls that wait
    /// without blocking are returned; dropping them wakes them.
    #[must_use = "the calls are woken outside the lock"]
    fn admit_waiters(&self, state: &mut State) -> Vec<oneshot::Sender<()>> {
        let limit = self.options.max_bytes;
        if state.accounting.stats.pending_bytes > limit - limit / 8 {
            return Vec::new();
        }
        self.changed.notify_all();
        std::mem::take(&mut state.room_waiters)
    }

    /// Keeps the memory of a batch for later batches.
    fn recycle(&self, state: &mut State, batch: Batch) {
        let room = self.room_for_spares(state);
        state.buffer.recycle(batch, room, Instant::now());
    }

    /// Returns the memory that unused batches may occupy. Without a margin, a
    /// full buffer would release and allocate every batch.
    fn room_for_spares(&self, state: &State) -> usize {
        let limit = self.options.max_bytes + (self.options.max_bytes / 8).min(MAX_SPARE_BYTES);
        limit.saturating_sub(state.accounting.stats.pending_bytes)
    }
}

impl fmt::Debug for EventQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventQueue").field("options", &self.options).finish_non_exhaustive()
    }
}

#[cfg(all(test, eyego_loom))]
mod models;
