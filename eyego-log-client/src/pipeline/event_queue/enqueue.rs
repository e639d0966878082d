//! The callers' side of the queue: an event is buffered, or refused and
//! counted as lost.

use std::time::{Duration, Instant};

use crate::model::errors::LogError;
use crate::model::loss_reason::LossReason;
use crate::pipeline::batch::{Ack, Batch, Outcome, SettledBatch};
use crate::pipeline::event_queue::{EventQueue, Overflow, Phase, State};
use crate::sync::{MutexGuard, wait_while};

impl EventQueue {
    /// Adds an encoded event to the buffer. `ack` is completed when the event
    /// is settled.
    ///
    /// # Errors
    /// Returns [`LogError::Full`] if there is no room, or [`LogError::Closed`]
    /// if the client is shut down.
    pub(crate) fn enqueue(&self, line: &[u8], ack: Option<Ack>) -> Result<(), LogError> {
        let cost = Batch::cost_of(line.len());
        let mut state = self.state();
        if state.phase == Phase::Open && !self.has_room(&state, cost) {
            state = self.make_room(state, cost, ack.is_none());
        }
        let refusal = match state.phase {
            Phase::Open if self.has_room(&state, cost) => None,
            Phase::Open => Some((LossReason::Overflow, LogError::Full)),
            Phase::Closing(_) => Some((LossReason::Shutdown, LogError::Closed)),
            Phase::Closed(reason) => Some((reason, LogError::Closed)),
        };
        if let Some((reason, error)) = refusal {
            self.refuse(state, line, reason);
            return Err(error);
        }
        state.urgency.attempt_wanted |= ack.is_some();
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
