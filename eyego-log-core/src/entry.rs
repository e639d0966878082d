//! The log entry and its named parts.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::{MAX_ACTION_CHARS, MAX_USER_ID_CHARS};
use crate::{LogId, Metadata, Timestamp};

/// One thing that a user did.
///
/// As JSON it is what `GET /api/v1/logs` shows: `id`, `userId`, `action`,
/// `timestamp` and `metadata`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// Its identity.
    pub id: LogId,
    /// Who did it.
    pub user_id: UserId,
    /// What was done.
    pub action: Action,
    /// When it was done: as the caller says, else when it was received.
    pub timestamp: Timestamp,
    /// What else is to be known.
    #[serde(default)]
    pub metadata: Metadata,
    /// When the server received it; `None` for entries of the seed, and in the
    /// API's answers, which do not show it.
    #[serde(skip)]
    pub received_at: Option<Timestamp>,
}

impl LogEntry {
    /// Whether the caller named the time. Where it did not, the time is the
    /// receipt's, and differs between an attempt and its retry.
    #[must_use]
    pub fn has_callers_timestamp(&self) -> bool {
        self.received_at != Some(self.timestamp)
    }
}

/// Who did it: a non-empty string.
///
/// [`new`](Self::new) demands what the API promises (1 to 256 characters, no
/// U+0000); [`from_stored`](Self::from_stored) takes what is already queued or
/// stored, however long.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct UserId(Box<str>);

/// What was done: a non-empty string.
///
/// [`new`](Self::new) demands what the API promises (1 to 128 characters, no
/// U+0000); [`from_stored`](Self::from_stored) takes what is already queued or
/// stored, however long.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Action(Box<str>);

impl UserId {
    /// The user with this name.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn new(name: impl Into<Box<str>>) -> Result<Self, String> {
        let name = name.into();
        Self::check(&name)?;
        Ok(Self(name))
    }

    /// Whether [`new`](Self::new) takes this name; allocates nothing for one
    /// that is good.
    ///
    /// # Errors
    /// The fault, as the end of a sentence that begins with the field's name.
    pub fn check(name: &str) -> Result<(), String> {
        check_name(name, MAX_USER_ID_CHARS)
    }

    /// The user with this name, which the queue or the store holds already;
    /// `None` when it is empty.
    pub fn from_stored(name: impl Into<Box<str>>) -> Option<Self> {
        let name = name.into();
        (!name.is_empty()).then_some(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Action {
    /// The action with this name.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn new(name: impl Into<Box<str>>) -> Result<Self, String> {
        let name = name.into();
        Self::check(&name)?;
        Ok(Self(name))
    }

    /// Whether [`new`](Self::new) takes this name; allocates nothing for one
    /// that is good.
    ///
    /// # Errors
    /// The fault, as the end of a sentence that begins with the field's name.
    pub fn check(name: &str) -> Result<(), String> {
        check_name(name, MAX_ACTION_CHARS)
    }

    /// The action with this name, which the queue or the store holds already;
    /// `None` when it is empty.
    pub fn from_stored(name: impl Into<Box<str>>) -> Option<Self> {
        let name = name.into();
        (!name.is_empty()).then_some(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_name(name: &str, max_chars: usize) -> Result<(), String> {
    if name.is_empty() {
        return Err("must be a non-empty string".to_owned());
    }
    // A character has at least one byte: counting is needed only past that.
    if name.len() > max_chars {
        let chars = name.chars().count();
        if chars > max_chars {
            return Err(format!("must have at most {max_chars} characters, not {chars}"));
        }
    }
    if name.contains('\0') {
        return Err("must not contain U+0000".to_owned());
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
        let name = <Box<str>>::deserialize(deserializer)?;
        Self::from_stored(name).ok_or_else(|| serde::de::Error::custom("userId is empty"))
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <Box<str>>::deserialize(deserializer)?;
        Self::from_stored(name).ok_or_else(|| serde::de::Error::custom("action is empty"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_count_characters_not_bytes() {
        assert!(UserId::new("ü".repeat(256)).is_ok());
        assert_eq!(
            UserId::new("ü".repeat(257)).unwrap_err(),
            "must have at most 256 characters, not 257"
        );
        assert!(Action::new("ü".repeat(128)).is_ok());
        assert!(Action::new("x".repeat(129)).is_err());
        assert_eq!(UserId::check("a\0").unwrap_err(), "must not contain U+0000");
        assert!(Action::check("A").is_ok());
    }

    #[test]
    fn the_queue_may_hold_longer_names_but_no_empty_one() {
        assert!(UserId::from_stored("x".repeat(300)).is_some());
        assert!(UserId::from_stored("").is_none());
        assert!(Action::from_stored("").is_none());
    }
}
