//! Decodes records of the queue into entries, for the worker and for replayed
//! dead letters.

use eyego_log_core::{LogEntry, LogId, Timestamp, record};

use crate::domain::repository::Rejection;

/// Decodes a record. A record without an id gets the one that `derive_id`
/// returns. A record without a timestamp or a time of receipt, as the legacy
/// service writes them, gets `queued_at` for each that is missing: a retry of it has
/// another one.
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
            let has_timestamp = decoded.timestamp.is_some();
            let mut entry = decoded.into_entry(id, queued_at);
            if !has_timestamp || entry.received_at.is_none() {
                entry.received_at = Some(queued_at);
            }
            Ok(entry)
        }
        Err(error) => Err(Rejection {
            code: error.code().to_owned(),
            message: error.to_string(),
            is_known: true,
        }),
    }
}
