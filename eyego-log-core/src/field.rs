//! Validation errors: why a value is invalid, and which field it belongs to.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{MAX_FIELD_ERRORS, MAX_NAME_CHARS};

/// Maximum number of characters of a reason. Only reasons that quote what others
/// wrote, such as the errors of a caller's own `Serialize`, can be longer.
const MAX_REASON_CHARS: usize = 512;

/// The reason a value is invalid.
///
/// The message continues a sentence that starts with the name of the field:
/// `must be a non-empty string`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidValue {
    /// The value is empty.
    #[error("must be a non-empty string")]
    Empty,
    /// The value has too many characters (Unicode scalar values).
    #[error("must have at most {max} characters, not {actual}")]
    TooLong {
        /// Maximum number of characters.
        max: usize,
        /// Number of characters in the value.
        actual: usize,
    },
    /// The value contains U+0000.
    #[error("must not contain U+0000")]
    ContainsNul,
    /// The metadata path has too many segments.
    #[error("must have at most {max} segments after metadata")]
    TooManySegments {
        /// Maximum number of segments.
        max: usize,
    },
}

/// One invalid field of a caller's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FieldError {
    /// Path of the field, such as `userId`, `metadata.items[2].price` or
    /// `metadata["a.b"]`. Keys that are not plain words are quoted. A path of more
    /// than [`MAX_NAME_CHARS`] characters is cut. Empty if the error concerns the
    /// input as a whole.
    pub path: String,
    /// Human-readable message that says how to fix the field. It starts with
    /// the path.
    pub message: String,
}

impl FieldError {
    /// Creates an error for the field at `path`. `reason` continues a sentence
    /// that starts with the path, for example `must be an object`.
    ///
    /// ```
    /// use eyego_log_core::FieldError;
    ///
    /// let error = FieldError::new("x".repeat(1000), "must be an object");
    /// assert_eq!(error.path, format!("{}…", "x".repeat(63)));
    /// assert_eq!(error.message, format!("{} must be an object", error.path));
    /// ```
    pub fn new(path: impl fmt::Display, reason: impl fmt::Display) -> Self {
        let path = truncated(path, MAX_NAME_CHARS);
        let message = format!("{path} {}", truncated(reason, MAX_REASON_CHARS));
        Self { path, message }
    }

    /// Creates an error that concerns the input as a whole. `message` is a
    /// sentence of its own.
    pub fn of_input(message: impl fmt::Display) -> Self {
        Self { path: String::new(), message: truncated(message, MAX_REASON_CHARS) }
    }
}

/// Formats `value` with control characters escaped, and cuts the text at `max`
/// characters, the last of which is then an ellipsis. Formatting stops at the cut.
pub(crate) fn truncated(value: impl fmt::Display, max: usize) -> String {
    struct Limited {
        text: String,
        chars_left: usize,
        /// Where to cut the text if there is more: after `max - 1` characters.
        cut: usize,
    }

    impl fmt::Write for Limited {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            text.chars().try_for_each(|c| {
                if c.is_control() {
                    c.escape_unicode().try_for_each(|c| self.push(c))
                } else {
                    self.push(c)
                }
            })
        }
    }

    impl Limited {
        fn push(&mut self, c: char) -> fmt::Result {
            if self.chars_left == 0 {
                return Err(fmt::Error);
            }
            self.chars_left -= 1;
            if self.chars_left == 0 {
                self.cut = self.text.len();
            }
            self.text.push(c);
            Ok(())
        }
    }

    let mut limited = Limited { text: String::new(), chars_left: max, cut: 0 };
    // Only the limit causes an error.
    if write!(limited, "{value}").is_err() {
        limited.text.truncate(limited.cut);
        limited.text.push('…');
    }
    limited.text
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for FieldError {}

/// The errors found in one input, in the order of the input.
///
/// The first [`MAX_FIELD_ERRORS`] errors are listed. If there are more, a last
/// one without a path counts the rest: `and 3 more errors`.
#[derive(Debug, Clone, Default)]
pub struct FieldErrors {
    listed: Vec<FieldError>,
    /// Number of errors that are only counted.
    unlisted: usize,
}

impl FieldErrors {
    /// Creates an empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an error, or counts it if the list is full.
    pub fn push(&mut self, error: FieldError) {
        if self.has_room() {
            self.listed.push(error);
        } else {
            self.count();
        }
    }

    /// Appends [`FieldError::new`], or only counts the error, without formatting
    /// it, if the list is full.
    pub fn add(&mut self, path: impl fmt::Display, reason: impl fmt::Display) {
        if self.has_room() {
            self.listed.push(FieldError::new(path, reason));
        } else {
            self.count();
        }
    }

    fn has_room(&self) -> bool {
        self.listed.len() < MAX_FIELD_ERRORS
    }

    fn count(&mut self) {
        self.unlisted += 1;
        let plural = if self.unlisted == 1 { "" } else { "s" };
        if self.unlisted == 1 {
            self.listed.push(FieldError { path: String::new(), message: String::new() });
        }
        if let Some(FieldError { message, .. }) = self.listed.last_mut() {
            message.clear();
            let written = write!(message, "and {} more error{plural}", self.unlisted);
            debug_assert!(written.is_ok(), "writing to memory cannot fail");
        }
    }

    /// Returns the number of errors, including those that are only counted.
    #[must_use]
    pub fn total(&self) -> usize {
        self.listed.len() - usize::from(self.unlisted > 0) + self.unlisted
    }

    /// Returns `true` if the list has no errors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Returns the length of the list, at most [`MAX_FIELD_ERRORS`] and one for
    /// the count of the rest.
    #[must_use]
    pub fn len(&self) -> usize {
        self.listed.len()
    }

    /// Returns an iterator over the errors, in the order of the input.
    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.listed.iter()
    }

    /// Converts the list into a vector.
    #[must_use]
    pub fn into_vec(self) -> Vec<FieldError> {
        self.listed
    }
}

impl From<FieldError> for FieldErrors {
    fn from(error: FieldError) -> Self {
        Self { listed: vec![error], unlisted: 0 }
    }
}

impl PartialEq for FieldErrors {
    fn eq(&self, other: &Self) -> bool {
        self.listed == other.listed
    }
}

impl Eq for FieldErrors {}

impl Serialize for FieldErrors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.listed.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FieldErrors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { listed: Deserialize::deserialize(deserializer)?, unlisted: 0 })
    }
}

impl<'a> IntoIterator for &'a FieldErrors {
    type Item = &'a FieldError;
    type IntoIter = std::slice::Iter<'a, FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for FieldErrors {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.listed.into_iter()
    }
}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.listed.iter().enumerate() {
            if n > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for FieldErrors {}

/// The path of the value being checked. It is formatted only for an error.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Path<'a> {
    /// A top-level field.
    Field(&'a str),
    /// A key of the object at the parent path.
    Key(&'a Path<'a>, &'a str),
    /// An element of the array at the parent path.
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => f.write_str(name),
            Self::Key(parent, key) => {
                // More characters would be cut anyway.
                let key = prefix(key, MAX_NAME_CHARS + 1);
                let plain = !key.is_empty()
                    && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
                if plain {
                    write!(f, "{parent}.{key}")
                } else {
                    // JSON quoting escapes control characters.
                    let quoted = serde_json::Value::from(key);
                    write!(f, "{parent}[{quoted}]")
                }
            }
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Returns the first `max` characters of `text`.
fn prefix(text: &str, max: usize) -> &str {
    let end = text.char_indices().nth(max).map_or(text.len(), |(end, _)| end);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn errors_beyond_the_limit_are_counted() {
        let mut errors = FieldErrors::new();
        for count in 1..=100_000 {
            errors.add(count, "is wrong");
            assert_eq!(errors.total(), count);
        }
        assert_eq!(errors.len(), 21);
        let list = errors.into_vec();
        assert_eq!(list[19].message, "20 is wrong");
        assert_eq!(
            (list[20].path.as_str(), list[20].message.as_str()),
            ("", "and 99980 more errors")
        );

        let mut errors = FieldErrors::new();
        (0..21).for_each(|_| errors.push(FieldError::new("x", "is wrong")));
        assert!(errors.to_string().ends_with("x is wrong; and 1 more error"));
    }

    #[test]
    fn formatting_stops_at_the_limit() {
        struct Endless;

        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("é")?;
                }
            }
        }

        let error = FieldError::new(Endless, Endless);
        assert_eq!(error.path, "é".repeat(63) + "…");
        assert_eq!(error.message.chars().count(), 64 + 1 + MAX_REASON_CHARS);
        assert_eq!(FieldError::of_input(Endless).message.chars().count(), MAX_REASON_CHARS);
    }

    proptest! {
        #[test]
        fn text_is_cut_only_if_it_is_too_long(parts in prop::collection::vec("\\PC{0,9}", 0..12), max in 1..60_usize) {
            struct Parts<'a>(&'a [String]);

            impl fmt::Display for Parts<'_> {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.iter().try_for_each(|part| f.write_str(part))
                }
            }

            let whole = parts.concat();
            let expected = if whole.chars().count() <= max {
                whole
            } else {
                whole.chars().take(max - 1).chain(['…']).collect()
            };
            prop_assert_eq!(truncated(Parts(&parts), max), expected);
        }

        #[test]
        fn paths_and_messages_are_bounded(keys in prop::collection::vec(any::<String>(), 0..6), repeat in 1..50_usize) {
            fn check(path: Path<'_>, keys: &[String]) {
                match keys.split_first() {
                    Some((key, rest)) => check(Path::Key(&path, key), rest),
                    None => {
                        let error = FieldError::new(path, "is wrong");
                        assert!(error.path.chars().count() <= MAX_NAME_CHARS);
                        assert!(!error.message.contains(char::is_control));
                    }
                }
            }

            let keys: Vec<_> = keys.into_iter().map(|key| key.repeat(repeat)).collect();
            check(Path::Field("metadata"), &keys);
        }
    }

    #[test]
    fn paths_quote_keys_that_are_not_plain_words() {
        let root = Path::Field("metadata");
        let items = Path::Key(&root, "items");
        let third = Path::Index(&items, 2);
        let dotted = Path::Key(&third, "a.b\0");
        assert_eq!(dotted.to_string(), r#"metadata.items[2]["a.b\u0000"]"#);
    }
}
