//! The live tail: events as they are stored, resumed after every interruption.

mod frames;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use eyego_log_core::LogEntry;
use eyego_log_core::limits::MAX_LIMIT;
use eyego_log_core::query::Cursor;
use futures_core::Stream;
use serde::Deserialize;

use self::frames::{Frame, Frames};
use crate::api::caller::StreamedBody;
use crate::api::path;
use crate::api::query::Query;
use crate::model::errors::RequestError;
use crate::transport::BoxFuture;

/// The pauses before the connection is established again: random, up to a limit
/// that doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The largest number of stored events with which a tail can start.
const MAX_LAST: u32 = MAX_LIMIT;

/// A connection that lasted as long as this was not a failure.
const STABLE: Duration = Duration::from_secs(10);

/// The matching events in the order in which they are stored, starting now; see
/// [`Query::tail`](crate::Query::tail).
///
/// This is a [`Stream`]. [`next_item`](Self::next_item) works without a crate for
/// streams. It connects when it is polled first, and ends only after an error.
///
/// **It resumes by itself.** If the connection breaks, if nothing is received for
/// 45 s (the server sends something every 15 s), or if the server restarts, the tail
/// yields [`TailItem::Interrupted`], pauses for up to 5 s, and continues after the
/// last event that it yielded, without a gap or a repetition. What cannot be resolved
/// by another attempt is an error, and ends the tail: the statuses 400, 401, 403,
/// 404, 410 (the position is too old) and 501 (the server's store cannot be tailed).
///
/// The API key needs the scope `read`. The transport must stream
/// ([`Transport::send_streaming`](crate::transport::Transport::send_streaming)).
///
/// ```no_run
/// use eyego_log_client::{Client, TailItem};
///
/// # async fn run(client: Client) -> Result<(), eyego_log_client::RequestError> {
/// let mut tail = client.query().action("PAYMENT_FAILED").tail().last(10);
/// while let Some(item) = tail.next_item().await {
///     match item? {
///         TailItem::Event(entry) => println!("{} {}", entry.timestamp, entry.user_id),
///         TailItem::Skipped(count) => eprintln!("too slow: {count} events were skipped"),
///         TailItem::Interrupted(error) => eprintln!("reconnecting: {error}"),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream does nothing until it is polled"]
pub struct Tail {
    query: Query,
    last: Option<u32>,
    token: Option<String>,
    /// The position in the events of `last` that was yielded. They have no token.
    backlog: Option<Cursor>,
    state: State,
    /// Failures without an event in between.
    failures: u32,
    rng: fastrand::Rng,
}

/// What a [`Tail`] yields.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TailItem {
    /// A stored event.
    Event(LogEntry),
    /// The program is too slow, so the server skipped this many events.
    Skipped(u64),
    /// The connection is lost for this reason. The tail connects again by itself,
    /// and continues where it was.
    Interrupted(RequestError),
}

enum State {
    Disconnected,
    Connecting(BoxFuture<'static, Result<StreamedBody, RequestError>>),
    Connected { body: StreamedBody, frames: Frames, since: Instant },
    Pausing(BoxFuture<'static, ()>),
    Ended,
}

#[derive(Deserialize)]
struct SkippedData {
    count: u64,
}

impl Query {
    /// Follows the matching events as they are stored, including those with older
    /// timestamps. See [`Tail`]. Only the filters apply, not the limit, page,
    /// cursor or order.
    pub fn tail(self) -> Tail {
        Tail::new(self)
    }
}

impl Tail {
    fn new(query: Query) -> Self {
        let (state, rng) = (State::Disconnected, fastrand::Rng::new());
        Self { query, last: None, token: None, backlog: None, state, failures: 0, rng }
    }

    /// Starts with this many events that are already stored, the latest ones.
    /// Defaults to 0; up to 1000. Has no effect together with
    /// [`after`](Self::after).
    pub fn last(mut self, events: u32) -> Self {
        self.last = Some(events);
        self
    }

    /// Continues after the event at which an earlier tail had this
    /// [`token`](Self::token).
    pub fn after(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Returns the position of the last item, with which another tail can continue.
    /// Returns `None` before the server has sent one.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Returns the next item. Returns `None` after an error.
    ///
    /// # Errors
    /// Returns a [`RequestError`] that another attempt would not resolve.
    pub async fn next_item(&mut self) -> Option<Result<TailItem, RequestError>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    fn connect(&self) -> BoxFuture<'static, Result<StreamedBody, RequestError>> {
        let mut parameters = self.query.parameters();
        match (&self.token, self.last) {
            (Some(token), _) => parameters.push(("after".to_owned(), token.clone())),
            // The last `last` events may be others by now, so ask for as many as possible.
            (None, Some(_)) if self.backlog.is_some() => {
                parameters.push(("last".to_owned(), MAX_LAST.to_string()));
            }
            (None, Some(last)) => parameters.push(("last".to_owned(), last.to_string())),
            (None, None) => {}
        }
        let path = path::with_query("/logs/tail", &parameters);
        let query = self.query.clone();
        Box::pin(async move {
            query.check()?;
            query.caller().stream(&path).await
        })
    }

    /// Ends the tail, or prepares the next attempt.
    fn fail(&mut self, error: RequestError) -> Result<TailItem, RequestError> {
        if !error.is_retryable() {
            self.state = State::Ended;
            return Err(error);
        }
        if matches!(&self.state, State::Connected { since, .. } if since.elapsed() >= STABLE) {
            self.failures = 0;
        }
        let limit = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(MAX_PAUSE);
        self.failures += 1;
        let wanted = error.status().and_then(|status| status.retry_after).unwrap_or_default();
        let pause = limit.mul_f64(self.rng.f64().midpoint(1.0)).max(wanted);
        let (caller, until) = (self.query.caller().clone(), Instant::now() + pause);
        self.state = State::Pausing(Box::pin(async move { caller.sleep_until(until).await }));
        Ok(TailItem::Interrupted(error))
    }

    /// Returns the item of a frame, if it has one, and remembers its position.
    fn accept(&mut self, frame: Frame) -> Result<Option<TailItem>, RequestError> {
        let Frame { event, data, id } = frame;
        let unexpected = |error: serde_json::Error| {
            RequestError::UnexpectedResponse(format!("the tail's event {event:?}: {error}"))
        };
        let item = match event.as_str() {
            "log" => {
                let entry: LogEntry = serde_json::from_slice(&data).map_err(unexpected)?;
                if id.is_none() {
                    let position = Some(Cursor::from(&entry));
                    if position <= self.backlog {
                        return Ok(None);
                    }
                    self.backlog = position;
                }
                Some(TailItem::Event(entry))
            }
            "skipped" => {
                let SkippedData { count } = serde_json::from_slice(&data).map_err(unexpected)?;
                Some(TailItem::Skipped(count))
            }
            // A newer server may send other kinds of frames.
            _ => None,
        };
        self.token = id.or_else(|| self.token.take());
        if item.is_some() {
            self.failures = 0;
        }
        Ok(item)
    }
}

impl Stream for Tail {
    type Item = Result<TailItem, RequestError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match &mut self.state {
                State::Disconnected => self.state = State::Connecting(self.connect()),
                State::Connecting(connecting) => match ready!(connecting.as_mut().poll(context)) {
                    Ok(body) => {
                        let (frames, since) = (Frames::default(), Instant::now());
                        self.state = State::Connected { body, frames, since };
                    }
                    Err(error) => return Poll::Ready(Some(self.fail(error))),
                },
                State::Connected { body, frames, .. } => {
                    if let Some(frame) = frames.next() {
                        match self.accept(frame) {
                            Ok(Some(item)) => return Poll::Ready(Some(Ok(item))),
                            Ok(None) => continue,
                            Err(error) => return Poll::Ready(Some(self.fail(error))),
                        }
                    }
                    let error = match ready!(body.poll_next(context)) {
                        Ok(Some(piece)) => match frames.push(&piece) {
                            Ok(()) => continue,
                            Err(error) => error,
                        },
                        Ok(None) => body.incomplete("the server ended the stream"),
                        Err(error) => error,
                    };
                    return Poll::Ready(Some(self.fail(error)));
                }
                State::Pausing(pause) => {
                    ready!(pause.as_mut().poll(context));
                    self.state = State::Disconnected;
                }
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("query", &self.query)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::Client;

    #[tokio::test]
    async fn a_connection_on_which_nothing_arrives_is_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::builder(url).build().unwrap();
        let mut caller = client.caller().clone();
        caller.idle_timeout = Duration::from_millis(100);
        let mut tail = Query::new(caller).tail();
        tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
                if !open.is_empty() {
                    let head = b"HTTP/1.1 200 OK\r\n\r\nid: t1\n\n";
                    stream.write_all(head).await.unwrap();
                }
                open.push(stream);
            }
        });
        for expected in ["nothing was received for 100ms", "nothing was received for 100ms"] {
            match tail.next_item().await.unwrap().unwrap() {
                TailItem::Interrupted(error) => {
                    assert!(error.to_string().contains(expected), "{error}");
                }
                item => panic!("{item:?}"),
            }
        }
        assert_eq!(tail.token(), Some("t1"));
    }
}
