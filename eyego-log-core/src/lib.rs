//! The types that the eyego-log client and server share.
//!
//! A *log entry* says that a user did something: `user-123` did
//! `CLICK_BUTTON`, at a time, with some metadata. This crate holds the entry
//! and its validated parts, the bodies of the HTTP API, the query, and the
//! codec of the record in the queue. It does no I/O, is not async, and reads
//! no clock: the time comes in as an argument.
//!
//! Text becomes an entry in one of two ways, which differ in what they demand:
//!
//! | from | by | demands |
//! |---|---|---|
//! | a caller (HTTP, SDK) | [`IngestRequest::parse`] | everything that the API promises; every fault is reported, by path |
//! | the queue | [`record::decode`] | only what the store needs: a limit changed since must not lose a record |
//!
//! After that the types carry the proof and nothing checks again.
//!
//! ```
//! use eyego_log_core::{IngestRequest, Timestamp};
//!
//! let now = Timestamp::from_millis(1_768_435_085_442).unwrap();
//! let body = br#"{"userId": "user-123", "action": "CLICK_BUTTON", "metadata": {"page": "home"}}"#;
//! let request = IngestRequest::parse(body, now).unwrap();
//! assert_eq!(request.user_id.as_str(), "user-123");
//! assert_eq!(request.metadata.as_json(), r#"{"page": "home"}"#);
//!
//! let faults = IngestRequest::parse(br#"{"userId": "", "metadata": []}"#, now).unwrap_err();
//! assert_eq!(
//!     faults.to_string(),
//!     "userId must be a non-empty string; metadata must be an object; \
//!      action is required: a non-empty string",
//! );
//! ```

mod entry;
mod field;
mod id;
mod json;
mod metadata;
pub mod query;
pub mod record;
mod timestamp;
pub mod wire;

pub use entry::{Action, LogEntry, UserId};
pub use field::{FieldError, FieldErrors};
pub use id::{LogId, LogIdGenerator, ParseLogIdError};
pub use metadata::Metadata;
pub use query::LogQuery;
pub use timestamp::{ParseTimestampError, Timestamp};
pub use wire::{IngestRequest, ParseError};

/// What the HTTP API accepts. The queue binds nothing of this: see [`record`].
pub mod limits {
    /// Characters (Unicode scalar values) in a `userId`.
    pub const MAX_USER_ID_CHARS: usize = 256;
    /// Characters (Unicode scalar values) in an `action`.
    pub const MAX_ACTION_CHARS: usize = 128;
    /// Levels of objects and arrays in `metadata`, which is the first.
    pub const MAX_DEPTH: usize = 32;
    /// How far ahead of the receiver's clock a `timestamp` may be, in
    /// milliseconds: 24 hours.
    pub const MAX_AHEAD_MILLIS: i64 = 24 * 60 * 60 * 1000;
    /// Segments of a metadata path in a query.
    pub const MAX_PATH_SEGMENTS: usize = 8;
    /// Rows in a page.
    pub const MAX_LIMIT: u32 = 1000;
    /// Rows in a page when the query does not say.
    pub const DEFAULT_LIMIT: u32 = 10;
    /// Rows that `page` may skip; deeper goes by `cursor`.
    pub const MAX_SKIPPED_ROWS: u64 = 10_000;
}
