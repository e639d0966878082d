//! Classifies MongoDB's errors: one table of the server's codes ([`class_of`]), and
//! the conversion of the driver's errors. Callers decide what to do about them.

use std::time::Duration;

use mongodb::error::{
    Error, ErrorKind, RETRYABLE_ERROR, RETRYABLE_WRITE_ERROR, TRANSIENT_TRANSACTION_ERROR,
    WriteFailure,
};

use crate::domain::dead_letter::beginning;
use crate::domain::read::ReadError;
use crate::domain::repository::StoreError;
use crate::infrastructure::repository::limits::MAX_READ_TIME;

pub(super) const DUPLICATE_KEY: i32 = 11000;
pub(super) const NAMESPACE_NOT_FOUND: i32 = 26;
const MAX_TIME_EXPIRED: i32 = 50;

/// The kind of an error, by what resolves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// It resolves itself: retry.
    Transient,
    /// An operator of MongoDB has to resolve it.
    Operator,
    /// If reported for a document, that document is the cause. Retrying does not
    /// help.
    Document,
    /// The code is not in the table.
    Unknown,
}

/// Returns the class of a server's error code.
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
        // AtlasError (access, quota), OutOfDiskSpace
        | 8000 | 14031 => Class::Operator,
        // BadValue, FailedToParse, TypeMismatch, Overflow, InvalidLength,
        // InvalidBSON, DollarPrefixedFieldName, InvalidIdField,
        // NotSingleValueField, InvalidDBRef, EmptyFieldName, DottedFieldName
        2 | 9 | 14 | 15 | 16 | 22 | 52 | 53 | 54 | 55 | 56 | 57
        // ShardKeyNotFound, DocTooLargeForCapped, DocumentValidationFailure,
        // CannotIndexParallelArrays
        | 61 | 116 | 121 | 171
        // BSONObjectTooLarge, DuplicateKey (of an index other than `_id`),
        // invalid keys of geo and text indexes, KeyTooLong, too large
        | 10334 | DUPLICATE_KEY | 16755 | 17261 | 17262 | 17280 | 17419 | 17420 => Class::Document,
        _ => Class::Unknown,
    }
}

/// Returns the class of a write concern error: the write may be lost. No document
/// is the cause.
#[must_use]
pub(super) fn class_of_concern(code: i32) -> Class {
    match class_of(code) {
        Class::Operator => Class::Operator,
        Class::Transient | Class::Document | Class::Unknown => Class::Transient,
    }
}

/// A failed operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) class: Class,
    /// Machine-readable code.
    pub(super) code: String,
    /// Human-readable message. It contains no credentials.
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(class: Class, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { class, code: code.into(), message: message.into() }
    }

    /// Creates a transient failure that has no code of its own.
    pub(super) fn transient(message: impl Into<String>) -> Self {
        Self::new(Class::Transient, "mongodb_unavailable", message)
    }

    /// Creates the failure of an operation without a response in this time.
    pub(super) fn timed_out(timeout: Duration) -> Self {
        Self::transient(format!("MongoDB did not respond within {} s", timeout.as_secs()))
    }

    /// Creates the failure for an error that the server returned.
    pub(super) fn of_code(class: Class, code: i32, name: &str, message: &str) -> Self {
        let name = if name.is_empty() { "error" } else { name };
        Self::new(class, code_of(code), format!("MongoDB: {name} ({code}): {}", shorten(message)))
    }
}

/// Returns the machine-readable code for a server's error code.
pub(super) fn code_of(code: i32) -> String {
    format!("mongodb_{code}")
}

/// Shortens a message of the server, because some quote whole documents.
pub(super) fn shorten(message: &str) -> &str {
    const MAX_BYTES: usize = 500;
    beginning(message, MAX_BYTES)
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
                    // The server refused the command, not a document.
                    Class::Document | Class::Unknown => Class::Unknown,
                    Class::Transient => Class::Transient,
                };
                if command.code == MAX_TIME_EXPIRED {
                    return Self::new(
                        class,
                        code_of(command.code),
                        "MongoDB exceeded the time limit of the operation",
                    );
                }
                Self::of_code(class, command.code, &command.code_name, &command.message)
            }
            ErrorKind::Write(WriteFailure::WriteError(write)) => {
                let class = match class_of(write.code) {
                    // Two upserts inserted the same id at the same time.
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
            kind => from_driver(kind, is_retryable),
        }
    }
}

/// Classifies errors that the driver reports itself.
fn from_driver(kind: &ErrorKind, is_retryable: bool) -> Failure {
    let new = |class, code: &str, message: String| Failure::new(class, code, message);
    match kind {
        ErrorKind::Io(error) => new(
            Class::Transient,
            "mongodb_io",
            format!("the connection to MongoDB failed: {error}"),
        ),
        ErrorKind::ServerSelection { message, .. } => {
            new(Class::Transient, "mongodb_unreachable", unreachable(message))
        }
        ErrorKind::ConnectionPoolCleared { .. } => new(
            Class::Transient,
            "mongodb_io",
            "the connections to MongoDB were closed because one failed".to_owned(),
        ),
        ErrorKind::DnsResolve { message, .. } => new(
            Class::Transient,
            "mongodb_dns",
            format!("MongoDB's host name cannot be resolved: {}", shorten(message)),
        ),
        ErrorKind::Shutdown => {
            new(Class::Transient, "mongodb_closed", "the MongoDB client is closed".to_owned())
        }
        ErrorKind::Authentication { message, .. } => new(
            Class::Operator,
            "mongodb_authentication",
            format!("MongoDB refuses the credentials: {}", shorten(message)),
        ),
        ErrorKind::InvalidTlsConfig { message, .. } => new(
            Class::Operator,
            "mongodb_tls",
            format!("TLS to MongoDB is misconfigured: {}", shorten(message)),
        ),
        ErrorKind::IncompatibleServer { message, .. } => {
            new(Class::Operator, "mongodb_incompatible", shorten(message).to_owned())
        }
        other => new(
            if is_retryable { Class::Transient } else { Class::Unknown },
            "mongodb_driver",
            shorten(&other.to_string()).to_owned(),
        ),
    }
}

/// Extracts the reason of the last failure from the driver's message, which
/// contains the whole topology in debug format.
fn unreachable(message: &str) -> String {
    if !message.starts_with("Server selection timeout") {
        // The driver does not support the server and says so in plain words.
        return shorten(message).to_owned();
    }
    let reason = message.split_once("Error: Kind: ").map(|(_, rest)| rest);
    match reason.and_then(|rest| rest.split_once(", labels")) {
        Some((reason, _)) => format!("MongoDB cannot be reached: {}", shorten(reason)),
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
            Class::Transient if failure.code == code_of(MAX_TIME_EXPIRED) => {
                Self::TimedOut(MAX_READ_TIME)
            }
            Class::Transient | Class::Operator => Self::Unavailable(failure.message),
            Class::Document | Class::Unknown => Self::Failed(failure.message),
        }
    }
}

#[cfg(test)]
mod tests;
