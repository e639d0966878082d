//! Keys: what a caller with a token may do, and how much of it.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use eyego_log_core::Timestamp;

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Post events.
    Ingest,
    /// Read events.
    Read,
    /// Erase the events of a user.
    Erase,
    /// Read and replay dead letters.
    Admin,
    /// Read `/metrics`.
    Metrics,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 5] = [Self::Ingest, Self::Read, Self::Erase, Self::Admin, Self::Metrics];

    /// Returns the name of the scope in the keys file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Erase => "erase",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scope| scope.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("unknown scope `{text}`: expected one of {names}")
        })
    }
}

/// A number of events per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(NonZeroU32);

impl Rate {
    /// The highest rate: the limiter's clock counts nanoseconds.
    pub const MAX: u32 = 100_000_000;

    /// Creates a rate, unless it is zero or more than [`MAX`](Self::MAX).
    #[must_use]
    pub fn new(events_per_second: u32) -> Option<Self> {
        NonZeroU32::new(events_per_second).filter(|rate| rate.get() <= Self::MAX).map(Self)
    }

    /// Returns the events per second.
    #[must_use]
    pub fn per_second(self) -> NonZeroU32 {
        self.0
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

impl FromStr for Rate {
    type Err = String;

    /// Parses a rate such as `5000/s`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix("/s").and_then(|number| number.trim().parse().ok());
        number.and_then(Self::new).ok_or_else(|| {
            format!("`{text}` is not a rate: expected 1/s to {}/s, such as 5000/s", Self::MAX)
        })
    }
}

/// Limits the events of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventLimit {
    /// Sustained rate.
    pub rate: Rate,
    /// Events that may be sent at once.
    pub burst: NonZeroU32,
}

/// An entry of the keys file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Name of the key in logs and metrics.
    pub id: String,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// What the key allows.
    pub scopes: Vec<Scope>,
    /// Limit of posted events; `None` for no limit.
    pub events: Option<EventLimit>,
    /// Maximum number of requests at the same time; `None` for no limit.
    pub concurrent: Option<NonZeroU32>,
    /// When the key stops being valid; `None` for never.
    pub expires: Option<Timestamp>,
}

impl Key {
    /// Maximum number of characters of an id.
    pub const MAX_ID: usize = 64;

    /// Returns whether `id` has 1 to 64 characters, each a letter, a digit, `-`,
    /// `_` or `.`.
    #[must_use]
    pub fn is_valid_id(id: &str) -> bool {
        let is_allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        (1..=Self::MAX_ID).contains(&id.len()) && id.bytes().all(is_allowed)
    }

    /// Returns whether the key allows `scope`.
    #[must_use]
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Returns whether the key has expired at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}
