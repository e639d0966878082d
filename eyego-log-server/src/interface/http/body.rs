//! Receives the body of a request within its limits: size as sent and as
//! decompressed, pace of arrival, and the memory of all bodies together.

mod decompress;
mod negotiation;
mod receive;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::OwnedSemaphorePermit;

use self::decompress::decompress;
#[cfg(feature = "fuzzing")]
pub use self::decompress::fuzz_decompression;
pub(super) use self::negotiation::media_type;
use self::negotiation::{Encoding, encoding};
use self::receive::receive;
pub(super) use self::receive::{discard, discard_unread};
use super::error::ApiError;
use crate::application::ingest::{Budget, IngestError};
use crate::application::metrics::Refusal;

/// Size limits of a request body.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Maximum size in bytes, both as sent and decompressed.
    pub max_bytes: usize,
}

/// A complete, decompressed body and its share of the memory budget.
#[derive(Debug)]
pub(super) struct ReadBody {
    pub(super) bytes: Bytes,
    pub(super) permit: OwnedSemaphorePermit,
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
) -> Result<ReadBody, ApiError> {
    let result = receive_and_decompress(headers, &mut body, limits, budget).await;
    // Don't drain the body of a client that has already timed out.
    if matches!(&result, Err(error) if error.refusal() != Refusal::TooSlow) {
        discard(&mut body).await;
    }
    result
}

async fn receive_and_decompress(
    headers: &HeaderMap,
    body: &mut Body,
    limits: BodyLimits,
    budget: &Budget,
) -> Result<ReadBody, ApiError> {
    match encoding(headers)? {
        // The events made from these bytes are charged at once.
        Encoding::Identity => {
            let cost = |length| length + Budget::cost_of_decoded(length);
            receive(body, limits, budget, cost).await
        }
        Encoding::Compressed(compression) => {
            let compressed = receive(body, limits, budget, |length| length).await?;
            decompress(compressed, compression, limits, budget).await
        }
    }
}

/// Reserves memory for a part of a body.
///
/// # Errors
/// Returns an error if the budget is used up.
fn reserve(budget: &Budget, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    budget.reserve(bytes).map_err(|error| IngestError::NotQueued { id: None, error }.into())
}

fn too_large(limits: BodyLimits) -> ApiError {
    let max = limits.max_bytes;
    ApiError::too_large(format!("the body may have up to {max} bytes after decompression"))
}
