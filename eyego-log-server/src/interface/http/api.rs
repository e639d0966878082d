//! What the routes of the API work with.

use tokio::sync::watch;

use super::body::BodyLimits;
use crate::application::dead_letters::DeadLetterService;
use crate::application::ingest::Ingest;
use crate::application::retrieve::Retrieve;

/// What the routes of the API need.
#[derive(Debug)]
pub struct Api {
    /// Takes logs.
    pub ingest: Ingest,
    /// Gives them back.
    pub retrieve: Retrieve,
    /// Keeps what could not be stored.
    pub dead_letters: DeadLetterService,
    /// Turns true when the process stops: then nobody waits any more.
    pub stop: watch::Receiver<bool>,
    /// How large a body may be.
    pub body_limits: BodyLimits,
}
