//! Encodes an event as one line of the request: `{"id":…,"userId":…,…}\n`.
//!
//! Encoding runs on the caller's thread, in a scratch buffer of that thread.
//! The caller's `Serialize` implementation therefore never runs under one of
//! the client's locks, and may itself log.

use std::cell::Cell;
use std::io::Write as _;

use eyego_log_core::limits::MAX_AHEAD_MILLIS;
use eyego_log_core::{
    Action, FieldError, FieldErrors, LogId, LogIdGenerator, Metadata, Timestamp, UserId,
};
use serde::Serialize;

use crate::model::errors::LogError;
use crate::model::event::Event;
use crate::model::line::{ID, LINE_HEAD, MILLISECONDS, TIMESTAMP};
use crate::pipeline::check::{CheckingFormatter, Findings};
use crate::pipeline::context::Context;

/// The scratch memory that a thread keeps between events, in bytes.
const MAX_SCRATCH: usize = 64 << 10;

/// Begins the metadata of a line.
const METADATA: &[u8] = b",\"metadata\":";

struct Scratch {
    head: Head,
    line: Vec<u8>,
    findings: Findings,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { head: Head::new(), line: Vec::new(), findings: Findings::new() }
    }
}

thread_local! {
    /// Empty while an event is encoded: the caller's `Serialize` may itself log.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Encodes `event`, which is accepted at the time `now` and has this `id`, with
/// the metadata of `context`, and passes its line to `use_line`.
///
/// # Errors
/// Returns [`LogError::Invalid`] if a field is invalid, [`LogError::TooLarge`]
/// if the line is longer than `max_bytes`, or the error of `use_line`.
pub(crate) fn with_line<M: Serialize>(
    event: &Event<'_, M>,
    context: Option<&Context>,
    id: LogId,
    now: Timestamp,
    max_bytes: usize,
    use_line: impl FnOnce(&[u8]) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let mut lent = Lent(SCRATCH.try_with(Cell::take).ok().flatten());
    let scratch = lent.0.get_or_insert_default();
    scratch.encode(event, context, id, now, max_bytes)?;
    use_line(&scratch.line)
}

/// Checks that an event with this metadata can have up to `max_bytes` bytes.
///
/// # Errors
/// Returns an error if even the smallest event is larger.
pub(crate) fn check_size(context: &Context, max_bytes: usize) -> Result<(), FieldErrors> {
    let (event, now) = (Event::new("u", "a"), Timestamp::from_millis_clamped(0));
    let id = LogIdGenerator::new().generate(now);
    match with_line(&event, Some(context), id, now, max_bytes, |_| Ok(())) {
        Err(LogError::TooLarge { bytes, max }) => {
            let reason = format!(
                "is too large: the smallest event with it has {bytes} bytes, but max_event_bytes \
                 is {max}"
            );
            Err(FieldError::new("metadata", reason).into())
        }
        _ => Ok(()),
    }
}

/// The scratch memory of this thread. It is returned when this is dropped.
struct Lent(Option<Box<Scratch>>);

impl Drop for Lent {
    fn drop(&mut self) {
        let mut scratch = self.0.take();
        if let Some(scratch) = &mut scratch
            && scratch.line.capacity() > MAX_SCRATCH
        {
            scratch.line = Vec::new();
        }
        // This fails while the thread ends.
        let _ = SCRATCH.try_with(|kept| kept.set(scratch));
    }
}

impl Scratch {
    fn encode<M: Serialize>(
        &mut self,
        event: &Event<'_, M>,
        context: Option<&Context>,
        id: LogId,
        now: Timestamp,
        max_bytes: usize,
    ) -> Result<(), LogError> {
        let mut errors = FieldErrors::new();
        if let Err(error) = UserId::check(&event.user_id) {
            errors.push(FieldError::new("userId", error));
        }
        if let Err(error) = Action::check(&event.action) {
            errors.push(FieldError::new("action", error));
        }
        let timestamp = event.timestamp.unwrap_or(now);
        if timestamp.as_millis() > now.as_millis().saturating_add(MAX_AHEAD_MILLIS) {
            let error = format!("must not be more than 24 hours ahead (it is {now} here)");
            errors.push(FieldError::new("timestamp", error));
        }
        let line = &mut self.line;
        line.clear();
        self.head.write(id, timestamp, line);
        push_string(line, &event.user_id);
        line.extend_from_slice(b",\"action\":");
        push_string(line, &event.action);
        let field_start = self.encode_metadata(event, &mut errors);
        if !errors.is_empty() {
            return Err(LogError::Invalid(errors));
        }
        if let Some(context) = context {
            self.add_context(context, field_start);
        }
        self.line.extend_from_slice(b"}\n");
        let bytes = self.line.len();
        if bytes > max_bytes {
            return Err(LogError::TooLarge { bytes, max: max_bytes });
        }
        Ok(())
    }

    /// Encodes the event's own metadata and checks it. Returns where the field
    /// begins; without metadata, that is the end of the line.
    fn encode_metadata<M: Serialize>(
        &mut self,
        event: &Event<'_, M>,
        errors: &mut FieldErrors,
    ) -> usize {
        let Self { line, findings, .. } = self;
        let field_start = line.len();
        line.extend_from_slice(METADATA);
        let start = line.len();
        findings.clear();
        let formatter = CheckingFormatter(findings);
        let mut serializer = serde_json::Serializer::with_formatter(&mut *line, formatter);
        if let Err(error) = event.metadata.serialize(&mut serializer) {
            errors.push(FieldError::new("metadata", format!("must be JSON: {error}")));
            return field_start;
        }
        if let Some(fields) = &event.fields {
            fields.errors.iter().for_each(|error| errors.push(error.clone()));
            append_members(line, start, &fields.json);
            findings.is_suspect = true;
            findings.has_raw_text = true;
        }
        if &line[start..] == b"null" {
            line.truncate(field_start);
            return field_start;
        }
        if findings.has_raw_text {
            // JSON allows line breaks between tokens; an NDJSON line does not.
            for byte in &mut line[start..] {
                if matches!(byte, b'\n' | b'\r') {
                    *byte = b' ';
                }
            }
        }
        if findings.is_suspect || line.get(start) != Some(&b'{') {
            let checked = match std::str::from_utf8(&line[start..]) {
                Ok(text) => Metadata::check(text),
                Err(error) => Err(FieldError::new("metadata", error).into()),
            };
            if let Err(found) = checked {
                found.into_vec().into_iter().for_each(|error| errors.push(error));
            }
        }
        field_start
    }

    /// Adds the members of `context` that the event does not have itself.
    fn add_context(&mut self, context: &Context, field_start: usize) {
        let Self { line, findings, .. } = self;
        if context.is_empty() {
            return;
        }
        let start = field_start + METADATA.len();
        match line.get(start..).filter(|own| !own.is_empty()) {
            None => {
                line.extend_from_slice(METADATA);
                line.extend_from_slice(b"{}");
                append_members(line, start, context.json().as_bytes());
            }
            Some(own) if context.may_overlap(findings) => {
                let missing = context.missing_in(own).join(",");
                append_members(line, start, missing.as_bytes());
            }
            Some(_) => append_members(line, start, context.json().as_bytes()),
        }
    }
}

/// Adds members to the JSON object that begins at `start` and ends the line.
/// `null` becomes an object; any other value is left as it is.
fn append_members(line: &mut Vec<u8>, start: usize, members: &[u8]) {
    if members.is_empty() {
        return;
    }
    if &line[start..] == b"null" {
        line.truncate(start);
        line.extend_from_slice(b"{}");
    }
    if line.get(start) != Some(&b'{') || line.pop() != Some(b'}') {
        return;
    }
    if line[start + 1..].iter().any(|byte| !byte.is_ascii_whitespace()) {
        line.push(b',');
    }
    line.extend_from_slice(members);
    line.push(b'}');
}

fn push_string(line: &mut Vec<u8>, text: &str) {
    let written = serde_json::to_writer(&mut *line, text);
    debug_assert!(written.is_ok(), "writing text to memory cannot fail");
}

/// Writes the beginning of a line, in which only the id and the timestamp
/// change.
struct Head {
    text: [u8; LINE_HEAD.len()],
    /// The second in `text`. Timestamps within it differ only in their
    /// milliseconds.
    second: i64,
}

impl Head {
    const fn new() -> Self {
        Self { text: LINE_HEAD, second: i64::MIN }
    }

    /// Writes the head to `line`, which is empty.
    fn write(&mut self, id: LogId, timestamp: Timestamp, line: &mut Vec<u8>) {
        let millis = timestamp.as_millis();
        let (second, millis) = (millis.div_euclid(1000), millis.rem_euclid(1000));
        if second != self.second {
            let mut rest = &mut self.text[TIMESTAMP];
            let written = write!(rest, "{timestamp}");
            debug_assert!(written.is_ok(), "a timestamp has 24 characters");
            self.second = second;
        }
        line.extend_from_slice(&self.text);
        line[ID].copy_from_slice(&id.to_hex());
        for (digit, divisor) in line[MILLISECONDS].iter_mut().zip([100, 10, 1]) {
            *digit = b'0' + u8::try_from(millis / divisor % 10).unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use eyego_log_core::IngestRequest;
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::*;
    use crate::model::line::id_of_line;

    fn line<M: Serialize>(event: &Event<'_, M>) -> Result<String, LogError> {
        encoded(event, None)
    }

    fn encoded<M: Serialize>(
        event: &Event<'_, M>,
        context: Option<&Context>,
    ) -> Result<String, LogError> {
        let id = LogIdGenerator::new().generate(now());
        let mut text = String::new();
        with_line(event, context, id, now(), 64 << 10, |line| {
            assert_eq!(id_of_line(line), Some(id));
            text = String::from_utf8(line.to_vec()).unwrap();
            Ok(())
        })
        .map(|()| text)
    }

    fn now() -> Timestamp {
        SystemTime::now().into()
    }

    /// Returns the server's error message for the same event.
    fn server_message(body: &Value) -> String {
        IngestRequest::parse(body.to_string().as_bytes(), now()).unwrap_err().to_string()
    }

    #[test]
    fn the_server_can_parse_a_line() {
        let event = Event::new("ada \"x\"", "CLICK").metadata(json!({"a": [1, {"b": "\n"}]}));
        let line = line(&event).unwrap();
        let request = IngestRequest::parse(line.as_bytes(), now()).unwrap();
        assert_eq!(request.user_id.as_str(), "ada \"x\"");
        assert_eq!(request.metadata.as_json(), r#"{"a":[1,{"b":"\n"}]}"#);
        assert!(request.id.is_some() && request.timestamp.is_some());
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn absent_metadata_is_omitted() {
        assert!(!line(&Event::new("u", "A")).unwrap().contains("metadata"));
        let none: Option<Value> = None;
        assert!(!line(&Event::new("u", "A").metadata(none)).unwrap().contains("metadata"));
    }

    #[test]
    fn line_breaks_in_raw_metadata_become_spaces() {
        let raw: &RawValue = serde_json::from_str("{\r\n \"k\": 1\n}").unwrap();
        let line = line(&Event::new("u", "A").metadata(raw)).unwrap();
        assert!(line.ends_with("\"metadata\":{   \"k\": 1 }}\n"), "{line}");
    }

    #[test]
    fn error_messages_equal_the_servers() {
        for (user, action, metadata) in [
            ("", "A", json!({})),
            ("u", "", json!({})),
            ("u\0", "A", json!({"a\0": 1})),
            (&"u".repeat(257), &*"a".repeat(129), json!([1])),
            ("u", "A", json!({"n": u64::MAX})),
            ("u", "A", (0..33).fold(json!(1), |inner, _| json!({"k": inner}))),
        ] {
            let error = line(&Event::new(user, action).metadata(&metadata)).unwrap_err();
            let body = json!({"userId": user, "metadata": metadata, "action": action});
            let server: Vec<String> =
                server_message(&body).split("; ").map(str::to_owned).collect();
            let mut client: Vec<String> =
                error.to_string().split("; ").map(str::to_owned).collect();
            // The server lists the errors in the order of the body.
            client.sort_by_key(|message| server.iter().position(|other| other == message));
            assert_eq!(client, server);
        }
    }

    #[test]
    fn unserializable_keys_and_future_timestamps_are_invalid() {
        let map = std::collections::BTreeMap::from([((1, 2), 3)]);
        let error = line(&Event::new("u", "A").metadata(map)).unwrap_err();
        assert_eq!(error.to_string(), "metadata must be JSON: key must be a string");
        let future = Timestamp::from_millis(now().as_millis() + 86_400_000 + 60_000).unwrap();
        let error = line(&Event::new("u", "A").timestamp(future)).unwrap_err();
        assert!(error.to_string().starts_with("timestamp must not be more than 24 hours ahead"));
    }

    fn metadata_with<M: Serialize>(context: &Value, event: &Event<'_, M>) -> String {
        let context = Context::new(None, context).unwrap();
        let line = encoded(event, Some(&context)).unwrap();
        let request = IngestRequest::parse(line.as_bytes(), now()).unwrap();
        request.metadata.as_json().to_owned()
    }

    #[test]
    fn the_context_adds_what_the_event_does_not_have() {
        let context = json!({"a": 1, "b": 2});
        let event = || Event::new("u", "A");
        assert_eq!(metadata_with(&context, &event()), r#"{"a":1,"b":2}"#);
        assert_eq!(metadata_with(&context, &event().metadata(json!({}))), r#"{"a":1,"b":2}"#);
        let own = json!({"b": 3, "o": {"a": 4}});
        assert_eq!(
            metadata_with(&context, &event().metadata(&own)),
            r#"{"b":3,"o":{"a":4},"a":1}"#
        );
        let nested = json!({"o": {"a": 4, "b": 5}});
        let expected = r#"{"o":{"a":4,"b":5},"a":1,"b":2}"#;
        assert_eq!(metadata_with(&context, &event().metadata(&nested)), expected);
        let raw: &RawValue = serde_json::from_str("{ \"\\u0061\": 9 }").unwrap();
        assert_eq!(metadata_with(&context, &event().metadata(raw)), r#"{ "\u0061": 9 ,"b":2}"#);
        let raw: &RawValue = serde_json::from_str("{ }").unwrap();
        assert_eq!(metadata_with(&context, &event().metadata(raw)), r#"{ "a":1,"b":2}"#);
        let fields = event().metadata(json!({"c": 3})).field("a", "own");
        assert_eq!(metadata_with(&context, &fields), r#"{"c":3,"a":"own","b":2}"#);
    }

    #[test]
    fn single_fields_are_added_to_the_metadata() {
        let fields = || Event::new("u", "A").field("page", "home").field("n", 7);
        assert!(line(&fields()).unwrap().ends_with(",\"metadata\":{\"page\":\"home\",\"n\":7}}\n"));
        let both = line(&fields().metadata(json!({"z": [1]}))).unwrap();
        assert!(both.trim_end().ends_with(r#"{"z":[1],"page":"home","n":7}}"#), "{both}");
        for (event, error) in [
            (fields().field("page", 1), "metadata.page"),
            (fields().field("big", u64::MAX), "metadata.big"),
            (
                fields().field("map", std::collections::BTreeMap::from([((1, 2), 3)])),
                "metadata.map",
            ),
        ] {
            let message = line(&event).unwrap_err().to_string();
            assert!(message.starts_with(error), "{message}");
        }
        let not_an_object = line(&fields().metadata(json!([1]))).unwrap_err().to_string();
        assert!(not_an_object.starts_with("metadata must be"), "{not_an_object}");
    }

    #[test]
    fn an_oversized_event_is_rejected() {
        let result = line(&Event::new("u", "A").metadata(json!({"k": "x".repeat(65 << 10)})));
        assert!(matches!(result, Err(LogError::TooLarge { max: 65_536, .. })));
    }

    #[test]
    fn a_serialize_implementation_may_log() {
        struct Logs;
        impl Serialize for Logs {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                assert!(line(&Event::new("inner", "A")).is_ok());
                json!({}).serialize(serializer)
            }
        }
        assert!(line(&Event::new("outer", "A").metadata(Logs)).unwrap().contains("outer"));
    }

    proptest! {
        #[test]
        fn the_head_equals_the_formatted_id_and_timestamp(
            times in prop::collection::vec(-62_167_219_200_000_i64..253_402_207_200_000, 1..5),
            more in 0_i64..2000,
        ) {
            let mut head = Head::new();
            let id = LogIdGenerator::new().generate(now());
            for millis in times {
                for millis in [millis, (millis + more).min(Timestamp::MAX.as_millis())] {
                    let time = Timestamp::from_millis(millis).unwrap();
                    let mut line = Vec::new();
                    head.write(id, time, &mut line);
                    let expected = format!(r#"{{"id":"{id}","timestamp":"{time}","userId":"#);
                    prop_assert_eq!(String::from_utf8(line).unwrap(), expected);
                }
            }
        }
    }
}
