//! What can be read of any record, also of one that cannot be decoded.

use crate::json::{for_each_readable_member, unquote};
use crate::{Timestamp, UserId};

/// The user of a record and when its event was received, each if it is readable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The user who did it.
    pub user_id: Option<UserId>,
    /// When the server received the event.
    pub received_at: Option<Timestamp>,
}

/// Reads the origin of a record, even if the record is not valid or cut off.
///
/// ```
/// use eyego_log_core::record;
///
/// let cut = record::origin(br#"{"id": null, "userId": "ada", "action": "LO"#);
/// assert_eq!(cut.user_id.unwrap().as_str(), "ada");
/// assert_eq!(record::origin(b"not JSON"), record::Origin::default());
/// ```
#[must_use]
pub fn origin(bytes: &[u8]) -> Origin {
    let text = String::from_utf8_lossy(bytes);
    let mut origin = Origin::default();
    for_each_readable_member(&text, |name, value| match &*name {
        "userId" if origin.user_id.is_none() => {
            origin.user_id = unquote(value).and_then(UserId::from_stored);
        }
        "receivedAt" if origin.received_at.is_none() => {
            origin.received_at = unquote(value).and_then(|text| text.parse().ok());
        }
        _ => {}
    });
    origin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_cannot_be_decoded_have_an_origin() {
        let user = |bytes: &[u8]| origin(bytes).user_id.map(|user| user.as_str().to_owned());
        for (record, expected) in [
            (&br#"{"userId":"a","metadata":{"huge":1e999}}"#[..], Some("a")),
            (br#"{"metadata":"\ud800","userId":"a"}"#, Some("a")),
            (b"{\"metadata\":\"\xff\",\"userId\":\"a\"}", Some("a")),
            (br#"{"userId":"a","metadata":{"cut"#, Some("a")),
            (br#"{"userId":"a"} trailing"#, Some("a")),
            (br#"{"userId":7}"#, None),
            (br#"{"userId":""}"#, None),
            (b"[]", None),
            (b"", None),
        ] {
            assert_eq!(user(record).as_deref(), expected, "{}", record.escape_ascii());
        }
        let at = origin(br#"{"receivedAt":"2026-01-14T23:58:05.442Z"}"#).received_at;
        assert_eq!(at.map(Timestamp::as_millis), Some(1_768_435_085_442));
    }
}
