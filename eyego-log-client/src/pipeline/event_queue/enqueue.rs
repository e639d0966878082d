//! The callers' side: an event gets into the buffer, or is refused and counted.

use std::time::{Duration, Instant};

use eyego_log_core::LogId;
use serde::Serialize;

use super::{Phase, Shared, State};
use crate::batch::{Ack, Batch};
use crate::config::Overflow;
use crate::dispatch::Settled;
use crate::encode;
use crate::error::LogError;
use crate::event::Event;
use crate::ledger::Fate;
use crate::loss::{Lines, LossReason};
use crate::sync::{MutexGuard, wait_while};

impl Shared {
    /// Takes an event; who waits for its end hands in `ack`.
    pub(crate) fn take<M: Serialize>(
        &self,
        event: &Event<'_, M>,
        ack: Option<Ack>,
    ) -> Result<LogId, LogError> {
        encode::with_line(event, &self.ids, self.config.max_event_bytes, |id, line| {
            self.enqueue(line, ack)?;
            Ok(id)
        })
    }

    pub(super) fn enqueue(&self, line: &[u8], ack: Option<Ack>) -> Result<(), LogError> {
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
        let epoch = state.buffer.epoch();
        state.ledger.accept(epoch, cost);
        let is_news = state.buffer.push(line, ack, Instant::now);
        drop(state);
        if is_news {
            self.news.notify_one();
        }
        Ok(())
    }

    /// Counts an event that is not taken, and tells those who want to know:
    /// cheaply, since it may be one of millions.
    fn refuse(&self, mut state: MutexGuard<'_, State>, line: &[u8], reason: LossReason) {
        let message = match reason {
            LossReason::Overflow => "the buffer was full",
            _ => "the client was shut down",
        };
        state.ledger.refuse(reason);
        let is_new = state.problems.lost(reason, message);
        drop(state);
        if is_new {
            self.news.notify_one();
        }
        let end = [u32::try_from(line.len()).unwrap_or(u32::MAX)];
        self.tell_loss(reason, message, Lines { bytes: line, ends: &end });
    }

    fn has_room(&self, state: &State, cost: usize) -> bool {
        state.ledger.stats.pending_bytes + cost <= self.config.max_buffer_bytes
    }

    /// Does what the overflow policy says; there may be no room afterwards.
    fn make_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        cost: usize,
        may_block: bool,
    ) -> MutexGuard<'a, State> {
        match self.config.overflow {
            Overflow::Block(timeout) if may_block => self.wait_for_room(state, cost, timeout),
            Overflow::DropOldest => {
                while !self.has_room(&state, cost) {
                    let Some(batch) = state.buffer.take_oldest() else { break };
                    drop(state);
                    let fate = Fate::Lost(LossReason::Overflow);
                    let message = "the buffer was full and the oldest gave way".to_owned();
                    self.settle(Settled { batch, fate, message });
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
        // The worker may be waiting for a batch to become old enough.
        self.news.notify_one();
        let is_full = |state: &mut State| state.phase == Phase::Open && !self.has_room(state, cost);
        wait_while(&self.change, state, timeout, is_full)
    }
}
