//! What errors lead to: a retry, a report to the operator, or a rejected event.

use mongodb::error::ErrorKind;

use super::*;

/// The codes that the driver specifications call retryable, for reads or writes.
const RETRIED_BY_DRIVERS: [i32; 13] =
    [6, 7, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436];

fn command(code: i32) -> Failure {
    let response = format!(r#"{{"code": {code}, "codeName": "Name", "errmsg": "text"}}"#);
    let error = serde_json::from_str(&response).unwrap();
    Failure::from(&Error::from(ErrorKind::Command(error)))
}

#[test]
fn errors_that_drivers_retry_are_transient() {
    for code in RETRIED_BY_DRIVERS {
        assert_eq!(class_of(code), Class::Transient, "{code}");
        assert!(matches!(command(code).into(), StoreError::Transient(_)), "{code}");
        assert!(matches!(command(code).into(), ReadError::Unavailable(_)), "{code}");
    }
}

#[test]
fn missing_permissions_and_full_disks_need_an_operator() {
    // Unauthorized, AuthenticationFailed, UnsatisfiableWriteConcern,
    // UserWritesBlocked, AtlasError, OutOfDiskSpace.
    for code in [13, 18, 100, 371, 8000, 14031] {
        assert!(matches!(command(code).into(), StoreError::Operator(_)), "{code}");
        assert!(matches!(command(code).into(), ReadError::Unavailable(_)), "{code}");
        assert_eq!(class_of_concern(code), Class::Operator, "{code}");
    }
}

#[test]
fn invalid_documents_are_known_causes_of_a_rejection() {
    // BadValue, DocumentValidationFailure, CannotIndexParallelArrays,
    // BSONObjectTooLarge, DuplicateKey, KeyTooLong.
    for code in [2, 121, 171, 10334, 11000, 17280] {
        assert_eq!(class_of(code), Class::Document, "{code}");
    }
}

#[test]
fn other_codes_are_unknown() {
    // InternalError, NoSuchKey, CommandNotFound, an unknown pipeline stage, and
    // codes that do not exist.
    for code in [1, 4, 59, 40_415, 4711, 0, -1, i32::MIN, i32::MAX] {
        assert_eq!(class_of(code), Class::Unknown, "{code}");
    }
}

#[test]
fn a_write_concern_error_never_rejects_a_document() {
    for code in -10..100_000 {
        let needs_operator = class_of(code) == Class::Operator;
        let expected = if needs_operator { Class::Operator } else { Class::Transient };
        assert_eq!(class_of_concern(code), expected, "{code}");
    }
}

#[test]
fn a_refused_command_never_rejects_a_document() {
    for code in -10..20_000 {
        let class = command(code).class;
        assert_ne!(class, Class::Document, "{code}");
        let expected = match class_of(code) {
            Class::Document => Class::Unknown,
            class => class,
        };
        assert_eq!(class, expected, "{code}");
    }
    let failure = command(121);
    assert_eq!(failure.code, "mongodb_121");
    assert_eq!(failure.message, "MongoDB: Name (121): text");
    assert!(matches!(failure.into(), StoreError::Unknown { code, .. } if code == "mongodb_121"));
}

#[test]
fn a_failed_connection_is_transient() {
    let io = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let failure = Failure::from(&Error::from(io));
    assert_eq!(failure.class, Class::Transient);
    assert!(matches!(StoreError::from(failure.clone()), StoreError::Transient(_)));
    assert!(matches!(ReadError::from(failure), ReadError::Unavailable(_)));
}

#[test]
fn other_errors_of_the_driver_are_unknown() {
    let failure = Failure::from(&Error::custom("what"));
    assert_eq!(failure.class, Class::Unknown);
    assert!(matches!(ReadError::from(failure), ReadError::Failed(_)));
}

#[test]
fn the_reason_is_extracted_from_the_drivers_topology() {
    let text = "Server selection timeout: No available servers. Topology: { Type: Unknown, \
                Servers: [ { Address: 127.0.0.1:1, Type: Unknown, Error: Kind: I/O error: \
                Connection refused (os error 111), labels: {}, source: None } ] }";
    assert_eq!(
        unreachable(text),
        "MongoDB cannot be reached: I/O error: Connection refused (os error 111)"
    );
    assert_eq!(
        unreachable("Server selection timeout: None of the available servers suitable"),
        "MongoDB has no primary that can be reached"
    );
    let old = "Server at h reports wire version 6, but this version of the driver requires 8";
    assert_eq!(unreachable(old), old);
}

#[test]
fn long_messages_are_truncated_between_characters() {
    assert_eq!(shorten("short"), "short");
    assert_eq!(shorten(&"é".repeat(400)).len(), 500);
    assert_eq!(shorten(&"日".repeat(400)).len(), 498);
}
