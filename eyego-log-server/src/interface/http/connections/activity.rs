//! What a connection is doing, as seen by its parts and by the accept loop.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The reference of [`Activity::idle_since`].
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The phases of a request, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::interface::http) enum Phase {
    /// No request: its head has not arrived completely.
    Waiting,
    /// The handler runs, and may still receive the body.
    Handling,
    /// hyper has the response, but not all of its body.
    Responding,
    /// hyper has the whole response, but may not have written all of it.
    Flushing,
}

/// The activity of one connection.
#[derive(Debug)]
pub(in crate::interface::http) struct Activity {
    phase: AtomicU8,
    /// Milliseconds from [`START`] until the connection began to wait.
    idle_since: AtomicU64,
    /// Whether the client has not read all of what was written.
    is_blocked: AtomicBool,
    /// Whether the accept loop has asked to close this connection.
    is_evicted: AtomicBool,
    evict: Notify,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Waiting as u8),
            idle_since: AtomicU64::new(now()),
            is_blocked: AtomicBool::new(false),
            is_evicted: AtomicBool::new(false),
            evict: Notify::new(),
        }
    }
}

fn now() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Activity {
    pub(in crate::interface::http) fn phase(&self) -> Phase {
        let phase = self.phase.load(Ordering::Acquire);
        [Phase::Waiting, Phase::Handling, Phase::Responding]
            .into_iter()
            .find(|known| *known as u8 == phase)
            .unwrap_or(Phase::Flushing)
    }

    pub(in crate::interface::http) fn enter(&self, phase: Phase) {
        if phase == Phase::Waiting {
            self.idle_since.store(now(), Ordering::Relaxed);
        }
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(in crate::interface::http) fn set_blocked(&self, is_blocked: bool) {
        self.is_blocked.store(is_blocked, Ordering::Release);
    }

    /// Returns whether something was written that the client has not read.
    pub(in crate::interface::http) fn is_blocked(&self) -> bool {
        self.is_blocked.load(Ordering::Acquire)
    }

    /// Returns when the connection began to wait for a request, in milliseconds
    /// from an arbitrary point, if it waits and was not evicted.
    pub(in crate::interface::http) fn idle_since(&self) -> Option<u64> {
        let is_idle = self.phase() == Phase::Waiting && !self.is_evicted.load(Ordering::Relaxed);
        is_idle.then(|| self.idle_since.load(Ordering::Relaxed))
    }

    /// Returns for how long the connection has been waiting for a request.
    pub(in crate::interface::http) fn idle_time(&self) -> Duration {
        let since = self.idle_since.load(Ordering::Relaxed);
        Duration::from_millis(now().saturating_sub(since))
    }

    /// Asks the connection to close, unless it is serving a request.
    pub(in crate::interface::http) fn evict(&self) {
        self.is_evicted.store(true, Ordering::Relaxed);
        self.evict.notify_one();
    }

    /// Waits until [`evict`](Self::evict) is called.
    pub(in crate::interface::http) async fn evicted(&self) {
        self.evict.notified().await;
        self.is_evicted.store(false, Ordering::Relaxed);
    }
}

/// The body of a response, which reports that hyper has all of it.
#[derive(Debug)]
pub(in crate::interface::http) struct TrackedBody {
    body: Body,
    activity: Arc<Activity>,
}

impl TrackedBody {
    pub(in crate::interface::http) fn new(body: Body, activity: Arc<Activity>) -> Self {
        Self { body, activity }
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.activity.enter(Phase::Flushing);
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
