//! The table, code by code, and each kind of error.

use mongodb::error::ErrorKind;

use super::*;

const TRANSIENT: [i32; 46] = [
    6, 7, 24, 46, 50, 63, 64, 89, 90, 91, 94, 107, 109, 112, 117, 133, 134, 135, 149, 150, 175,
    189, 202, 225, 237, 239, 246, 251, 262, 290, 314, 391, 462, 9001, 10058, 10107, 11600, 11601,
    11602, 12586, 12587, 13388, 13435, 13436, 91, 189,
];
const OPERATOR: [i32; 18] =
    [11, 13, 18, 20, 31, 37, 38, 39, 42, 51, 69, 73, 79, 100, 166, 371, 8000, 14031];
const DOCUMENT: [i32; 24] = [
    2, 9, 14, 15, 16, 22, 52, 53, 54, 55, 56, 57, 61, 116, 121, 171, 10334, 11000, 16755, 17261,
    17262, 17280, 17419, 17420,
];

#[test]
fn each_code_has_its_class_and_all_others_none() {
    for code in -10..100_000 {
        let expected = if TRANSIENT.contains(&code) {
            Class::Transient
        } else if OPERATOR.contains(&code) {
            Class::Operator
        } else if DOCUMENT.contains(&code) {
            Class::Document
        } else {
            Class::Unknown
        };
        assert_eq!(class_of(code), expected, "{code}");
    }
}

#[test]
fn every_code_that_the_driver_retries_passes_by_itself() {
    for code in [11600, 11602, 10107, 13435, 13436, 189, 91, 7, 6, 89, 9001, 134, 262] {
        assert_eq!(class_of(code), Class::Transient, "{code}");
    }
}

#[test]
fn a_write_concern_never_blames_a_document() {
    for code in -10..20_000 {
        let expected = if OPERATOR.contains(&code) { Class::Operator } else { Class::Transient };
        assert_eq!(class_of_concern(code), expected, "{code}");
    }
}

fn command(code: i32) -> Failure {
    let answer = format!(r#"{{"code": {code}, "codeName": "Name", "errmsg": "text"}}"#);
    let error = serde_json::from_str(&answer).unwrap();
    Failure::from(&Error::from(ErrorKind::Command(error)))
}

#[test]
fn a_refused_command_blames_no_document() {
    for code in TRANSIENT {
        assert_eq!(command(code).class, Class::Transient, "{code}");
    }
    for code in OPERATOR {
        assert_eq!(command(code).class, Class::Operator, "{code}");
    }
    for code in DOCUMENT.into_iter().chain([1, 8, 59, 40_415]) {
        assert_eq!(command(code).class, Class::Unknown, "{code}");
    }
    let failure = command(121);
    assert_eq!(failure.code, "mongodb_121");
    assert_eq!(failure.message, "MongoDB: Name (121): text");
    assert!(matches!(failure.into(), StoreError::Unknown { code, .. } if code == "mongodb_121"));
}

#[test]
fn a_broken_connection_passes() {
    let io = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let failure = Failure::from(&Error::from(io));
    assert_eq!(failure.class, Class::Transient);
    assert!(matches!(StoreError::from(failure.clone()), StoreError::Transient(_)));
    assert!(matches!(ReadError::from(failure), ReadError::Unavailable(_)));
}

#[test]
fn a_driver_that_does_not_know_what_it_read_is_unknown() {
    let failure = Failure::from(&Error::custom("what"));
    assert_eq!(failure.class, Class::Unknown);
    assert!(matches!(ReadError::from(failure), ReadError::Failed(_)));
}

#[test]
fn the_reason_is_found_in_the_drivers_view_of_the_cluster() {
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
fn long_texts_are_cut_between_characters() {
    assert_eq!(brief("short"), "short");
    assert_eq!(brief(&"é".repeat(400)).len(), 500);
    assert_eq!(brief(&"日".repeat(400)).len(), 498);
}
