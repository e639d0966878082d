//! The `insert` command: how a bulk is written, and what its answer says of
//! each document. Pure; who sends it is [`store`](super::store).
//!
//! The command is written by hand, its documents straight into the bytes that
//! go to the server. The driver's `insert_many` copies each document twice,
//! reads its `_id` back and keeps a map of them. Nor does it tell which index a
//! duplicate key is of.

use bson::{Bson, Document, RawDocumentBuf, rawdoc};
use eyego_log_core::LogEntry;

use super::connection::{WRITE_CONCERN_TIMEOUT, WRITE_TIME};
use super::encode;
use super::failure::{self, Class, DUPLICATE_KEY, Failure, brief, class_of, class_of_concern};
use crate::domain::repository::Rejection;

/// What MongoDB takes as one document: 16 MiB.
const MAX_DOCUMENT: usize = 16 << 20;

/// A command is a document too, of 16 MiB and 16 KiB: many small documents
/// share one, a large one has one of its own. The answer is a document as
/// well, with an error for each that is there already.
const MAX_DOCUMENTS_SIZE: usize = 15 << 20;
const MAX_DOCUMENTS: usize = 10_000;

/// One command, and which of the entries it holds.
#[derive(Debug)]
pub(super) struct Insert {
    pub(super) command: RawDocumentBuf,
    /// Of each document: the place of its entry.
    pub(super) places: Vec<usize>,
}

/// How a bulk is sent.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) inserts: Vec<Insert>,
    /// What cannot be sent at all, with the place of its entry.
    pub(super) rejected: Vec<(usize, Rejection)>,
}

/// The commands that insert `entries`.
///
/// # Errors
/// The commands cannot be written; says nothing of any entry.
pub(super) fn plan(collection: &str, entries: &[LogEntry]) -> Result<Plan, Failure> {
    let Plan { mut inserts, mut rejected } = Plan::default();
    let size: usize = entries.iter().map(|entry| 192 + entry.metadata.as_json().len()).sum();
    let mut writer = Writer::new(collection, size);
    for (place, entry) in entries.iter().enumerate() {
        let before = writer.bytes.len();
        if let Err(rejection) = writer.push(entry) {
            rejected.push((place, rejection));
            continue;
        }
        let is_full = writer.bytes.len() - writer.documents_at > MAX_DOCUMENTS_SIZE
            || writer.places.len() >= MAX_DOCUMENTS;
        if is_full && !writer.places.is_empty() {
            let last = writer.bytes.split_off(before);
            let full = std::mem::replace(&mut writer, Writer::new(collection, last.len()));
            inserts.push(full.finish()?);
            // The same entry again, in the next command: its index differs.
            if let Err(rejection) = writer.push(entry) {
                rejected.push((place, rejection));
                continue;
            }
        }
        writer.places.push(place);
    }
    if !writer.places.is_empty() {
        inserts.push(writer.finish()?);
    }
    Ok(Plan { inserts, rejected })
}

struct Writer {
    bytes: Vec<u8>,
    documents_at: usize,
    places: Vec<usize>,
}

impl Writer {
    fn new(collection: &str, size: usize) -> Self {
        let mut bytes = rawdoc! { "insert": collection }.into_bytes();
        bytes.pop();
        bytes.reserve(size + 256);
        encode::push_key(&mut bytes, encode::ARRAY, "documents");
        let documents_at = encode::open(&mut bytes);
        Self { bytes, documents_at, places: Vec::new() }
    }

    /// Appends a document, whose place the caller adds.
    fn push(&mut self, entry: &LogEntry) -> Result<(), Rejection> {
        let before = self.bytes.len();
        encode::push_index(&mut self.bytes, encode::DOCUMENT, self.places.len());
        let start = self.bytes.len();
        let written = encode::push_entry(&mut self.bytes, entry);
        let size = self.bytes.len() - start;
        let (code, message) = match written {
            Ok(()) if size <= MAX_DOCUMENT => return Ok(()),
            Ok(()) => {
                let message = format!(
                    "the log is {size} bytes as a document; MongoDB takes {MAX_DOCUMENT} at most"
                );
                ("too_large", message)
            }
            Err(error) => ("unstorable", format!("the metadata cannot be stored: {error}")),
        };
        self.bytes.truncate(before);
        Err(Rejection { code: code.to_owned(), message, is_known: true })
    }

    fn finish(self) -> Result<Insert, Failure> {
        let Self { mut bytes, documents_at, places } = self;
        encode::close(&mut bytes, documents_at);
        let millis =
            |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let rest = rawdoc! {
            "ordered": false,
            "maxTimeMS": millis(WRITE_TIME),
            "writeConcern": {
                "w": "majority",
                "j": true,
                "wtimeout": millis(WRITE_CONCERN_TIMEOUT),
            },
        };
        let elements = &rest.as_bytes()[4..rest.as_bytes().len() - 1];
        bytes.extend_from_slice(elements);
        encode::close(&mut bytes, 0);
        let command = RawDocumentBuf::from_bytes(bytes)
            .map_err(|error| Failure::new(Class::Unknown, "encoding", error.to_string()))?;
        Ok(Insert { command, places })
    }
}

/// What became of a document that was not inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A document with this `_id` is there.
    Taken,
    /// A document with the same key of another unique index is there, or with
    /// the same `_id` as well.
    OtherKey(Rejection),
    /// Something else.
    Rejected(Rejection),
}

/// Reads the answer to an insert of `sent` documents: who was refused, by index.
///
/// # Errors
/// Something else than a document is at fault, or nothing is known.
pub(super) fn refusals(answer: &Document, sent: usize) -> Result<Vec<(usize, Refusal)>, Failure> {
    if let Ok(concern) = answer.get_document("writeConcernError") {
        let code = integer(concern, "code").unwrap_or_default();
        let name = concern.get_str("codeName").unwrap_or_default();
        let message = concern.get_str("errmsg").unwrap_or_default();
        return Err(Failure::of_code(class_of_concern(code), code, name, message));
    }
    let errors = answer.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    let refused = errors.iter().map(|error| refusal(error, sent)).collect::<Result<Vec<_>, _>>()?;
    let inserted = integer(answer, "n").and_then(|n| usize::try_from(n).ok());
    // Never to be seen; but a document that nothing is said of must not count
    // as stored.
    if inserted != Some(sent - refused.len().min(sent)) {
        let message = format!(
            "MongoDB's answer says that {} of {sent} documents were inserted and {} refused",
            inserted.map_or("?".to_owned(), |n| n.to_string()),
            refused.len()
        );
        return Err(Failure::transient(message));
    }
    Ok(refused)
}

fn refusal(error: &Bson, sent: usize) -> Result<(usize, Refusal), Failure> {
    let nonsense = || Failure::transient("MongoDB's answer lists an error that cannot be read");
    let error = error.as_document().ok_or_else(nonsense)?;
    let index = integer(error, "index").and_then(|index| usize::try_from(index).ok());
    let index = index.filter(|index| *index < sent).ok_or_else(nonsense)?;
    let code = integer(error, "code").ok_or_else(nonsense)?;
    let message = error.get_str("errmsg").unwrap_or_default();
    let class = class_of(code);
    if matches!(class, Class::Transient | Class::Operator) {
        return Err(Failure::of_code(class, code, "", message));
    }
    let rejection = |message: String| Rejection {
        code: failure::code_word(code),
        message,
        is_known: class == Class::Document,
    };
    if code != DUPLICATE_KEY {
        let message = format!("MongoDB refuses the log: {}", brief(message));
        return Ok((index, Refusal::Rejected(rejection(message))));
    }
    let keys: Vec<&str> = match error.get_document("keyPattern") {
        Ok(keys) => keys.keys().map(String::as_str).collect(),
        // The server's text quotes the values as well: the users' data.
        Err(_) if message.contains("index: _id_") => vec!["_id"],
        Err(_) => Vec::new(),
    };
    if keys == ["_id"] {
        return Ok((index, Refusal::Taken));
    }
    let keys = keys.join(", ");
    let message = format!("another log has the same key in the unique index on ({keys})");
    Ok((index, Refusal::OtherKey(rejection(message))))
}

/// A number, of whatever kind the server chose.
fn integer(document: &Document, key: &str) -> Option<i32> {
    match document.get(key)? {
        Bson::Int32(n) => Some(*n),
        Bson::Int64(n) => i32::try_from(*n).ok(),
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        Bson::Double(n) if n.fract() == 0.0 && n.abs() < 1e9 => Some(*n as i32),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
