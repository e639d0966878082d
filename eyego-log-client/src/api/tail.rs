//! The live tail: events as they are stored, resumed after every interruption.

mod backlog;
mod frames;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use eyego_log_core::limits::MAX_LIMIT;
use eyego_log_core::{FieldError, LogEntry};
use futures_core::Stream;
use serde::Deserialize;

use self::backlog::Backlog;
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
/// last event that it yielded, without a gap or a repetition, however many events are
/// stored meanwhile. What cannot be resolved by another attempt is an error, and ends
/// the tail: the statuses 400, 401, 403, 404, 410 (the position is too old) and 501 (the
/// server's store cannot be tailed).
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
    /// The events of `last`, which come first.
    backlog: Option<Backlog>,
    token: Option<String>,
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
    /// timestamps. See [`Tail`]. Only the filters apply: the server refuses a limit, a
    /// page, a cursor or an order with status 400.
    ///
    /// A tail does not keep the client alive, and ends with
    /// [`RequestError::Closed`] after a shutdown.
    pub fn tail(self) -> Tail {
        Tail::new(self)
    }
}

impl Tail {
    fn new(query: Query) -> Self {
        let (state, rng) = (State::Disconnected, fastrand::Rng::new());
        Self { query, backlog: None, token: None, state, failures: 0, rng }
    }

    /// Starts with up to this many events that are already stored, the latest ones (and
    /// up to 8 MiB of them). Defaults to 0; up to 1000. Has no effect together with
    /// [`after`](Self::after).
    pub fn last(mut self, events: u32) -> Self {
        if events > MAX_LAST {
            let reason = format!("must be a whole number from 0 to {MAX_LAST}");
            self.query.reject(FieldError::new("last", reason));
        }
        let is_wanted = events > 0 && self.token.is_none();
        self.backlog = is_wanted.then(|| Backlog::new(&self.query, events));
        self
    }

    /// Continues after the event at which an earlier tail had this
    /// [`token`](Self::token).
    pub fn after(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self.backlog = None;
        self
    }

    /// Returns the position of the last item, with which another tail can continue.
    /// Returns `None` before the server has sent one, and until all events of
    /// [`last`](Self::last) were yielded.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        let is_past_backlog = self.backlog.as_ref().is_none_or(Backlog::is_done);
        self.token.as_deref().filter(|_| is_past_backlog)
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
        parameters.extend(self.token.clone().map(|token| ("after".to_owned(), token)));
        let path = path::with_query("/logs/tail", &parameters);
        let query = self.query.clone();
        Box::pin(async move {
            query.check()?;
            query.caller().stream(&path, "text/event-stream").await
        })
    }

    /// Ends the tail, or prepares the next attempt.
    fn fail(&mut self, error: RequestError) -> Result<TailItem, RequestError> {
        let error = if self.query.caller().is_closed() { RequestError::Closed } else { error };
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
                let is_repeated =
                    self.backlog.as_mut().is_some_and(|backlog| backlog.take(entry.id));
                (!is_repeated).then_some(TailItem::Event(entry))
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

    /// Returns the next event of the backlog. It is read while the tail is connected and
    /// has a position, before anything else of the connection.
    fn poll_backlog(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<LogEntry>, RequestError>> {
        let has_position = self.token.is_some() && matches!(self.state, State::Connected { .. });
        match &mut self.backlog {
            Some(backlog) if has_position => backlog.poll_next(context),
            _ => Poll::Ready(Ok(None)),
        }
    }
}

impl Stream for Tail {
    type Item = Result<TailItem, RequestError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.poll_backlog(context)) {
                Ok(Some(entry)) => {
                    self.failures = 0;
                    return Poll::Ready(Some(Ok(TailItem::Event(entry))));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(self.fail(error))),
            }
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
                    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
                        id: t1\n\n";
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
