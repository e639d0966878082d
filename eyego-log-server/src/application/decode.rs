//! Decodes records of the queue into entries, for the worker and for replayed
//! dead letters.

use eyego_log_core::{LogEntry, LogId, Timestamp, record};

use crate::domain::repository::Rejection;

/// Decodes a record. A record without an id gets the one that `derive_id`
/// returns; a record without a timestamp gets `queued_at`.
///
/// # Errors
/// Returns a [`Rejection`] if no store could hold the record.
pub(super) fn entry(
    value: &[u8],
    queued_at: Timestamp,
    derive_id: impl FnOnce() -> LogId,
) -> Result<LogEntry, Rejection> {
    match record::decode(value) {
        Ok(decoded) => {
            let id = decoded.id.unwrap_or_else(derive_id);
            Ok(decoded.into_entry(id, queued_at))
        }
        Err(error) => Err(Rejection {
            code: error.code().to_owned(),
            message: error.to_string(),
            is_known: true,
        }),
    }
}
