//! A problem, as the statistics describe it.

use std::fmt;

use eyego_log_core::Timestamp;

/// A problem of the client, such as a server that cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// A description for people.
    pub message: String,
    /// When the problem last occurred.
    pub time: Timestamp,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.time)
    }
}
