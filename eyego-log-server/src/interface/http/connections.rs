//! The open connections and their limit (ADR 0024).

mod activity;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

pub(super) use self::activity::{Activity, Phase, TrackedBody};
use crate::domain::repeated::Repeated;

/// Interval between log lines about the limit.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Longest wait for evicted connections to close before the next one is accepted.
const MAX_SETTLE: Duration = Duration::from_millis(100);

/// The open connections and their limit.
///
/// At the limit, a new connection takes the place of the one that has been idle for
/// the longest time. If none is idle, a few more connections are accepted, which are
/// served only health and metrics. All others are refused.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    /// Connections above `max` that are accepted for health and metrics.
    reserve: usize,
    open: Mutex<Open>,
    evicted: AtomicU64,
    refused: AtomicU64,
    /// Notified when a connection ends.
    closed: Notify,
    warnings: Mutex<Repeated>,
}

#[derive(Debug, Default)]
struct Open {
    next_number: u64,
    /// By number of the connection: its activity, and whether it is in the reserve.
    activities: HashMap<u64, (Arc<Activity>, bool)>,
    /// Number of connections in the reserve.
    reserved: usize,
}

/// Snapshot of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Open connections.
    pub open: u64,
    /// Idle connections that were closed to make room for others.
    pub evicted: u64,
    /// Connections that were refused.
    pub refused: u64,
}

/// An accepted connection. It counts as open until this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    connections: Arc<Connections>,
    number: u64,
    is_reserved: bool,
    pub(super) activity: Arc<Activity>,
}

impl Connections {
    /// Creates a limit of `max` connections, and of `reserve` more for health and
    /// metrics.
    #[must_use]
    pub fn new(max: usize, reserve: usize) -> Self {
        Self {
            max,
            reserve,
            open: Mutex::default(),
            evicted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            closed: Notify::new(),
            warnings: Mutex::new(Repeated::every(REPORT_INTERVAL)),
        }
    }

    /// Returns a snapshot.
    #[must_use]
    pub fn counts(&self) -> ConnectionCounts {
        ConnectionCounts {
            open: self.open.lock().activities.len() as u64,
            evicted: self.evicted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Returns the limit without the reserve.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Admits a new connection, or returns `None` if it must be refused.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Slot> {
        let mut open = self.open.lock();
        let mut is_reserved = false;
        if open.activities.len() - open.reserved >= self.max {
            self.warn();
            if !self.evict_idle(&open, false) {
                if open.reserved >= self.reserve && !self.evict_idle(&open, true) {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                is_reserved = true;
                open.reserved += 1;
            }
        }
        let number = open.next_number;
        open.next_number += 1;
        let activity = Arc::new(Activity::default());
        open.activities.insert(number, (Arc::clone(&activity), is_reserved));
        drop(open);
        Some(Slot { connections: Arc::clone(self), number, is_reserved, activity })
    }

    /// Waits briefly while more connections are open than the limit allows, because
    /// those that were asked to close are still open.
    pub(super) async fn settled(&self) {
        let is_above = || {
            let open = self.open.lock();
            open.activities.len() - open.reserved > self.max
        };
        let settle = async {
            while is_above() {
                self.closed.notified().await;
            }
        };
        let _ = timeout(MAX_SETTLE, settle).await;
    }

    /// Asks the connection, inside or outside of the reserve, that has been idle for
    /// the longest time to close. Returns `false` if none is idle.
    fn evict_idle(&self, open: &Open, in_reserve: bool) -> bool {
        let candidates = open.activities.values().filter(|(_, reserved)| *reserved == in_reserve);
        let idle = candidates.filter_map(|(a, _)| Some((a.idle_since()?, a)));
        let Some((_, activity)) = idle.min_by_key(|(since, _)| *since) else { return false };
        activity.evict();
        self.evicted.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn warn(&self) {
        if let Some(count) = self.warnings.lock().note("limit", 1, Instant::now()) {
            tracing::warn!(
                count,
                max = self.max,
                "the limit of connections is reached: idle ones are closed, and new ones refused \
                 if none is idle; see EYEGO_MAX_CONNECTIONS"
            );
        }
    }

    /// Takes note of a failed `accept`. It may have failed for lack of file
    /// descriptors, so that closing an idle connection helps.
    pub(super) fn accept_failed(&self, error: &std::io::Error) {
        self.evict_idle(&self.open.lock(), false);
        if let Some(count) = self.warnings.lock().note("accept", 1, Instant::now()) {
            tracing::warn!(count, %error, "cannot accept connections");
        }
    }
}

impl Slot {
    /// Returns whether only health and metrics are served on this connection.
    pub(super) fn is_reserved(&self) -> bool {
        self.is_reserved
    }

    pub(super) fn max(&self) -> usize {
        self.connections.max()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        open.activities.remove(&self.number);
        open.reserved -= usize::from(self.is_reserved);
        drop(open);
        self.connections.closed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_connections_make_room_and_then_the_reserve_is_used() {
        let connections = Arc::new(Connections::new(2, 1));
        let admit = || connections.admit();
        let (first, second) = (admit().unwrap(), admit().unwrap());
        first.activity.enter(Phase::Handling);
        let third = admit().unwrap();
        assert!(!third.is_reserved());
        second.activity.evicted().await;
        drop(second);

        third.activity.enter(Phase::Responding);
        let reserved = admit().unwrap();
        assert!(reserved.is_reserved());
        reserved.activity.enter(Phase::Handling);
        assert!(admit().is_none());
        drop(first);
        assert!(!admit().unwrap().is_reserved());
        let counts = connections.counts();
        assert_eq!(counts, ConnectionCounts { open: 2, evicted: 1, refused: 1 });
    }

    #[tokio::test]
    async fn connection_that_was_idle_longest_is_closed_first() {
        let connections = Arc::new(Connections::new(2, 0));
        let slots = [connections.admit().unwrap(), connections.admit().unwrap()];
        std::thread::sleep(Duration::from_millis(5));
        slots[0].activity.enter(Phase::Waiting);
        let _third = connections.admit().unwrap();
        slots[1].activity.evicted().await;
    }
}
