//! The worker's loop: from the subscription into bulks, and from what is
//! settled to what is committed.

use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;

use super::Persist;
use super::assignment::{Assignment, Settled};
use super::batcher::{Batcher, BulkLimits};
use crate::domain::queue::Partition;
use crate::domain::subscription::{Signal, Subscription};

/// While a bulk is under way each byte of a record stands in memory about this
/// often: as delivered, as an entry, as the store's document, in the request.
const COPIES: usize = 4;

/// How long the worker lets the queue's own buffer fill before it pauses it:
/// pausing throws the buffer away.
const HOLD_BEFORE_PAUSE: Duration = Duration::from_millis(500);

/// The longest wait for a record, so that everything else gets its turn.
const TURN: Duration = Duration::from_millis(100);

/// What the loop of one life holds.
pub(super) struct Work<'a> {
    persist: &'a Persist,
    subscription: Box<dyn Subscription>,
    batcher: Batcher,
    assignment: Assignment,
    done: mpsc::Sender<Settled>,
    settled: mpsc::Receiver<Settled>,
    full_since: Option<Instant>,
    is_paused: bool,
    last_commit: Instant,
    last_error: Option<String>,
}

impl<'a> Work<'a> {
    pub(super) fn begin(persist: &'a Persist, subscription: Box<dyn Subscription>) -> Self {
        let options = &persist.options;
        let (done, settled) = mpsc::channel();
        let per_bulk = options.max_bytes / COPIES / options.bulks_in_flight.max(1);
        let limits = BulkLimits {
            records: options.bulk_records,
            bytes: per_bulk.max(1),
            linger_busy: options.linger,
            linger_idle: Duration::from_millis(5),
            few: 8,
        };
        Self {
            persist,
            subscription,
            batcher: Batcher::new(limits, Instant::now()),
            assignment: Assignment::default(),
            done,
            settled,
            full_since: None,
            is_paused: false,
            last_commit: Instant::now(),
            last_error: None,
        }
    }

    /// Settles what is settled, takes what comes, sends off what is due.
    pub(super) fn turn(&mut self) {
        while let Ok(settled) = self.settled.try_recv() {
            self.assignment.complete(settled);
        }
        if self.last_commit.elapsed() >= self.persist.options.commit_interval {
            self.commit();
        }
        let now = Instant::now();
        let is_idle = self.assignment.bulks_in_flight() == 0;
        let patience = self.batcher.patience(now, is_idle);
        if self.assignment.bulks_in_flight() >= self.persist.options.bulks_in_flight {
            if self.batcher.is_full() {
                self.wait_for_room(now);
                return;
            }
        } else if patience == Some(Duration::ZERO) {
            self.dispatch();
        }
        self.full_since = None;
        if self.is_paused {
            self.resume();
        }
        self.poll(patience.filter(|patience| !patience.is_zero()).unwrap_or(TURN).min(TURN));
    }

    fn poll(&mut self, timeout: Duration) {
        let Self { subscription, batcher, assignment, persist, .. } = self;
        let status = &persist.settler.status;
        let now = Instant::now();
        let mut restarted = Vec::new();
        let mut is_consuming = false;
        let signal = subscription.poll(timeout, &mut |record| {
            is_consuming = true;
            if assignment.deliver(&record) {
                restarted.push(record.partition);
            }
            status.count_consumed();
            batcher.push(&record, now);
            if batcher.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        for partition in restarted {
            tracing::warn!(partition, "offsets begin again: the topic was created anew");
        }
        match signal {
            Ok(signal) => {
                // Silence says nothing: an error may come again with the next
                // attempt.
                is_consuming |= matches!(signal, Signal::Assigned(_));
                if is_consuming && let Some(error) = self.last_error.take() {
                    tracing::info!(error, "consuming works again");
                }
                self.handle(signal);
            }
            Err(error) => {
                let message = error.to_string();
                if self.last_error.as_deref() != Some(&message) {
                    tracing::warn!(%error, "cannot consume; trying again until it works");
                    self.last_error = Some(message);
                }
            }
        }
    }

    fn handle(&mut self, signal: Signal) {
        match signal {
            Signal::None => {}
            Signal::Assigned(partitions) => {
                tracing::info!(?partitions, "partitions assigned");
                self.assignment.assign(&partitions);
            }
            Signal::Revoked(partitions, within) => {
                tracing::info!(?partitions, "partitions revoked");
                self.drain(&partitions, Instant::now() + within);
                self.commit();
                self.let_go(&partitions);
            }
            Signal::Lost(partitions) => {
                tracing::warn!(?partitions, "partitions lost");
                self.let_go(&partitions);
            }
            Signal::Expired(partition, records) => {
                tracing::error!(
                    partition,
                    records,
                    "the queue lost records before they were stored: past its retention, or damaged"
                );
                self.persist.settler.status.count_expired(records);
            }
        }
    }

    /// Waits until nothing of these partitions is under way, or it is time.
    fn drain(&mut self, partitions: &[Partition], deadline: Instant) {
        self.dispatch();
        while !self.assignment.is_settled(partitions) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.settled.recv_timeout(left) {
                Ok(settled) => self.assignment.complete(settled),
                Err(_) => return,
            }
        }
    }

    fn let_go(&mut self, partitions: &[Partition]) {
        let gathered = self.batcher.discard(partitions) as u64;
        // What is under way comes to its end, and is counted then.
        let in_flight = self.assignment.remove(partitions);
        tracing::debug!(?partitions, gathered, in_flight, "partitions let go");
        self.persist.settler.status.count_released(gathered);
        self.subscription.release();
    }

    /// Sends the gathered records off to be settled.
    fn dispatch(&mut self) {
        let Some(bulk) = self.batcher.take() else { return };
        let slices = self.assignment.dispatch(&bulk);
        self.persist.settler.status.count_dispatched(bulk.len());
        let settler = Arc::clone(&self.persist.settler);
        let done = self.done.clone();
        self.persist.runtime.spawn(async move {
            // A panic must not look like a bulk that takes for ever: it is
            // loud, and the bulk is tried again.
            let tally = loop {
                match AssertUnwindSafe(settler.settle(&bulk)).catch_unwind().await {
                    Ok(tally) => break tally,
                    Err(_) => tracing::error!("a bulk panicked; trying it again"),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            };
            settler.status.count_settled(tally);
            // The receiver is gone only when the worker has ended.
            let _ = done.send(slices);
        });
    }

    /// No bulk may be sent off: waits for one to end, and keeps the queue
    /// content meanwhile.
    fn wait_for_room(&mut self, now: Instant) {
        let since = *self.full_since.get_or_insert(now);
        if let Ok(settled) = self.settled.recv_timeout(TURN / 2) {
            self.assignment.complete(settled);
            return;
        }
        if !self.is_paused && since.elapsed() >= HOLD_BEFORE_PAUSE {
            match self.subscription.pause() {
                Ok(()) => self.is_paused = true,
                Err(error) => tracing::warn!(%error, "cannot pause the queue"),
            }
        }
        if self.is_paused {
            self.poll(Duration::ZERO);
        }
    }

    fn resume(&mut self) {
        match self.subscription.resume() {
            Ok(()) => self.is_paused = false,
            Err(error) => tracing::warn!(%error, "cannot resume the queue"),
        }
    }

    fn commit(&mut self) {
        self.last_commit = Instant::now();
        self.commit_what_is_settled();
        let status = &self.persist.settler.status;
        let lag = self.subscription.lag();
        if let Some(retention) = self.subscription.retention() {
            let now = SystemTime::now().into();
            status.set_retention_left(self.assignment.retention_left(retention, &lag, now));
        }
        status.set_lag(lag);
    }

    fn commit_what_is_settled(&mut self) {
        let next_offsets = self.assignment.uncommitted();
        if next_offsets.is_empty() {
            return;
        }
        match self.subscription.commit(&next_offsets) {
            Ok(()) => self.assignment.committed(&next_offsets),
            // The next commit makes good for it.
            Err(error) => tracing::warn!(%error, "cannot commit offsets"),
        }
    }

    /// Settles what is under way, commits, leaves.
    pub(super) fn finish(mut self, deadline: Instant) {
        let partitions = self.assignment.partitions();
        self.drain(&partitions, deadline);
        self.commit();
        self.subscription.close();
    }
}
