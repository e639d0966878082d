//! Flushing and closing the queue: the calls that wait until events are settled,
//! and the end of the worker.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::model::loss_reason::LossReason;
use crate::model::stats::Stats;
use crate::pipeline::batch::{Batch, Outcome, SettledBatch};
use crate::pipeline::event_queue::{EventQueue, Phase, State};
use crate::sync::wait_while;

impl EventQueue {
    /// Starts a flush of a caller that waits until `deadline`. Returns its epoch,
    /// and a channel that closes when all events accepted before this call are
    /// settled.
    pub(crate) fn flush(&self, deadline: Instant) -> (u64, oneshot::Receiver<()>) {
        let mut state = self.state();
        let epoch = state.buffer.end_epoch();
        let settled = state.accounting.wait(epoch);
        let ended = if matches!(state.phase, Phase::Closed(_)) {
            state.accounting.take_all()
        } else {
            Vec::new()
        };
        state.urgency.add(deadline);
        drop(state);
        drop(ended);
        self.worker.notify_one();
        (epoch, settled)
    }

    /// Returns the number of pending events up to the end of `epoch`, with the
    /// counts at that moment.
    pub(crate) fn pending_until(&self, epoch: u64) -> (u64, Stats) {
        let (pending, mut stats) = {
            let state = self.state();
            (state.accounting.pending_until(epoch), state.accounting.stats.clone())
        };
        self.reporter.describe(&mut stats);
        (pending, stats)
    }

    /// Stops accepting events. The returned channel closes when the worker has
    /// ended, which is soon after `deadline` at the latest. The earliest deadline
    /// of all calls applies.
    pub(crate) fn close(&self, deadline: Instant) -> oneshot::Receiver<()> {
        let (ended, receiver) = oneshot::channel();
        let mut state = self.state();
        let is_earliest = match state.phase {
            Phase::Open => true,
            Phase::Closing(earlier) => deadline < earlier,
            Phase::Closed(_) => false,
        };
        if is_earliest {
            state.phase = Phase::Closing(deadline);
            state.urgency.add(deadline);
            state.buffer.seal();
        }
        if !state.has_ended {
            state.end_waiters.push(ended);
        }
        let refused = std::mem::take(&mut state.room_waiters);
        drop(state);
        drop(refused);
        self.changed.notify_all();
        self.worker.notify_one();
        receiver
    }

    /// Blocks until the worker has ended or `timeout` has passed.
    pub(crate) fn wait_closed(&self, timeout: Duration) {
        let is_running = |state: &mut State| !state.has_ended;
        drop(wait_while(&self.changed, self.state(), timeout, is_running));
    }

    /// Closes the queue after the worker has ended. All buffered events and
    /// those in `batches` are lost.
    pub(crate) fn finish(&self, reason: LossReason, batches: Vec<Batch>, message: &str) {
        let mut lost = batches;
        {
            let mut state = self.state();
            state.phase = Phase::Closed(reason);
            lost.extend(std::iter::from_fn(|| state.buffer.take_oldest()));
        }
        for batch in lost {
            let outcome = Outcome::lost(reason, message);
            self.settle_batch(SettledBatch { batch, outcome }, true);
        }
        self.reporter.close();
        let mut state = self.state();
        state.has_ended = true;
        let ended = std::mem::take(&mut state.end_waiters);
        let refused = std::mem::take(&mut state.room_waiters);
        let waiters = (state.accounting.take_all(), ended, refused);
        drop(state);
        drop(waiters);
        self.changed.notify_all();
    }
}
