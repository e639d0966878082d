//! The state shared by the routes of the API.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use super::body::BodyLimits;
use crate::application::dead_letters::DeadLetterService;
use crate::application::ingest::Ingest;
use crate::application::read_budget::ReadBudget;
use crate::application::removal::ErasureService;
use crate::domain::repository::LogRepository;

/// The use cases, ports and limits behind the routes of the API.
pub struct Api {
    /// Accepts events.
    pub ingest: Ingest,
    /// Reads stored events.
    pub repository: Arc<dyn LogRepository>,
    /// Memory of all reads.
    pub read_budget: ReadBudget,
    /// Lists and replays dead letters.
    pub dead_letters: DeadLetterService,
    /// Requests and lists erasures.
    pub erasures: ErasureService,
    /// Becomes `true` when the process stops. Requests then no longer wait for
    /// their events to be stored.
    pub stop: watch::Receiver<bool>,
    /// Size limits of request bodies.
    pub body_limits: BodyLimits,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("body_limits", &self.body_limits).finish_non_exhaustive()
    }
}
