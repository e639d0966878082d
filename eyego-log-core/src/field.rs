//! Validation errors: why a value is invalid, and which field it belongs to.

use std::fmt;

use serde::{Deserialize, Serialize};

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
    /// `metadata["a.b"]`. Keys that are not plain words are quoted.
    pub path: String,
    /// Human-readable message that says how to fix the field. It starts with
    /// the path.
    pub message: String,
}

impl FieldError {
    /// Creates an error for the field at `path`. `reason` continues a sentence
    /// that starts with the path, for example `must be an object`.
    pub fn new(path: impl Into<String>, reason: impl fmt::Display) -> Self {
        let path = path.into();
        let message = format!("{path} {reason}");
        Self { path, message }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for FieldError {}

/// All errors found in one input, in the order of the input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// Creates an empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an error.
    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// Returns `true` if the list has no errors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of errors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns an iterator over the errors, in the order of the input.
    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }

    /// Converts the list into a vector.
    #[must_use]
    pub fn into_vec(self) -> Vec<FieldError> {
        self.0
    }
}

impl From<FieldError> for FieldErrors {
    fn from(error: FieldError) -> Self {
        Self(vec![error])
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
        self.0.into_iter()
    }
}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
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
                let plain = !key.is_empty()
                    && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
                if plain {
                    write!(f, "{parent}.{key}")
                } else {
                    // JSON quoting escapes control characters.
                    let quoted = serde_json::Value::from(*key);
                    write!(f, "{parent}[{quoted}]")
                }
            }
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_quote_keys_that_are_not_plain_words() {
        let root = Path::Field("metadata");
        let items = Path::Key(&root, "items");
        let third = Path::Index(&items, 2);
        let dotted = Path::Key(&third, "a.b\0");
        assert_eq!(dotted.to_string(), r#"metadata.items[2]["a.b\u0000"]"#);
    }
}
