//! The callers' side of the queue: an event is buffered, or refused and
//! counted as lost.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::model::errors::LogError;
use crate::model::loss_reason::LossReason;
use crate::model::overflow::Overflow;
use crate::pipeline::batch::{Ack, Batch, Outcome, SettledBatch};
use crate::pipeline::event_queue::{EventQueue, Phase, State};
use crate::sync::{MutexGuard, wait_while};

/// Why an event was not added to the buffer. The lock is still held.
struct Refusal<'a> {
    state: MutexGuard<'a, State>,
    reason: LossReason,
    error: LogError,
}

/// The number of callers that wait for room from which on those that gave up are
/// removed.
const MIN_CLEANUP: usize = 64;

impl EventQueue {
    /// Adds an encoded event to the buffer, or counts it as lost. `ack` is
    /// completed when the event is settled.
    ///
    /// # Errors
    /// Returns [`LogError::Full`] if there is no room, or [`LogError::Closed`]
    /// if the client is shut down.
    pub(crate) fn enqueue(&self, line: &[u8], ack: Option<Ack>) -> Result<(), LogError> {
        let may_block = ack.is_none();
        self.offer(line, ack, may_block).map_err(|refusal| self.count(refusal, line))
    }

    /// Adds an encoded event to the buffer without blocking, or counts it as lost.
    ///
    /// # Errors
    /// Returns the errors of [`enqueue`](Self::enqueue).
    pub(crate) fn enqueue_now(&self, line: &[u8]) -> Result<(), LogError> {
        self.offer(line, None, false).map_err(|refusal| self.count(refusal, line))
    }

    /// Adds an encoded event to the buffer without blocking. Counts nothing if it
    /// is not added, because the caller still has the event.
    ///
    /// # Errors
    /// Returns the errors of [`enqueue`](Self::enqueue).
    pub(crate) fn try_enqueue(&self, line: &[u8]) -> Result<(), LogError> {
        self.offer(line, None, false).map_err(|refusal| refusal.error)
    }

    /// Adds an encoded event to the buffer without blocking. If there is no room,
    /// returns a channel that closes when it is worth trying again.
    ///
    /// # Errors
    /// Returns [`LogError::Closed`], and counts the event as lost, if the client
    /// is shut down.
    pub(crate) fn enqueue_or_wait(
        &self,
        line: &[u8],
    ) -> Result<Option<oneshot::Receiver<()>>, LogError> {
        match self.offer(line, None, false) {
            Ok(()) => Ok(None),
            Err(Refusal { mut state, error: LogError::Full, .. }) => {
                let (room, receiver) = oneshot::channel();
                let waiting = &mut state.room_waiters;
                if waiting.len() >= MIN_CLEANUP && waiting.len().is_power_of_two() {
                    waiting.retain(|waiter| !waiter.is_closed());
                }
                waiting.push(room);
                drop(state);
                // The worker may be waiting for a batch to linger long enough.
                self.worker.notify_one();
                Ok(Some(receiver))
            }
            Err(refusal) => Err(self.count(refusal, line)),
        }
    }

    /// Counts an event that waited for room in vain as lost.
    pub(crate) fn give_up(&self, line: &[u8]) {
        self.refuse(self.state(), line, LossReason::Overflow);
    }

    fn offer(&self, line: &[u8], ack: Option<Ack>, may_block: bool) -> Result<(), Refusal<'_>> {
        let cost = Batch::cost_of(line.len());
        let mut state = self.state();
        if state.phase == Phase::Open && !self.has_room(&state, cost) {
            state = self.make_room(state, cost, may_block);
        }
        let refusal = match state.phase {
            Phase::Open if self.has_room(&state, cost) => None,
            Phase::Open => Some((LossReason::Overflow, LogError::Full)),
            Phase::Closing(_) => Some((LossReason::Shutdown, LogError::Closed)),
            Phase::Closed(reason) => Some((reason, LogError::Closed)),
        };
        if let Some((reason, error)) = refusal {
            return Err(Refusal { state, reason, error });
        }
        if ack.is_some() {
            state.urgency.attempt_wanted = true;
        }
        let pushed = state.buffer.push(line, ack, Instant::now);
        state.accounting.accept(pushed.epoch, cost);
        if pushed.must_notify {
            let room = self.room_for_spares(&state);
            state.buffer.limit_spares(room);
        }
        drop(state);
        if pushed.must_notify {
            self.worker.notify_one();
        }
        Ok(())
    }

    /// Counts a refused event as lost and returns its error.
    fn count(&self, Refusal { state, reason, error }: Refusal<'_>, line: &[u8]) -> LogError {
        self.refuse(state, line, reason);
        error
    }

    /// Counts and reports an event that is not accepted. Millions of events can
    /// be refused in a row, so this does not allocate.
    fn refuse(&self, mut state: MutexGuard<'_, State>, line: &[u8], reason: LossReason) {
        let message = match reason {
            LossReason::Overflow => "the buffer was full",
            _ => "the client was shut down",
        };
        state.accounting.refuse(reason);
        drop(state);
        self.reporter.note_loss(reason, message);
        self.reporter.report_line(reason, message, line);
    }

    fn has_room(&self, state: &State, cost: usize) -> bool {
        state.accounting.stats.pending_bytes + cost <= self.options.max_bytes
    }

    /// Applies the overflow policy, which does not always make room.
    fn make_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        cost: usize,
        may_block: bool,
    ) -> MutexGuard<'a, State> {
        match self.options.overflow {
            Overflow::Block(timeout) if may_block => self.wait_for_room(state, cost, timeout),
            Overflow::DropOldest => {
                while !self.has_room(&state, cost) {
                    let Some(batch) = state.buffer.take_oldest() else { break };
                    drop(state);
                    let message = "the buffer was full and the oldest batch was dropped";
                    let outcome = Outcome::lost(LossReason::Overflow, message);
                    self.settle(SettledBatch { batch, outcome });
                    state = self.state();
                }
                state
            }
            Overflow::DropNewest | Overflow::Block(_) => state,
        }
    }

    fn wait_for_room<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        cost: usize,
        timeout: Duration,
    ) -> MutexGuard<'a, State> {
        // The worker may be waiting for a batch to linger long enough.
        self.worker.notify_one();
        let is_full = |state: &mut State| state.phase == Phase::Open && !self.has_room(state, cost);
        wait_while(&self.changed, state, timeout, is_full)
    }
}
