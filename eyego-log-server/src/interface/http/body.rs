//! Receives the body of a request within its limits: size as sent and as
//! decompressed, pace of arrival, and the memory of all bodies together.

mod decompress;
mod negotiation;
mod pace;
mod receive;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;

use self::decompress::decompress;
#[cfg(feature = "fuzzing")]
pub use self::decompress::fuzz_decompression;
pub(super) use self::negotiation::media_type;
use self::negotiation::{Encoding, encoding};
pub(super) use self::receive::{declared_length, discard, discard_unread};
use self::receive::{receive, refuse_declared};
use super::error::ApiError;
use super::heavy::HeavyWork;
use crate::application::ingest::{Budget, IngestError, Share};
use crate::application::metrics::Refusal;

/// Size limits of a request body.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// What is limited, for the error: `the body` or `an event`.
    pub what: &'static str,
    /// Maximum size in bytes, both as sent and decompressed.
    pub max_bytes: usize,
}

/// A complete, decompressed body and its share of the memory budget.
#[derive(Debug)]
pub(super) struct ReadBody {
    pub(super) bytes: Bytes,
    pub(super) share: Share,
}

/// Receives and decompresses the body of a request.
///
/// # Errors
/// Returns an error if the body is too large, arrives too slowly, ends early or
/// cannot be decompressed, or if the memory budget is used up. The rest of the
/// body is then [discarded](discard).
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limits: BodyLimits,
    budget: &Budget,
    heavy: &HeavyWork,
) -> Result<ReadBody, ApiError> {
    let encoding = match check_head(headers, &body, limits) {
        Ok(encoding) => encoding,
        Err(error) => {
            discard_unread(headers, &mut body).await;
            return Err(error);
        }
    };
    let result = receive_and_decompress(encoding, &mut body, limits, budget, heavy).await;
    // Don't drain the body of a client that has already timed out.
    if matches!(&result, Err(error) if error.refusal() != Refusal::TooSlow) {
        discard(&mut body).await;
    }
    result
}

/// Checks what the head says about the body, before any of it is asked for.
fn check_head(headers: &HeaderMap, body: &Body, limits: BodyLimits) -> Result<Encoding, ApiError> {
    let encoding = encoding(headers)?;
    refuse_declared(body, limits)?;
    Ok(encoding)
}

async fn receive_and_decompress(
    encoding: Encoding,
    body: &mut Body,
    limits: BodyLimits,
    budget: &Budget,
    heavy: &HeavyWork,
) -> Result<ReadBody, ApiError> {
    let mut received = receive(body, limits, budget.share()).await?;
    match encoding {
        Encoding::Identity => {
            // The events made from these bytes are charged only now, so that a slow
            // body holds no more memory than it has sent.
            charge(&mut received.share, Budget::cost_of_decoded(received.bytes.len()))?;
            Ok(received)
        }
        Encoding::Compressed(compression) => {
            heavy.run(move || decompress(received, compression, limits)).await?
        }
    }
}

/// Adds memory for a part of a body.
///
/// # Errors
/// Returns an error if the budget is used up.
fn charge(share: &mut Share, bytes: usize) -> Result<(), ApiError> {
    share.add(bytes).map_err(|error| IngestError::NotQueued { id: None, error }.into())
}

fn too_large(limits: BodyLimits) -> ApiError {
    let BodyLimits { what, max_bytes } = limits;
    ApiError::too_large(format!("{what} may have up to {max_bytes} bytes after decompression"))
}
