//! The user and the time of receipt of a dead letter, from whatever of its record
//! is readable.

use eyego_log_core::{Timestamp, UserId, record};

use crate::domain::dead_letter::DeadLetter;

/// Returns the user id of a record that no store can hold, if it is readable.
pub(in crate::application) fn user_id(raw: &[u8]) -> Option<UserId> {
    record::origin(raw).user_id
}

/// Returns the user of a dead letter and when its event was received, or when the
/// queue accepted the record if that is unknown.
pub(super) fn of(dead_letter: &DeadLetter) -> (Option<UserId>, Timestamp) {
    let origin = record::origin(&dead_letter.raw);
    let known = dead_letter.summary.user_id.as_deref().and_then(UserId::from_stored);
    let received_at = origin.received_at.unwrap_or(dead_letter.summary.queued_at);
    (known.or(origin.user_id), received_at)
}
