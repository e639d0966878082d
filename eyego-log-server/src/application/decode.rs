//! A record of the queue into an entry: the same for what comes out of the
//! queue and for what is taken up again from a dead letter.

use eyego_log_core::{LogEntry, LogId, Timestamp, record};

use crate::domain::repository::Rejection;

/// The entry that these bytes are. `id` answers the identity of a record that
/// has none of its own; `queued_at` is the time of one without a time.
///
/// # Errors
/// Why no store could hold it.
pub(super) fn entry(
    value: &[u8],
    queued_at: Timestamp,
    id: impl FnOnce() -> LogId,
) -> Result<LogEntry, Rejection> {
    match record::decode(value) {
        Ok(decoded) => {
            let id = decoded.id.unwrap_or_else(id);
            Ok(decoded.into_entry(id, queued_at))
        }
        Err(error) => Err(Rejection {
            code: error.code().to_owned(),
            message: error.to_string(),
            is_known: true,
        }),
    }
}
