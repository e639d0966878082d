//! How fast a connection's requests come: whether it has been idle for too
//! long, or a head on its way.
//!
//! hyper's own timer is set anew for each request. Here a request only counts
//! up; once a second all connections are looked at, and one whose count stands
//! still for too long is told.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// How often the connections are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// For a request's head to arrive, in looks.
const HEAD_TIMEOUT: u32 = 10;

/// How long a connection may send nothing between two requests, in looks.
/// Longer than most proxies keep theirs: who closes first should be the one who
/// asks.
const IDLE_TIMEOUT: u32 = 75;

/// Waits for a request.
const WAITING: u8 = 0;
/// Has sent a part of a head.
const IN_HEAD: u8 = 1;
/// Is being answered; its body has timers of its own.
const ANSWERING: u8 = 2;

/// What a connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// The server stops: no more requests.
    Stop,
    /// It has been idle for too long.
    Idle,
    /// A head has been on its way for too long.
    HeadTooSlow,
}

/// The pace of one connection.
#[derive(Debug, Default)]
pub(super) struct Pace {
    state: AtomicU8,
    /// Counts the changes of the state.
    turn: AtomicU32,
    call: Mutex<Option<Call>>,
    is_called: AtomicWaker,
}

impl Pace {
    // Relaxed is enough: only the connection's own task writes these two, and
    // who looks at them may be late.

    fn enter(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
        self.turn.store(self.turn.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
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
        self.enter(ANSWERING);
    }

    pub(super) fn is_answered(&self) {
        self.enter(WAITING);
    }

    /// What is to be said of a connection whose turn has stood still at so many
    /// looks.
    fn verdict(&self, unchanged: u32) -> Option<Call> {
        match self.state.load(Ordering::Relaxed) {
            WAITING if unchanged > IDLE_TIMEOUT => Some(Call::Idle),
            IN_HEAD if unchanged > HEAD_TIMEOUT => Some(Call::HeadTooSlow),
            _ => None,
        }
    }

    fn call(&self, call: Call) {
        *self.call.lock() = Some(call);
        self.is_called.wake();
    }

    /// Ready when there is something to be told.
    pub(super) fn poll_call(&self, cx: &Context<'_>) -> Poll<Call> {
        self.is_called.register(cx.waker());
        self.take_call().map_or(Poll::Pending, Poll::Ready)
    }

    /// The call, unless what it was about has passed: between it and this the
    /// connection may have read a request.
    fn take_call(&self) -> Option<Call> {
        let state = self.state.load(Ordering::Relaxed);
        self.call.lock().take().filter(|call| match call {
            Call::Stop => true,
            Call::Idle => state == WAITING,
            Call::HeadTooSlow => state == IN_HEAD,
        })
    }
}

/// Looks at the connections of one runtime.
#[derive(Debug, Default)]
pub(super) struct Watchman {
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    connections: Vec<Seen>,
    is_stopping: bool,
}

#[derive(Debug)]
struct Seen {
    pace: Weak<Pace>,
    turn: u32,
    unchanged: u32,
}

impl Watchman {
    /// A connection begins.
    pub(super) fn admit(&self) -> Arc<Pace> {
        let pace = Arc::new(Pace::default());
        let mut watched = self.watched.lock();
        if watched.is_stopping {
            pace.call(Call::Stop);
        }
        let seen = Seen { pace: Arc::downgrade(&pace), turn: 0, unchanged: 0 };
        watched.connections.push(seen);
        pace
    }

    /// How many connections there are, or were when they were last looked at.
    pub(super) fn connections(&self) -> usize {
        self.watched.lock().connections.len()
    }

    /// Watches; tells all of them when `stop` turns true.
    pub(super) async fn watch(&self, mut stop: watch::Receiver<bool>) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop), if !self.is_stopping() => self.stop(),
                _ = look.tick() => self.look(),
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.watched.lock().is_stopping
    }

    fn stop(&self) {
        let mut watched = self.watched.lock();
        watched.is_stopping = true;
        for pace in watched.connections.iter().filter_map(|seen| seen.pace.upgrade()) {
            pace.call(Call::Stop);
        }
    }

    fn look(&self) {
        self.watched.lock().connections.retain_mut(|seen| {
            let Some(pace) = seen.pace.upgrade() else { return false };
            let turn = pace.turn.load(Ordering::Relaxed);
            seen.unchanged = if turn == seen.turn { seen.unchanged + 1 } else { 0 };
            seen.turn = turn;
            if let Some(call) = pace.verdict(seen.unchanged) {
                pace.call(call);
            }
            true
        });
    }
}

/// A stream that tells its pace when bytes come and go.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(watchman: &Watchman, times: u32) {
        for _ in 0..times {
            watchman.look();
        }
    }

    #[test]
    fn who_stands_still_is_told() {
        let watchman = Watchman::default();
        let (idle, busy, slow, answering) =
            (watchman.admit(), watchman.admit(), watchman.admit(), watchman.admit());
        slow.bytes_came();
        answering.bytes_came();
        answering.head_is_here();
        looks(&watchman, 1 + HEAD_TIMEOUT);
        slow.bytes_came();
        assert_eq!(slow.take_call(), None);
        looks(&watchman, 1);
        assert_eq!(slow.take_call(), Some(Call::HeadTooSlow), "more of a head is no new head");
        for _ in 0..IDLE_TIMEOUT {
            busy.bytes_came();
            busy.head_is_here();
            busy.is_answered();
            looks(&watchman, 1);
        }
        assert_eq!(idle.take_call(), Some(Call::Idle));
        assert_eq!((busy.take_call(), answering.take_call()), (None, None));
    }

    #[test]
    fn who_sends_a_request_after_all_is_not_cut_off() {
        let watchman = Watchman::default();
        let (idle, slow) = (watchman.admit(), watchman.admit());
        slow.bytes_came();
        looks(&watchman, 2 + IDLE_TIMEOUT);
        idle.bytes_came();
        slow.head_is_here();
        assert_eq!((idle.take_call(), slow.take_call()), (None, None));
    }

    #[test]
    fn an_answer_that_is_read_slowly_is_not_idle() {
        let watchman = Watchman::default();
        let pace = watchman.admit();
        for _ in 0..2 * IDLE_TIMEOUT {
            pace.bytes_went();
            looks(&watchman, 1);
        }
        assert_eq!(pace.take_call(), None);
    }

    #[test]
    fn all_are_told_of_the_stop_and_the_dead_are_forgotten() {
        let watchman = Watchman::default();
        let first = watchman.admit();
        watchman.stop();
        let second = watchman.admit();
        assert_eq!((first.take_call(), second.take_call()), (Some(Call::Stop), Some(Call::Stop)));
        drop(first);
        looks(&watchman, 1);
        assert_eq!(watchman.connections(), 1);
    }
}
