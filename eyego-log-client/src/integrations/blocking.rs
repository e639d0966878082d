//! The calls that wait, for threads without async (feature `blocking`).
//!
//! [`Client`](crate::Client) itself needs none of this to log: only what is
//! awaited there blocks here. Both may be used beside each other, for one and
//! the same client. These calls block their thread: do not make them on a
//! thread of an async runtime. They need no runtime and never panic for the
//! lack of one, or for its presence.
//!
//! ```no_run
//! use eyego_log_client::{Client, Event, blocking};
//!
//! let client = Client::builder("http://localhost:3000").build()?;
//! client.log(Event::new("user-123", "LOGIN"))?;
//! for log in blocking::iter(client.logs().user("user-123")) {
//!     println!("{}", log?.action);
//! }
//! let report = blocking::wait(client.shutdown());
//! assert!(report.is_complete());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use eyego_log_core::LogEntry;

use crate::error::ReadError;
use crate::query::{LogStream, Logs};

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks the thread until this is done: one of the client's own futures, such
/// as [`Client::flush`](crate::Client::flush),
/// [`Client::send`](crate::Client::send), [`Logs::fetch`].
///
/// The client's futures need no runtime; others may.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// All logs of a query, page after page; ends after the last log or the first
/// error.
pub fn iter(logs: Logs) -> Iter {
    Iter(logs.stream())
}

/// See [`iter`].
#[derive(Debug)]
#[must_use = "an iterator does nothing until it is read"]
pub struct Iter(LogStream);

impl Iterator for Iter {
    type Item = Result<LogEntry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        wait(self.0.next())
    }
}
