//! Faults of a caller's input, by the path of the field.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One fault: where it is, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// The field, such as `userId`, `metadata.items[2].price` or
    /// `metadata["a.b"]` (a key that is not a plain word is quoted).
    pub path: String,
    /// The fault and its mend, for people. It begins with the path.
    pub message: String,
}

impl FieldError {
    /// A fault at `path`; `fault` continues a sentence that the path begins:
    /// `must be an object`.
    pub fn new(path: impl Into<String>, fault: impl fmt::Display) -> Self {
        let path = path.into();
        let message = format!("{path} {fault}");
        Self { path, message }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Every fault that was found in one input, in the order of the input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// No fault yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The faults, in the order of the input.
    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }

    /// The faults as a vector.
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

/// Where the walk through a document stands; written out only for a fault.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Path<'a> {
    /// The name of a top-level field.
    Field(&'a str),
    /// A key of an object below.
    Key(&'a Path<'a>, &'a str),
    /// An element of an array below.
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
                    // JSON's quoting shows a control character instead of printing it.
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
    fn paths_quote_what_is_not_a_plain_word() {
        let root = Path::Field("metadata");
        let items = Path::Key(&root, "items");
        let third = Path::Index(&items, 2);
        let dotted = Path::Key(&third, "a.b\0");
        assert_eq!(dotted.to_string(), r#"metadata.items[2]["a.b\u0000"]"#);
    }
}
