//! How fast a connection's requests come: for how long it has been idle, or a
//! head has been on its way.
//!
//! hyper's own timer is set anew for each request; this is two atomic stores,
//! looked at once a second.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// For a request's head to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may send nothing between two requests. Longer than
/// most proxies keep theirs: who closes first should be the one who asks.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Waits for a request.
const WAITING: u8 = 0;
/// Has sent a part of a head.
const IN_HEAD: u8 = 1;
/// Is being answered; its body has timers of its own.
const ANSWERING: u8 = 2;

/// The pace of one connection.
#[derive(Debug)]
pub(super) struct Pace {
    opened: Instant,
    state: AtomicU8,
    /// Milliseconds after `opened` at which the state began.
    since: AtomicU64,
}

/// What is to be done with a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    Idle,
    HeadTooSlow,
}

impl Pace {
    pub(super) fn start() -> Self {
        Self { opened: Instant::now(), state: AtomicU8::new(WAITING), since: AtomicU64::new(0) }
    }

    // Relaxed is enough throughout: one task reads and writes all of it.

    fn enter(&self, state: u8) {
        let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(since, Ordering::Relaxed);
        self.state.store(state, Ordering::Relaxed);
    }

    fn bytes_came(&self) {
        if self.state.load(Ordering::Relaxed) == WAITING {
            self.enter(IN_HEAD);
        }
    }

    /// An answer that is read slowly is not idle.
    fn bytes_went(&self) {
        if self.state.load(Ordering::Relaxed) == WAITING {
            self.enter(WAITING);
        }
    }

    pub(super) fn head_is_here(&self) {
        self.state.store(ANSWERING, Ordering::Relaxed);
    }

    pub(super) fn is_answered(&self) {
        self.enter(WAITING);
    }

    pub(super) fn verdict(&self) -> Verdict {
        let since = Duration::from_millis(self.since.load(Ordering::Relaxed));
        let elapsed = self.opened.elapsed().saturating_sub(since);
        match self.state.load(Ordering::Relaxed) {
            WAITING if elapsed > IDLE_TIMEOUT => Verdict::Idle,
            IN_HEAD if elapsed > HEAD_TIMEOUT => Verdict::HeadTooSlow,
            _ => Verdict::Fine,
        }
    }
}

/// A stream that tells its pace when bytes come.
pub(super) struct Paced {
    stream: TcpStream,
    pace: Arc<Pace>,
}

impl Paced {
    pub(super) fn new(stream: TcpStream, pace: Arc<Pace>) -> Self {
        Self { stream, pace }
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pace.bytes_came();
        }
        result
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pace.bytes_went();
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pace.bytes_went();
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
