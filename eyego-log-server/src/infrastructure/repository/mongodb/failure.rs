//! What MongoDB's errors mean to us: ONE table of codes ([`class_of`]), and the
//! ways in which an error of the driver is read by it. What is done about them
//! is the caller's.

use std::time::Duration;

use mongodb::error::{
    Error, ErrorKind, RETRYABLE_ERROR, RETRYABLE_WRITE_ERROR, TRANSIENT_TRANSACTION_ERROR,
    WriteFailure,
};

use crate::domain::repository::{ReadError, StoreError};

pub(super) const DUPLICATE_KEY: i32 = 11000;
pub(super) const NAMESPACE_NOT_FOUND: i32 = 26;
const MAX_TIME_EXPIRED: i32 = 50;

/// Who can do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Nobody has to: it passes.
    Transient,
    /// Who runs MongoDB.
    Operator,
    /// Nobody: reported for one document, it is that document's fault.
    Document,
    /// It is not known.
    Unknown,
}

/// What an error code of the server means.
#[must_use]
pub(super) fn class_of(code: i32) -> Class {
    match code {
        // HostUnreachable, HostNotFound, LockTimeout, LockBusy,
        // MaxTimeMSExpired, StaleShardVersion, WriteConcernTimeout,
        // NetworkTimeout, CallbackCanceled, ShutdownInProgress,
        // NotYetInitialized, LockFailed, ConfigurationInProgress
        6 | 7 | 24 | 46 | 50 | 63 | 64 | 89 | 90 | 91 | 94 | 107 | 109
        // WriteConflict, ConflictingOperationInProgress,
        // FailedToSatisfyReadPreference, ReadConcernMajorityNotAvailableYet,
        // StaleTerm, NoConfigPrimary, StaleEpoch, QueryPlanKilled,
        // PrimarySteppedDown, NetworkInterfaceExceededTimeLimit
        | 112 | 117 | 133 | 134 | 135 | 149 | 150 | 175 | 189 | 202
        // TransactionTooOld, CursorKilled, SnapshotTooOld,
        // SnapshotUnavailable, NoSuchTransaction, ExceededTimeLimit,
        // TransactionExceededLifetimeLimit, ObjectIsBusy,
        // ReauthenticationRequired, IngressRequestRateLimitExceeded
        | 225 | 237 | 239 | 246 | 251 | 262 | 290 | 314 | 391 | 462
        // SocketException, NotPrimaryNoSecondaryOk (legacy),
        // NotWritablePrimary, InterruptedAtShutdown, Interrupted,
        // InterruptedDueToReplStateChange, background operations,
        // StaleConfig, NotPrimaryNoSecondaryOk, NotPrimaryOrSecondary
        | 9001 | 10058 | 10107 | 11600 | 11601 | 11602 | 12586 | 12587 | 13388 | 13435 | 13436 => {
            Class::Transient
        }
        // UserNotFound, Unauthorized, AuthenticationFailed, IllegalOperation
        // (such as a cluster that is read-only), RoleNotFound
        11 | 13 | 18 | 20 | 31
        // FileRenameFailed, FileNotOpen, FileStreamFailed, LogWriteFailed,
        // ManualInterventionRequired, AuthSchemaIncompatible, InvalidNamespace
        | 37 | 38 | 39 | 42 | 51 | 69 | 73
        // UnknownReplWriteConcern, UnsatisfiableWriteConcern,
        // CommandNotSupportedOnView, UserWritesBlocked
        | 79 | 100 | 166 | 371
        // Atlas's own errors (access, quota), OutOfDiskSpace
        | 8000 | 14031 => Class::Operator,
        // BadValue, FailedToParse, TypeMismatch, Overflow, InvalidLength,
        // InvalidBSON, DollarPrefixedFieldName, InvalidIdField,
        // NotSingleValueField, InvalidDBRef, EmptyFieldName, DottedFieldName
        2 | 9 | 14 | 15 | 16 | 22 | 52 | 53 | 54 | 55 | 56 | 57
        // ShardKeyNotFound, DocTooLargeForCapped, DocumentValidationFailure,
        // CannotIndexParallelArrays
        | 61 | 116 | 121 | 171
        // BSONObjectTooLarge, DuplicateKey (of another index than `_id`), the
        // keys of geo and text indexes, KeyTooLong, too large
        | 10334 | DUPLICATE_KEY | 16755 | 17261 | 17262 | 17280 | 17419 | 17420 => Class::Document,
        _ => Class::Unknown,
    }
}

/// What an unfulfilled write concern means: what was written may be lost. It
/// says nothing of the documents.
#[must_use]
pub(super) fn class_of_concern(code: i32) -> Class {
    match class_of(code) {
        Class::Operator => Class::Operator,
        Class::Transient | Class::Document | Class::Unknown => Class::Transient,
    }
}

/// An operation that has no answer, or a bad one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) class: Class,
    /// A word for machines.
    pub(super) code: String,
    /// The same for people; never credentials.
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(class: Class, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { class, code: code.into(), message: message.into() }
    }

    /// Something passes, by our own judgement.
    pub(super) fn transient(message: impl Into<String>) -> Self {
        Self::new(Class::Transient, "mongodb_unavailable", message)
    }

    /// No answer within this time.
    pub(super) fn silence(limit: Duration) -> Self {
        Self::transient(format!("MongoDB does not answer within {} s", limit.as_secs()))
    }

    /// What the server answered instead.
    pub(super) fn of_code(class: Class, code: i32, name: &str, message: &str) -> Self {
        let name = if name.is_empty() { "error" } else { name };
        Self::new(class, code_word(code), format!("MongoDB: {name} ({code}): {}", brief(message)))
    }
}

/// An error code as a word.
pub(super) fn code_word(code: i32) -> String {
    format!("mongodb_{code}")
}

/// The server's text, cut: some messages quote whole documents.
pub(super) fn brief(message: &str) -> &str {
    const LONGEST: usize = 500;
    cut(message, LONGEST)
}

/// The beginning of a text, of so many bytes at most.
pub(super) fn cut(text: &str, longest: usize) -> &str {
    let end = (0..=longest.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let is_retryable = [RETRYABLE_WRITE_ERROR, TRANSIENT_TRANSACTION_ERROR, RETRYABLE_ERROR]
            .iter()
            .any(|label| error.contains_label(label));
        match error.kind.as_ref() {
            ErrorKind::Command(command) => {
                let class = match class_of(command.code) {
                    Class::Operator => Class::Operator,
                    _ if is_retryable => Class::Transient,
                    // The command is refused, not a document.
                    Class::Document | Class::Unknown => Class::Unknown,
                    Class::Transient => Class::Transient,
                };
                if command.code == MAX_TIME_EXPIRED {
                    return Self::new(class, code_word(command.code), "MongoDB took too long");
                }
                Self::of_code(class, command.code, &command.code_name, &command.message)
            }
            ErrorKind::Write(WriteFailure::WriteError(write)) => {
                let class = match class_of(write.code) {
                    // Two of us put the same id there at once.
                    _ if is_retryable || write.code == DUPLICATE_KEY => Class::Transient,
                    class => class,
                };
                let name = write.code_name.as_deref().unwrap_or_default();
                Self::of_code(class, write.code, name, &write.message)
            }
            ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => {
                let class = class_of_concern(concern.code);
                Self::of_code(class, concern.code, &concern.code_name, &concern.message)
            }
            kind => of_connection(kind, is_retryable),
        }
    }
}

/// Errors that never reached the server, or came back broken.
fn of_connection(kind: &ErrorKind, is_retryable: bool) -> Failure {
    let new = |class, code: &str, message: String| Failure::new(class, code, message);
    match kind {
        ErrorKind::Io(error) => {
            new(Class::Transient, "mongodb_io", format!("the connection to MongoDB broke: {error}"))
        }
        ErrorKind::ServerSelection { message, .. } => {
            new(Class::Transient, "mongodb_unreachable", unreachable(message))
        }
        ErrorKind::ConnectionPoolCleared { .. } => new(
            Class::Transient,
            "mongodb_io",
            "the connections to MongoDB were closed after one failed".to_owned(),
        ),
        ErrorKind::DnsResolve { message, .. } => new(
            Class::Transient,
            "mongodb_dns",
            format!("MongoDB's name cannot be resolved: {}", brief(message)),
        ),
        ErrorKind::Shutdown => {
            new(Class::Transient, "mongodb_closed", "the MongoDB client is closed".to_owned())
        }
        ErrorKind::Authentication { message, .. } => new(
            Class::Operator,
            "mongodb_authentication",
            format!("MongoDB refuses the credentials: {}", brief(message)),
        ),
        ErrorKind::InvalidTlsConfig { message, .. } => {
            new(Class::Operator, "mongodb_tls", format!("TLS to MongoDB: {}", brief(message)))
        }
        ErrorKind::IncompatibleServer { message, .. } => {
            new(Class::Operator, "mongodb_incompatible", brief(message).to_owned())
        }
        other => new(
            if is_retryable { Class::Transient } else { Class::Unknown },
            "mongodb_driver",
            brief(&other.to_string()).to_owned(),
        ),
    }
}

/// The driver's text lists its whole view of the cluster in debugging form;
/// what matters is the reason of the last failure.
fn unreachable(message: &str) -> String {
    if !message.starts_with("Server selection timeout") {
        // A server that this driver cannot talk to, in plain words.
        return brief(message).to_owned();
    }
    let reason = message.split_once("Error: Kind: ").map(|(_, rest)| rest);
    match reason.and_then(|rest| rest.split_once(", labels")) {
        Some((reason, _)) => format!("MongoDB cannot be reached: {}", brief(reason)),
        None => "MongoDB has no primary that can be reached".to_owned(),
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let Failure { class, code, message } = failure;
        match class {
            Class::Transient => Self::Transient(message),
            Class::Operator => Self::Operator(message),
            Class::Document | Class::Unknown => Self::Unknown { code, message },
        }
    }
}

impl From<Failure> for ReadError {
    fn from(failure: Failure) -> Self {
        match failure.class {
            Class::Transient | Class::Operator => Self::Unavailable(failure.message),
            Class::Document | Class::Unknown => Self::Failed(failure.message),
        }
    }
}

#[cfg(test)]
mod tests;
