//! Limits of responses that last: exports and tails.

mod pace;

use std::sync::Arc;

use http::Version;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) use self::pace::TailPace;
use super::error::ApiError;
use crate::domain::read::ReadError;
use crate::domain::tail::MAX_BATCH_BYTES;

/// Maximum number of exports at the same time. Each holds up to two pages and
/// runs one query at a time, so that other queries find room.
const MAX_EXPORTS: usize = 4;

/// Maximum number of tails at the same time.
const MAX_TAILS: usize = 1000;

/// Memory for the pieces of tails that are larger than usual, because of a large
/// event, in bytes.
const LARGE_PIECES_BYTES: u32 = 16 << 20;

/// Requires HTTP/1.1 or newer: in HTTP/1.0, a response that is cut short looks complete.
///
/// # Errors
/// Returns an error for HTTP/1.0 that says what to do.
pub(super) fn require_version(version: Version) -> Result<(), ApiError> {
    if version > Version::HTTP_10 {
        return Ok(());
    }
    Err(ApiError::invalid(
        "this route needs HTTP/1.1, because HTTP/1.0 cannot show that a transfer was cut short; \
         behind nginx, set proxy_http_version 1.1",
    ))
}

/// Counts the responses that last. Each kind has a limit of its own.
#[derive(Debug)]
pub struct Streams {
    exports: Arc<Semaphore>,
    tails: Arc<Semaphore>,
    large_pieces: LargePieces,
    tail_pace: Arc<TailPace>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            exports: Arc::new(Semaphore::new(MAX_EXPORTS)),
            tails: Arc::new(Semaphore::new(MAX_TAILS)),
            large_pieces: LargePieces(Arc::new(Semaphore::new(LARGE_PIECES_BYTES as usize))),
            tail_pace: Arc::default(),
        }
    }
}

impl Streams {
    /// Starts an export. Keep the permit until it has ended.
    ///
    /// # Errors
    /// Returns [`ReadError::Overloaded`] if too many exports are running.
    pub(super) fn start_export(&self) -> Result<OwnedSemaphorePermit, ReadError> {
        Arc::clone(&self.exports)
            .try_acquire_owned()
            .map_err(|_| ReadError::Overloaded("the limit of 4 exports is reached"))
    }

    /// Starts a tail. Keep the permit until it has ended.
    ///
    /// # Errors
    /// Returns [`ReadError::Overloaded`] if too many tails are open.
    pub(super) fn start_tail(&self) -> Result<OwnedSemaphorePermit, ReadError> {
        Arc::clone(&self.tails)
            .try_acquire_owned()
            .map_err(|_| ReadError::Overloaded("the limit of 1000 tails is reached"))
    }

    pub(super) fn tail_pace(&self) -> &Arc<TailPace> {
        &self.tail_pace
    }

    pub(super) fn large_pieces(&self) -> &LargePieces {
        &self.large_pieces
    }
}

/// The memory for large pieces of tails.
#[derive(Debug, Clone)]
pub(super) struct LargePieces(Arc<Semaphore>);

impl LargePieces {
    /// Waits until there is memory for a piece of this size. Returns `None` if it is not
    /// larger than usual.
    pub(super) async fn reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        if bytes <= 2 * MAX_BATCH_BYTES {
            return None;
        }
        // A piece larger than all of the memory is alone in it.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(LARGE_PIECES_BYTES);
        Arc::clone(&self.0).acquire_many_owned(bytes).await.ok()
    }
}
