//! The state shared by the routes of the API.

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use http::HeaderMap;
use tokio::sync::watch;

use super::body::{self, BodyLimits, ReadBody};
use super::error::ApiError;
use super::heavy::HeavyWork;
use super::streams::Streams;
use crate::application::dead_letters::DeadLetterService;
use crate::application::ingest::Ingest;
use crate::application::read_budget::ReadBudget;
use crate::application::removal::ErasureService;
use crate::application::tail::Tails;
use crate::domain::repository::LogRepository;

/// The use cases, ports and limits behind the routes of the API.
pub struct Api {
    /// Accepts events.
    pub ingest: Ingest,
    /// Reads stored events.
    pub repository: Arc<dyn LogRepository>,
    /// Memory of all reads.
    pub read_budget: ReadBudget,
    /// Follows the store.
    pub tails: Tails,
    /// Limits of responses that last.
    pub streams: Streams,
    /// Lists and replays dead letters.
    pub dead_letters: DeadLetterService,
    /// Requests and lists erasures.
    pub erasures: ErasureService,
    /// Becomes `true` when the process stops. Requests then no longer wait for
    /// their events to be stored.
    pub stop: watch::Receiver<bool>,
    /// Size limits of the bodies of batches.
    pub body_limits: BodyLimits,
    /// Runs decompression and the parsing of large bodies.
    pub heavy: HeavyWork,
}

impl Api {
    /// Receives and decompresses the body of a request; see [`body::read`].
    pub(super) async fn read_body(
        &self,
        headers: &HeaderMap,
        body: Body,
        limits: BodyLimits,
    ) -> Result<ReadBody, ApiError> {
        body::read(headers, body, limits, self.ingest.budget(), &self.heavy).await
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("body_limits", &self.body_limits).finish_non_exhaustive()
    }
}
