//! The reasons for which an event can be lost.

use std::fmt;

/// The reason why an event was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossReason {
    /// The buffer was full.
    Overflow,
    /// The server rejected the event because one of its fields is invalid.
    Invalid,
    /// The event exceeds the server's size limit, even when it is sent alone.
    TooLarge,
    /// The server does not accept the API key (401), or the key has no
    /// permission to write (403). Events in the spool are kept instead.
    Unauthorized,
    /// The eyego-log server refused the request with a status that a retry
    /// cannot fix, such as 404 because the path in the URL is wrong.
    Refused,
    /// The event could not be delivered within the delivery timeout, or it
    /// reached the maximum age of the spool.
    Expired,
    /// Like `Expired`, but the last response did not come from an eyego-log
    /// server.
    UnexpectedResponse,
    /// The client was shut down before the event could be delivered.
    Shutdown,
    /// The worker thread failed permanently.
    WorkerFailed,
    /// A spool file is damaged or can no longer be read. The number of events
    /// in it can then be an estimate.
    Damaged,
    /// An earlier process ended while it was writing the event to the spool.
    /// The event was never sent.
    Interrupted,
    /// The event was logged in a forked child of the process that built the
    /// client. A child needs a client of its own.
    Forked,
}

impl LossReason {
    /// All reasons, in the order of declaration.
    pub const ALL: [Self; 12] = [
        Self::Overflow,
        Self::Invalid,
        Self::TooLarge,
        Self::Unauthorized,
        Self::Refused,
        Self::Expired,
        Self::UnexpectedResponse,
        Self::Shutdown,
        Self::WorkerFailed,
        Self::Damaged,
        Self::Interrupted,
        Self::Forked,
    ];

    /// Returns the reason in snake case, for use as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Unauthorized => "unauthorized",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::UnexpectedResponse => "unexpected_response",
            Self::Shutdown => "shutdown",
            Self::WorkerFailed => "worker_failed",
            Self::Damaged => "damaged",
            Self::Interrupted => "interrupted",
            Self::Forked => "forked",
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
