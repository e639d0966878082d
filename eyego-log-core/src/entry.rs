//! The log entry, its user id and its action.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::{MAX_ACTION_CHARS, MAX_USER_ID_CHARS};
use crate::{InvalidValue, LogId, Metadata, Timestamp};

/// One user event: who did what, and when.
///
/// Its JSON form is the one that `GET /api/v1/logs` returns: `id`, `userId`,
/// `action`, `timestamp` and `metadata`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LogEntry {
    /// Unique event id.
    pub id: LogId,
    /// The user who did it.
    pub user_id: UserId,
    /// The action the user took.
    pub action: Action,
    /// Time of the event: the caller's time if it sent one, otherwise the time
    /// of receipt.
    pub timestamp: Timestamp,
    /// Arbitrary metadata, as a JSON object.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub metadata: Metadata,
    /// When the server received the event. `None` for events of the legacy
    /// service and in API responses, which do not include it.
    #[serde(skip)]
    pub received_at: Option<Timestamp>,
}

impl LogEntry {
    /// Creates an entry without a time of receipt. To set one, assign
    /// [`received_at`](Self::received_at).
    #[must_use]
    pub const fn new(
        id: LogId,
        user_id: UserId,
        action: Action,
        timestamp: Timestamp,
        metadata: Metadata,
    ) -> Self {
        Self { id, user_id, action, timestamp, metadata, received_at: None }
    }

    /// Appends the JSON form to `out`. The bytes are those of `serde_json`, which takes
    /// longer.
    pub fn append_json(&self, out: &mut Vec<u8>) {
        self.append_open_json(out);
        out.push(b'}');
    }

    /// Appends the JSON form without its last brace.
    pub(crate) fn append_open_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":\"");
        out.extend_from_slice(&self.id.to_hex());
        out.extend_from_slice(b"\",\"userId\":");
        append_text(out, self.user_id.as_str());
        out.extend_from_slice(b",\"action\":");
        append_text(out, self.action.as_str());
        out.extend_from_slice(b",\"timestamp\":\"");
        out.extend_from_slice(&self.timestamp.to_text());
        out.extend_from_slice(b"\",\"metadata\":");
        out.extend_from_slice(self.metadata.as_json().as_bytes());
    }

    /// Returns `true` if the caller set the timestamp. If the server set it to
    /// the time of receipt, an attempt and its retry have different timestamps.
    #[must_use]
    pub fn has_caller_timestamp(&self) -> bool {
        self.received_at != Some(self.timestamp)
    }
}

/// Identifies a user: a non-empty string.
///
/// [`new`](Self::new) requires what the API promises (1 to 256 characters, no
/// U+0000). [`from_stored`](Self::from_stored) accepts any non-empty string
/// that is already queued or stored.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct UserId(Box<str>);

/// Names what a user did: a non-empty string such as `LOGIN`.
///
/// [`new`](Self::new) requires what the API promises (1 to 128 characters, no
/// U+0000). [`from_stored`](Self::from_stored) accepts any non-empty string
/// that is already queued or stored.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Action(Box<str>);

impl UserId {
    /// Creates a `UserId`.
    ///
    /// # Errors
    /// Returns an error if `text` is empty, has more than
    /// [`MAX_USER_ID_CHARS`] characters or contains U+0000.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, InvalidValue> {
        let text = text.into();
        Self::check(&text)?;
        Ok(Self(text))
    }

    /// Checks whether [`new`](Self::new) accepts `text`, without allocating.
    ///
    /// # Errors
    /// Returns the same error as [`new`](Self::new).
    pub fn check(text: &str) -> Result<(), InvalidValue> {
        check_text(text, MAX_USER_ID_CHARS)
    }

    /// Creates a `UserId` from text that is already queued or stored. Returns
    /// `None` if `text` is empty.
    pub fn from_stored(text: impl Into<Box<str>>) -> Option<Self> {
        let text = text.into();
        (!text.is_empty()).then_some(Self(text))
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Action {
    /// Creates an `Action`.
    ///
    /// # Errors
    /// Returns an error if `text` is empty, has more than
    /// [`MAX_ACTION_CHARS`] characters or contains U+0000.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, InvalidValue> {
        let text = text.into();
        Self::check(&text)?;
        Ok(Self(text))
    }

    /// Checks whether [`new`](Self::new) accepts `text`, without allocating.
    ///
    /// # Errors
    /// Returns the same error as [`new`](Self::new).
    pub fn check(text: &str) -> Result<(), InvalidValue> {
        check_text(text, MAX_ACTION_CHARS)
    }

    /// Creates an `Action` from text that is already queued or stored. Returns
    /// `None` if `text` is empty.
    pub fn from_stored(text: impl Into<Box<str>>) -> Option<Self> {
        let text = text.into();
        (!text.is_empty()).then_some(Self(text))
    }

    /// Returns the action as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn append_text(out: &mut Vec<u8>, text: &str) {
    let written = serde_json::to_writer(&mut *out, text);
    debug_assert!(written.is_ok(), "writing text to memory cannot fail");
}

fn check_text(text: &str, max: usize) -> Result<(), InvalidValue> {
    if text.is_empty() {
        return Err(InvalidValue::Empty);
    }
    // A character has at least one byte, so short texts need no counting.
    if text.len() > max {
        let actual = text.chars().count();
        if actual > max {
            return Err(InvalidValue::TooLong { max, actual });
        }
    }
    // Faster than `contains` for short texts.
    if text.bytes().any(|byte| byte == 0) {
        return Err(InvalidValue::ContainsNul);
    }
    Ok(())
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Box<str>>::deserialize(deserializer)?;
        Self::from_stored(text).ok_or_else(|| serde::de::Error::custom("userId is empty"))
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Box<str>>::deserialize(deserializer)?;
        Self::from_stored(text).ok_or_else(|| serde::de::Error::custom("action is empty"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_count_characters_not_bytes() {
        assert!(UserId::new("ü".repeat(256)).is_ok());
        let too_long = UserId::new("ü".repeat(257)).unwrap_err();
        assert_eq!(too_long, InvalidValue::TooLong { max: 256, actual: 257 });
        assert_eq!(too_long.to_string(), "must have at most 256 characters, not 257");
        assert!(Action::new("ü".repeat(128)).is_ok());
        assert!(Action::new("x".repeat(129)).is_err());
        assert_eq!(UserId::check("a\0").unwrap_err().to_string(), "must not contain U+0000");
        assert!(Action::check("A").is_ok());
    }

    #[test]
    fn appended_json_is_that_of_serde() {
        for text in ["u", "\"\\/\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}\u{2028}ü😀"] {
            for millis in [-62_167_219_200_000, 0, 1_768_435_085_442, 253_402_300_799_999] {
                let mut entry = LogEntry::new(
                    LogId::from_bytes([0xa1; 12]),
                    UserId::new(text).unwrap(),
                    Action::new(text).unwrap(),
                    Timestamp::from_millis(millis).unwrap(),
                    Metadata::from_json("{\"a\" :\n\"ü\"}".to_owned()).unwrap(),
                );
                entry.received_at = Timestamp::from_millis(1);
                let mut json = b"before".to_vec();
                entry.append_json(&mut json);
                assert_eq!(json[6..], serde_json::to_vec(&entry).unwrap());
            }
        }
    }

    #[test]
    fn stored_text_can_exceed_the_limits_but_not_be_empty() {
        assert!(UserId::from_stored("x".repeat(300)).is_some());
        assert!(UserId::from_stored("").is_none());
        assert!(Action::from_stored("").is_none());
    }
}
