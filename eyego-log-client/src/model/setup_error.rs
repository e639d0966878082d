//! Why a part of a client could not be created.

use std::fmt;

use crate::model::errors::ConfigError;

#[derive(Debug)]
pub(crate) enum SetupError {
    /// The options are wrong, so another attempt would fail as well.
    Config(ConfigError),
    /// The process has no free file descriptor. Another attempt may succeed.
    NoDescriptor(String),
}

impl From<ConfigError> for SetupError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::NoDescriptor(message) => f.write_str(message),
        }
    }
}
