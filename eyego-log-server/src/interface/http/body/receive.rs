//! Receives a body as it arrives: its size, its pace and its memory.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use http::HeaderMap;
use http::header::EXPECT;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::{BodyLimits, ReadBody, reserve, too_large};
use crate::application::ingest::Budget;
use crate::interface::http::error::ApiError;

/// Longest pause between two frames of a body. The minimum rate applies only
/// after the same time.
const MAX_PAUSE: Duration = Duration::from_secs(15);

/// Minimum average rate of a body in bytes per second. A slower body would hold
/// its memory for hours.
const MIN_RATE: u64 = 1024;

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

/// Receives a body as it was sent. Each frame reserves `cost(length)` bytes of
/// the budget before it is kept.
///
/// # Errors
/// Returns an error if the body is too large, arrives too slowly or ends early,
/// or if the budget is used up.
pub(super) async fn receive(
    body: &mut Body,
    limits: BodyLimits,
    budget: &Budget,
    cost: impl Fn(usize) -> usize,
) -> Result<ReadBody, ApiError> {
    let mut permit = reserve(budget, 0)?;
    let mut start = None;
    let mut received = Received::default();
    loop {
        // Most bodies arrive together with the headers and need no timer.
        let frame = match body.frame().now_or_never() {
            Some(frame) => frame,
            None => {
                let start = *start.get_or_insert_with(Instant::now);
                wait_for_frame(body, start, received.length).await?
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame
            .map_err(|error| ApiError::invalid(format!("the body cannot be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if received.length + data.len() > limits.max_bytes {
            return Err(too_large(limits));
        }
        permit.merge(reserve(budget, cost(data.len()))?);
        received.push(data);
    }
    Ok(ReadBody { bytes: received.into_bytes(), permit })
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

async fn wait_for_frame(body: &mut Body, start: Instant, length: usize) -> Result<Frame, ApiError> {
    timeout_at(deadline(start, length), body.frame()).await.map_err(|_| {
        ApiError::too_slow(format!(
            "the body arrived too slowly: send at least {MIN_RATE} bytes per second, with pauses of up to {} s",
            MAX_PAUSE.as_secs()
        ))
    })
}

/// Returns when the next frame of a body must arrive, if `length` bytes have
/// arrived since `start`.
fn deadline(start: Instant, length: usize) -> Instant {
    let earned = Duration::from_secs(length as u64 / MIN_RATE);
    (start + MAX_PAUSE + earned).min(Instant::now() + MAX_PAUSE)
}
