//! The types that the eyego-log client and server share.
//!
//! A *log entry* records one user event: `user-123` did `CLICK_BUTTON`, at a
//! time, with some metadata. This crate contains the entry and its validated
//! parts, the request and response bodies of the HTTP API, the query, and the
//! codec of the queue record. It does no I/O, is not async, and reads no clock:
//! the current time is always an argument.
//!
//! JSON text becomes an entry in one of two ways, which differ in what they
//! require:
//!
//! | source | function | requires |
//! |---|---|---|
//! | an API caller (HTTP, SDK) | [`IngestRequest::parse`] | everything the API promises; every invalid field is reported by its path |
//! | the queue | [`record::decode`] | only what the store needs, so that a limit that changed later cannot lose a record |
//!
//! After that, the types guarantee validity and nothing is validated again.
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
//! let error = IngestRequest::parse(br#"{"userId": "", "metadata": []}"#, now).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "userId must be a non-empty string; metadata must be an object; \
//!      action is required: a non-empty string",
//! );
//! ```

mod entry;
mod field;
mod id;
mod json;
mod metadata;
#[cfg(feature = "openapi")]
mod openapi;
pub mod query;
pub mod record;
mod timestamp;
pub mod wire;

pub use entry::{Action, LogEntry, UserId};
pub use field::{FieldError, FieldErrors, InvalidValue};
pub use id::{LogId, LogIdGenerator, ParseLogIdError};
pub use metadata::Metadata;
pub use query::LogQuery;
pub use timestamp::{ParseTimestampError, Timestamp};
pub use wire::{IngestRequest, ParseError};

/// Limits of the HTTP API. They do not apply to the queue: see [`record`].
pub mod limits {
    /// Maximum number of characters (Unicode scalar values) in a `userId`.
    pub const MAX_USER_ID_CHARS: usize = 256;
    /// Maximum number of characters (Unicode scalar values) in an `action`.
    pub const MAX_ACTION_CHARS: usize = 128;
    /// Maximum number of nested objects and arrays in `metadata`, counting
    /// `metadata` itself.
    pub const MAX_DEPTH: usize = 32;
    /// Maximum number of field errors that are listed for one event or query. The
    /// rest is counted.
    pub const MAX_FIELD_ERRORS: usize = 20;
    /// Maximum number of characters of a name or path in an error. A longer one
    /// is cut, and its last character is then an ellipsis.
    pub const MAX_NAME_CHARS: usize = 64;
    /// How far a `timestamp` can be ahead of the receiver's clock, in
    /// milliseconds: 24 hours.
    pub const MAX_AHEAD_MILLIS: i64 = 24 * 60 * 60 * 1000;
    /// Maximum number of segments of a metadata path in a query.
    pub const MAX_PATH_SEGMENTS: usize = 8;
    /// Maximum number of parameters of a query.
    pub const MAX_PARAMETERS: usize = 100;
    /// Maximum number of metadata filters of a query.
    pub const MAX_METADATA_FILTERS: usize = 16;
    /// Maximum number of ways to split the paths of all metadata filters of a query
    /// into keys. One path of [`MAX_PATH_SEGMENTS`] has 128.
    pub const MAX_PATH_ALTERNATIVES: usize = 512;
    /// Maximum number of rows in a page.
    pub const MAX_LIMIT: u32 = 1000;
    /// Number of rows in a page if the query has no `limit`.
    pub const DEFAULT_LIMIT: u32 = 10;
    /// Maximum number of rows that `page` can skip. Deeper pages need `cursor`.
    pub const MAX_SKIPPED_ROWS: u64 = 10_000;
}
