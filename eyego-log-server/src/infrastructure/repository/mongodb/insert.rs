//! The `insert` command: encodes a bulk, and reads from the response what happened
//! to each document. Pure; [`repository`](super::repository) sends the commands.
//!
//! Documents are encoded straight into the bytes of the command. `docs/adr/0007`
//! explains why the driver's `insert_many` is not used.

use bson::{Bson, Document, RawDocumentBuf, rawdoc};
use eyego_log_core::LogEntry;

use super::encode;
use super::failure::{Class, DUPLICATE_KEY, Failure, class_of, class_of_concern, code_of, shorten};
use super::operation::{MAX_WRITE_TIME, WRITE_CONCERN_TIMEOUT};
use crate::domain::repository::Rejection;

/// MongoDB's limit for a document: 16 MiB.
const MAX_DOCUMENT_BYTES: usize = 16 << 20;

/// Limits for the documents of one command. A command can have 16 MiB and 16 KiB,
/// so a large document is sent alone. The response must fit 16 MiB too, with an
/// error for each document that already exists.
const MAX_DOCUMENTS_BYTES: usize = 15 << 20;
const MAX_DOCUMENTS: usize = 10_000;

/// One command, and the entries it contains.
#[derive(Debug)]
pub(super) struct Insert {
    pub(super) command: RawDocumentBuf,
    /// For each document, the index of its entry.
    pub(super) entries: Vec<usize>,
}

/// The commands that store a bulk.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) inserts: Vec<Insert>,
    /// Entries that cannot be sent, each with its index.
    pub(super) rejected: Vec<(usize, Rejection)>,
}

/// Returns the commands that insert `entries`.
///
/// # Errors
/// Returns an error if a command cannot be encoded. No entry is the cause.
pub(super) fn plan(collection: &str, entries: &[LogEntry]) -> Result<Plan, Failure> {
    let Plan { mut inserts, mut rejected } = Plan::default();
    let size: usize = entries.iter().map(|entry| 192 + entry.metadata.as_json().len()).sum();
    let mut writer = Writer::new(collection, size);
    for (index, entry) in entries.iter().enumerate() {
        let before = writer.bytes.len();
        if let Err(rejection) = writer.push(entry) {
            rejected.push((index, rejection));
            continue;
        }
        let is_full = writer.bytes.len() - writer.documents_at > MAX_DOCUMENTS_BYTES
            || writer.entries.len() >= MAX_DOCUMENTS;
        if is_full && !writer.entries.is_empty() {
            let last = writer.bytes.split_off(before);
            let full = std::mem::replace(&mut writer, Writer::new(collection, last.len()));
            inserts.push(full.finish()?);
            // Encode the entry again for the next command, where it has another
            // array index.
            if let Err(rejection) = writer.push(entry) {
                rejected.push((index, rejection));
                continue;
            }
        }
        writer.entries.push(index);
    }
    if !writer.entries.is_empty() {
        inserts.push(writer.finish()?);
    }
    Ok(Plan { inserts, rejected })
}

struct Writer {
    bytes: Vec<u8>,
    documents_at: usize,
    entries: Vec<usize>,
}

impl Writer {
    fn new(collection: &str, size: usize) -> Self {
        let mut bytes = rawdoc! { "insert": collection }.into_bytes();
        bytes.pop();
        bytes.reserve(size + 256);
        encode::push_key(&mut bytes, encode::ARRAY, "documents");
        let documents_at = encode::open(&mut bytes);
        Self { bytes, documents_at, entries: Vec::new() }
    }

    /// Appends a document. The caller adds the entry's index.
    fn push(&mut self, entry: &LogEntry) -> Result<(), Rejection> {
        let before = self.bytes.len();
        encode::push_index(&mut self.bytes, encode::DOCUMENT, self.entries.len());
        let start = self.bytes.len();
        let written = encode::push_entry(&mut self.bytes, entry);
        let size = self.bytes.len() - start;
        let (code, message) = match written {
            Ok(()) if size <= MAX_DOCUMENT_BYTES => return Ok(()),
            Ok(()) => {
                let message = format!(
                    "the event is {size} bytes as a document, but MongoDB's limit is \
                     {MAX_DOCUMENT_BYTES} bytes"
                );
                ("too_large", message)
            }
            Err(error) => ("unstorable", format!("the metadata cannot be stored: {error}")),
        };
        self.bytes.truncate(before);
        Err(Rejection { code: code.to_owned(), message, is_known: true })
    }

    fn finish(self) -> Result<Insert, Failure> {
        let Self { mut bytes, documents_at, entries } = self;
        encode::close(&mut bytes, documents_at);
        let millis =
            |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let rest = rawdoc! {
            "ordered": false,
            "maxTimeMS": millis(MAX_WRITE_TIME),
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
        Ok(Insert { command, entries })
    }
}

/// The reason a document was not inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A document with this `_id` exists.
    DuplicateId,
    /// A document with the same key in another unique index exists. It may also
    /// have the same `_id`.
    DuplicateKey(Rejection),
    /// The server rejected the document for another reason.
    Rejected(Rejection),
}

/// Returns the refused documents, by index, from the response to an insert of
/// `sent` documents.
///
/// # Errors
/// Returns an error if the cause is not a document, or if the outcome is unknown.
pub(super) fn refusals(response: &Document, sent: usize) -> Result<Vec<(usize, Refusal)>, Failure> {
    if let Ok(concern) = response.get_document("writeConcernError") {
        let code = integer(concern, "code").unwrap_or_default();
        let name = concern.get_str("codeName").unwrap_or_default();
        let message = concern.get_str("errmsg").unwrap_or_default();
        return Err(Failure::of_code(class_of_concern(code), code, name, message));
    }
    let errors = response.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    let refused = errors.iter().map(|error| refusal(error, sent)).collect::<Result<Vec<_>, _>>()?;
    let inserted = integer(response, "n").and_then(|n| usize::try_from(n).ok());
    // A document that the response does not mention must not count as stored.
    if inserted != Some(sent - refused.len().min(sent)) {
        let message = format!(
            "MongoDB's response says that {} of {sent} documents were inserted and {} refused",
            inserted.map_or("?".to_owned(), |n| n.to_string()),
            refused.len()
        );
        return Err(Failure::transient(message));
    }
    Ok(refused)
}

fn refusal(error: &Bson, sent: usize) -> Result<(usize, Refusal), Failure> {
    let unreadable = || Failure::transient("MongoDB's response contains an unreadable error");
    let error = error.as_document().ok_or_else(unreadable)?;
    let index = integer(error, "index").and_then(|index| usize::try_from(index).ok());
    let index = index.filter(|index| *index < sent).ok_or_else(unreadable)?;
    let code = integer(error, "code").ok_or_else(unreadable)?;
    let message = error.get_str("errmsg").unwrap_or_default();
    let class = class_of(code);
    if matches!(class, Class::Transient | Class::Operator) {
        return Err(Failure::of_code(class, code, "", message));
    }
    let rejection = |message: String| Rejection {
        code: code_of(code),
        message,
        is_known: class == Class::Document,
    };
    if code != DUPLICATE_KEY {
        let message = format!("MongoDB rejected the event: {}", shorten(message));
        return Ok((index, Refusal::Rejected(rejection(message))));
    }
    let keys: Vec<&str> = match error.get_document("keyPattern") {
        Ok(keys) => keys.keys().map(String::as_str).collect(),
        // The keys are not parsed from the server's message, because it also
        // quotes the values, which are user data.
        Err(_) if message.contains("index: _id_") => vec!["_id"],
        Err(_) => Vec::new(),
    };
    if keys == ["_id"] {
        return Ok((index, Refusal::DuplicateId));
    }
    let keys = keys.join(", ");
    let message = format!("another event has the same key in the unique index on ({keys})");
    Ok((index, Refusal::DuplicateKey(rejection(message))))
}

/// Reads an integer of any BSON number type.
fn integer(document: &Document, key: &str) -> Option<i32> {
    match document.get(key)? {
        Bson::Int32(n) => Some(*n),
        Bson::Int64(n) => i32::try_from(*n).ok(),
        #[expect(clippy::cast_possible_truncation, reason = "the number is whole and small")]
        Bson::Double(n) if n.fract() == 0.0 && n.abs() < 1e9 => Some(*n as i32),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
