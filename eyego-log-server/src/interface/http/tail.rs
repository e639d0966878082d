//! `GET /api/v1/logs/tail`: events as they are stored, as server-sent events.
//!
//! At most one piece of a tail is in memory: the next one is made once the connection has
//! written the previous one, so clients that do not read hold nothing else (ADR 0038).

mod piece;
pub(super) mod request;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Interval, MissedTickBehavior};

use self::piece::{MESSAGE_OVERHEAD, Piece};
use super::access::Permission;
use super::api::Api;
use super::error::ApiError;
use super::streams::{self, LargePieces, TailPace};
use crate::application::tail::{RunningTail, Sent};
use crate::domain::read::PageItem as _;
use crate::domain::tail::TailError;

/// Interval at which the key of a tail is checked. Less than the 10 s after which a
/// removed key must not be accepted any more.
const CHECK_INTERVAL: Duration = Duration::from_secs(4);

/// Time without a piece after which a comment is sent, so that proxies keep the
/// connection open.
const COMMENT_INTERVAL: Duration = Duration::from_secs(15);

/// Asks nginx not to buffer the response.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// `GET /api/v1/logs/tail`
pub(super) async fn tail(
    State(api): State<Arc<Api>>,
    Extension(permission): Extension<Arc<Permission>>,
    RawQuery(query): RawQuery,
    version: Version,
    headers: HeaderMap,
) -> Response {
    if let Err(error) = streams::require_version(version) {
        return error.into_response();
    }
    let started = start(&api, permission, query.as_deref(), &headers).await;
    started.unwrap_or_else(IntoResponse::into_response)
}

async fn start(
    api: &Api,
    permission: Arc<Permission>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let (filter, start) = request::parse(query, headers)?;
    let place = api.streams.start_tail()?;
    let mut tail = api.tails.start(filter, start).await?;
    let position = tail.token();
    let stream = Stream {
        // Without a backlog, the client gets the position at once, for the case that it
        // is disconnected before the first event.
        first: position.as_deref().map(|token| Piece::default().with_position(token)),
        sent_position: position.clone(),
        position,
        reading: read(tail),
        written: Arc::new(Semaphore::new(1)),
        large_pieces: api.streams.large_pieces().clone(),
        pace: Arc::clone(api.streams.tail_pace()),
        piece_bytes: 0,
        check: interval(CHECK_INTERVAL),
        comment: interval(COMMENT_INTERVAL),
        stop: api.stop.clone(),
        permission,
        _place: place,
    };
    let body = futures_util::stream::unfold(stream, async |mut stream| {
        let piece = stream.next().await?;
        if let Err(error) = &piece {
            tracing::warn!(%error, "a tail was cut off");
        }
        Some((piece, stream))
    });
    let head = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok((StatusCode::OK, head, Body::from_stream(body)).into_response())
}

/// Returns an interval whose first tick is one period away.
fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval.reset();
    interval
}

type Reading = BoxFuture<'static, (RunningTail, Result<Sent, TailError>)>;

/// Reads the next events. Polled anew by each call of [`Stream::next`], so that nothing
/// that waits is cancelled.
fn read(mut tail: RunningTail) -> Reading {
    Box::pin(async move {
        let sent = tail.next().await;
        (tail, sent)
    })
}

/// What a tail sends next.
enum Output {
    Piece(Piece),
    Events(Sent),
}

/// The body of a tail.
struct Stream {
    first: Option<Piece>,
    reading: Reading,
    /// The token of the position reached, and the last one that was sent.
    position: Option<String>,
    sent_position: Option<String>,
    /// Its permit is a part of the piece that is being written.
    written: Arc<Semaphore>,
    large_pieces: LargePieces,
    pace: Arc<TailPace>,
    /// Size of the last piece.
    piece_bytes: usize,
    check: Interval,
    comment: Interval,
    stop: watch::Receiver<bool>,
    permission: Arc<Permission>,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    /// Returns the next piece of the body, or `None` at its end.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => None,
            piece = self.next_piece() => piece,
        }
    }

    async fn next_piece(&mut self) -> Option<io::Result<Bytes>> {
        let written = Arc::clone(&self.written).acquire_owned().await.ok()?;
        let output = match self.first.take() {
            Some(first) => Output::Piece(first),
            None => match self.next_output().await? {
                Ok(output) => output,
                Err(error) => return Some(Err(error)),
            },
        };
        let (piece, large) = match output {
            Output::Piece(piece) => (Ok(piece), None),
            Output::Events(sent) => {
                // Before the copy is made, because any number of tails can wait here.
                let bytes = bytes(&sent);
                let large = self.large_pieces.reserve(bytes).await;
                self.piece_bytes = bytes;
                (self.piece(&sent, bytes), large)
            }
        };
        self.comment.reset();
        Some(piece.map(|piece| piece.into_bytes((written, large))))
    }

    /// Waits until there is something to send. Returns `None` if the key is not valid any
    /// more.
    async fn next_output(&mut self) -> Option<io::Result<Output>> {
        // Before events are taken: meanwhile, they are kept once for all tails.
        self.pace.wait(std::mem::take(&mut self.piece_bytes)).await;
        loop {
            tokio::select! {
                _ = self.check.tick() => {
                    if !self.permission.is_valid() {
                        tracing::info!("a tail has ended because its key is not valid any more");
                        return None;
                    }
                }
                _ = self.comment.tick() => {
                    let comment = Piece::comment();
                    return Some(Ok(Output::Piece(self.with_position(comment))));
                }
                (mut tail, sent) = &mut self.reading => {
                    self.position = tail.token();
                    self.reading = read(tail);
                    match sent {
                        // Nothing matched. Others on this thread may go first.
                        Ok(sent) if sent.is_empty() => {
                            tokio::task::yield_now().await;
                        }
                        Ok(sent) => return Some(Ok(Output::Events(sent))),
                        Err(error) => return Some(Err(io::Error::other(error))),
                    }
                }
            }
        }
    }

    fn piece(&mut self, sent: &Sent, bytes: usize) -> io::Result<Piece> {
        let mut piece = Piece::with_capacity(bytes);
        for entry in &sent.backlog {
            piece.push_entry(entry)?;
        }
        if sent.skipped > 0 {
            piece.push_skipped(sent.skipped);
        }
        for event in &sent.events {
            piece.push_event(event)?;
        }
        if let Some(last) = sent.events.last() {
            self.sent_position = Some(last.token.clone());
        }
        Ok(self.with_position(piece))
    }

    /// Adds the position, unless the client has it.
    fn with_position(&mut self, piece: Piece) -> Piece {
        match &self.position {
            Some(token) if self.position != self.sent_position => {
                self.sent_position.clone_from(&self.position);
                piece.with_position(token)
            }
            _ => piece,
        }
    }
}

/// Returns about how long the messages of these events are, in bytes.
fn bytes(sent: &Sent) -> usize {
    let backlog = sent.backlog.iter().map(|entry| entry.json_bytes() + MESSAGE_OVERHEAD);
    let events = sent.events.iter();
    let events =
        events.map(|event| event.entry.json_bytes() + event.token.len() + MESSAGE_OVERHEAD);
    backlog.chain(events).sum()
}
