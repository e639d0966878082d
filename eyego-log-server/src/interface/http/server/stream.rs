//! The byte stream of a connection, between hyper and the socket.
//!
//! It does two things that hyper does not: it closes the connection of a client
//! that reads its response too slowly, and it suppresses the responses without a
//! body that hyper writes itself, so that they can be replaced by one with the
//! envelope.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::interface::http::connections::{Activity, Phase};

/// Window in which the rate is measured at which a client reads a response.
pub(super) const READ_WINDOW: Duration = Duration::from_secs(30);

/// Bytes that a client must read in each window while more of its response is
/// pending: 32 KiB/s. A window is long because the kernel reports free space only
/// once a third of its buffer, up to 1.3 MiB, has been read.
pub(super) const MIN_WINDOW_BYTES: usize = 30 * (32 << 10);

/// A stream that enforces the rate at which its peer reads, and reports to an
/// [`Activity`].
#[derive(Debug)]
pub(super) struct ObservedStream<S> {
    inner: S,
    activity: Arc<Activity>,
    /// The current window, while the peer does not read all that is written.
    window: Option<Window>,
    /// Fires at the end of the window. Kept to be used again.
    timer: Option<Pin<Box<Sleep>>>,
    /// Status of the response that hyper wrote itself.
    suppressed: Option<u16>,
}

#[derive(Debug)]
struct Window {
    end: Instant,
    written: usize,
}

impl<S> ObservedStream<S> {
    pub(super) fn new(inner: S, activity: Arc<Activity>) -> Self {
        Self { inner, activity, window: None, timer: None, suppressed: None }
    }

    /// Returns the stream and the status of the response that hyper wrote itself,
    /// if it did.
    pub(super) fn into_inner(self) -> (S, Option<u16>) {
        (self.inner, self.suppressed)
    }

    /// Without a request, hyper writes only responses of its own: to a head that
    /// it cannot parse.
    fn suppresses(&mut self, bytes: &[u8]) -> bool {
        if self.activity.phase() != Phase::Waiting {
            return false;
        }
        // `HTTP/1.1 400 Bad Request`
        let digits = bytes.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        let status = digits.and_then(|digits| digits.parse().ok()).unwrap_or(400);
        self.suppressed.get_or_insert(status);
        true
    }

    /// Takes note of the result of a write. Fails if the peer reads too slowly.
    fn after_write(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match (&result, &mut self.window) {
            (Poll::Ready(Ok(written)), Some(window)) => window.written += written,
            (Poll::Pending, _) => ready!(self.poll_window(context))?,
            _ => {}
        }
        result
    }

    /// Starts or checks the window while the peer reads nothing. Is pending unless
    /// it fails.
    fn poll_window(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity.set_blocked(true);
        let now = Instant::now();
        let window =
            self.window.get_or_insert_with(|| Window { end: now + READ_WINDOW, written: 0 });
        if window.end <= now {
            if window.written < MIN_WINDOW_BYTES {
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            *window = Window { end: now + READ_WINDOW, written: 0 };
        }
        let end = window.end;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        if timer.as_mut().poll(context).is_ready() {
            // The end of the window has just passed: check it.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ObservedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ObservedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.suppresses(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.after_write(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.suppresses(slices.first().map_or(&[][..], |first| first)) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let result = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.after_write(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper calls this once it has written everything it has.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        if self.window.take().is_some() {
            self.activity.set_blocked(false);
        }
        if self.activity.phase() == Phase::Flushing {
            self.activity.enter(Phase::Waiting);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.suppressed.is_some() {
            // A response with the envelope follows.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
