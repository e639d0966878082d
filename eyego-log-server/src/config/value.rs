//! How values are written: sizes (`16 MiB`), durations (`25s`), secrets.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, de};

use super::ConfigError;

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A number of bytes, as `1048576`, `1 MiB` or `1MB`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(ByteSize);

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| "expected a size such as 16 MiB".to_owned())
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(u64),
            Text(String),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Number(bytes) => Ok(Self(ByteSize(bytes))),
            Raw::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

/// A duration, as `25s`, `500ms` or `1m 30s`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span(pub(super) Duration);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|error| format!("expected a duration such as 25s: {error}"))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The size that was said, or the default, if it is in the range.
pub(super) fn size(
    variable: &str,
    said: Option<Size>,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, ConfigError> {
    let bytes = said.map_or(default, |size| size.0.as_u64());
    if range.contains(&bytes) {
        return Ok(bytes);
    }
    let (min, max) = range.into_inner();
    Err(ConfigError::Invalid(format!(
        "{variable} must be from {} to {}, not {}",
        ByteSize(min),
        ByteSize(max),
        ByteSize(bytes)
    )))
}

/// The same as an amount of memory.
pub(super) fn memory(
    variable: &str,
    said: Option<Size>,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<usize, ConfigError> {
    let bytes = size(variable, said, default, range)?;
    usize::try_from(bytes).map_err(|_| {
        ConfigError::Invalid(format!("{variable} is more than this machine can address"))
    })
}

/// What was said, unless it says nothing: an empty variable is as good as none.
pub(super) fn non_empty(said: Option<String>) -> Option<String> {
    said.filter(|text| !text.trim().is_empty())
}
