//! Receives a body as it arrives: its size, its pace and its memory.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use http::HeaderMap;
use http::header::EXPECT;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::time::{Instant, timeout_at};

use super::pace::{GRACE, MIN_RATE, Pace, WINDOW_SECONDS};
use super::{BodyLimits, ReadBody, charge, too_large};
use crate::application::ingest::Share;
use crate::interface::http::error::ApiError;

/// Limits for reading the rest of a refused body. Simple clients write the whole
/// body before they read the response.
const MAX_DISCARDED_BYTES: usize = 32 << 20;
const MAX_DISCARD_TIME: Duration = Duration::from_secs(2);

/// Reads the rest of a refused body without keeping it, up to 32 MiB or for 2
/// seconds.
pub(in crate::interface::http) async fn discard(body: &mut Body) {
    let deadline = Instant::now() + MAX_DISCARD_TIME;
    let mut discarded = 0;
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        discarded += frame.data_ref().map_or(0, Bytes::len);
        if discarded > MAX_DISCARDED_BYTES {
            return;
        }
    }
}

/// Reads the rest of a body of which nothing has been read. Reading the body of a
/// client that sent `Expect: 100-continue` would ask for it; that client reads
/// the response first.
pub(in crate::interface::http) async fn discard_unread(headers: &HeaderMap, body: &mut Body) {
    if !headers.contains_key(EXPECT) {
        discard(body).await;
    }
}

/// Returns the length that the request declares, if it does.
pub(in crate::interface::http) fn declared_length(body: &Body) -> Option<u64> {
    body.size_hint().exact()
}

/// Refuses a body by its declared length, before any of it is read.
///
/// # Errors
/// Returns an error if the body is declared to exceed the limit.
pub(super) fn refuse_declared(body: &Body, limits: BodyLimits) -> Result<(), ApiError> {
    match declared_length(body) {
        Some(length) if length > limits.max_bytes as u64 => Err(too_large(limits)),
        _ => Ok(()),
    }
}

/// Receives a body as it was sent. Each frame is added to `share` before it is
/// kept.
///
/// # Errors
/// Returns an error if the body is too large, arrives too slowly or ends early,
/// or if the budget is used up.
pub(super) async fn receive(
    body: &mut Body,
    limits: BodyLimits,
    mut share: Share,
) -> Result<ReadBody, ApiError> {
    let size = declared_length(body).and_then(|length| usize::try_from(length).ok());
    let size = size.unwrap_or(limits.max_bytes);
    let mut pace = None;
    let mut received = Received::default();
    loop {
        // Most bodies arrive together with the headers and need no timer.
        let frame = match body.frame().now_or_never() {
            Some(frame) => frame,
            None => {
                let pace = pace.get_or_insert_with(|| Pace::start(Instant::now(), size));
                wait_for_frame(body, pace).await?
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame
            .map_err(|error| ApiError::invalid(format!("the body cannot be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if received.length + data.len() > limits.max_bytes {
            return Err(too_large(limits));
        }
        charge(&mut share, data.len())?;
        if let Some(pace) = &mut pace {
            pace.received(data.len());
        }
        received.push(data);
    }
    Ok(ReadBody { bytes: received.into_bytes(), share })
}

/// The data of a body. A single frame is kept without copying it.
#[derive(Default)]
struct Received {
    length: usize,
    first: Bytes,
    all: Vec<u8>,
}

impl Received {
    fn push(&mut self, data: Bytes) {
        self.length += data.len();
        if self.length == data.len() {
            self.first = data;
            return;
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(&self.first);
        }
        self.all.extend_from_slice(&data);
    }

    fn into_bytes(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.into() }
    }
}

type Frame = Option<Result<hyper::body::Frame<Bytes>, axum::Error>>;

async fn wait_for_frame(body: &mut Body, pace: &mut Pace) -> Result<Frame, ApiError> {
    loop {
        if let Ok(frame) = timeout_at(pace.next_check(), body.frame()).await {
            return Ok(frame);
        }
        if pace.is_too_slow(Instant::now()) {
            return Err(ApiError::too_slow(format!(
                "the body arrived too slowly: after {} s, send at least {} KiB in any {} s",
                GRACE.as_secs(),
                WINDOW_SECONDS * MIN_RATE / 1024,
                WINDOW_SECONDS,
            )));
        }
    }
}
