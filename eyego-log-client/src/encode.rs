//! Turns an event into one line of the request: `{"id":…,"userId":…,…}\n`.
//!
//! It happens at the call, on the caller's thread, into memory of that thread:
//! code of the caller (its `Serialize`) never runs under a lock of ours, and
//! may itself log.

use std::cell::RefCell;
use std::io::Write as _;
use std::ops::Range;
use std::time::SystemTime;

use eyego_log_core::limits::MAX_AHEAD_MILLIS;
use eyego_log_core::{
    Action, FieldError, FieldErrors, LogId, LogIdGenerator, Metadata, Timestamp, UserId,
};
use serde::Serialize;

use crate::check::{Checking, Findings};
use crate::error::LogError;
use crate::event::Event;

/// What a thread keeps of its memory between two events.
const KEPT_CAPACITY: usize = 64 << 10;

struct Scratch {
    head: Head,
    line: Vec<u8>,
    findings: Findings,
}

impl Scratch {
    const fn new() -> Self {
        Self { head: Head::new(), line: Vec::new(), findings: Findings::new() }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

/// Hands the line that `event` is to `use_line`.
///
/// # Errors
/// The event's faults, or that it is larger than `max_bytes`.
pub(crate) fn with_line<M: Serialize, R>(
    event: &Event<'_, M>,
    ids: &LogIdGenerator,
    max_bytes: usize,
    use_line: impl FnOnce(LogId, &[u8]) -> Result<R, LogError>,
) -> Result<R, LogError> {
    let mut use_line = Some(use_line);
    let mut run = |scratch: &mut Scratch| {
        let id = scratch.write(event, ids, max_bytes);
        let result = id.and_then(|id| match use_line.take() {
            Some(use_line) => use_line(id, &scratch.line),
            None => Err(LogError::Closed),
        });
        if scratch.line.capacity() > KEPT_CAPACITY {
            scratch.line = Vec::new();
        }
        result
    };
    let kept = SCRATCH.try_with(|scratch| scratch.try_borrow_mut().ok().map(|mut s| run(&mut s)));
    match kept {
        Ok(Some(result)) => result,
        // Called from the caller's own `Serialize`, or while the thread ends.
        Ok(None) | Err(_) => run(&mut Scratch::new()),
    }
}

impl Scratch {
    fn write<M: Serialize>(
        &mut self,
        event: &Event<'_, M>,
        ids: &LogIdGenerator,
        max_bytes: usize,
    ) -> Result<LogId, LogError> {
        let mut faults = FieldErrors::new();
        let now = Timestamp::from(SystemTime::now());
        if let Err(fault) = UserId::check(&event.user_id) {
            faults.push(FieldError::new("userId", fault));
        }
        if let Err(fault) = Action::check(&event.action) {
            faults.push(FieldError::new("action", fault));
        }
        let timestamp = event.timestamp.unwrap_or(now);
        if timestamp.as_millis() > now.as_millis().saturating_add(MAX_AHEAD_MILLIS) {
            let fault = format!("must not be more than 24 hours ahead (it is {now} here)");
            faults.push(FieldError::new("timestamp", fault));
        }
        let id = event.id.unwrap_or_else(|| ids.generate(now));
        let line = &mut self.line;
        line.clear();
        line.extend_from_slice(self.head.text(id, timestamp));
        push_string(line, &event.user_id);
        line.extend_from_slice(b",\"action\":");
        push_string(line, &event.action);
        self.write_metadata(&event.metadata, &mut faults);
        if !faults.is_empty() {
            return Err(LogError::Invalid(faults));
        }
        self.line.extend_from_slice(b"}\n");
        let bytes = self.line.len();
        if bytes > max_bytes {
            return Err(LogError::TooLarge { bytes, max: max_bytes });
        }
        Ok(id)
    }

    fn write_metadata<M: Serialize>(&mut self, metadata: &M, faults: &mut FieldErrors) {
        let Self { line, findings, .. } = self;
        let field_start = line.len();
        line.extend_from_slice(b",\"metadata\":");
        let start = line.len();
        findings.clear();
        let formatter = Checking(findings);
        let mut serializer = serde_json::Serializer::with_formatter(&mut *line, formatter);
        if let Err(error) = metadata.serialize(&mut serializer) {
            faults.push(FieldError::new("metadata", format!("must be JSON: {error}")));
            return;
        }
        if &line[start..] == b"null" {
            line.truncate(field_start);
            return;
        }
        if findings.raw {
            // In JSON a line break stands only between tokens; in a line none may.
            for byte in &mut line[start..] {
                if matches!(byte, b'\n' | b'\r') {
                    *byte = b' ';
                }
            }
        }
        if findings.look_closer || line.get(start) != Some(&b'{') {
            let checked = match std::str::from_utf8(&line[start..]) {
                Ok(text) => Metadata::check(text),
                Err(error) => Err(FieldError::new("metadata", error).into()),
            };
            if let Err(errors) = checked {
                errors.into_vec().into_iter().for_each(|error| faults.push(error));
            }
        }
    }
}

fn push_string(line: &mut Vec<u8>, text: &str) {
    let written = serde_json::to_writer(&mut *line, text);
    debug_assert!(written.is_ok(), "writing text to memory cannot fail");
}

/// With what each line begins: only the id and the time change.
struct Head {
    text: [u8; HEAD.len()],
    /// The second that was written; those of one share all but the
    /// milliseconds.
    second: i64,
}

/// The places of what changes are those below.
const HEAD: [u8; 81] =
    *br#"{"id":"000000000000000000000000","timestamp":"0000-00-00T00:00:00.000Z","userId":"#;
const ID: Range<usize> = 7..31;
const TIME: Range<usize> = 46..70;
const MILLIS: Range<usize> = 66..69;

impl Head {
    const fn new() -> Self {
        Self { text: HEAD, second: i64::MIN }
    }

    fn text(&mut self, id: LogId, time: Timestamp) -> &[u8; HEAD.len()] {
        self.text[ID].copy_from_slice(&id.to_hex());
        let (second, millis) =
            (time.as_millis().div_euclid(1000), time.as_millis().rem_euclid(1000));
        if second != self.second {
            let mut rest = &mut self.text[TIME];
            let written = write!(rest, "{time}");
            debug_assert!(written.is_ok(), "a time has 24 characters");
            self.second = second;
        }
        for (digit, divisor) in self.text[MILLIS].iter_mut().zip([100, 10, 1]) {
            *digit = b'0' + u8::try_from(millis / divisor % 10).unwrap_or(0);
        }
        &self.text
    }
}

/// The id at the head of a line that was written here.
pub(crate) fn id_of_line(line: &[u8]) -> Option<LogId> {
    std::str::from_utf8(line.get(ID)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use eyego_log_core::IngestRequest;
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::*;

    fn line<M: Serialize>(event: &Event<'_, M>) -> Result<String, LogError> {
        with_line(event, &LogIdGenerator::new(), 64 << 10, |id, line| {
            assert_eq!(id_of_line(line), Some(id));
            Ok(String::from_utf8(line.to_vec()).unwrap())
        })
    }

    fn now() -> Timestamp {
        SystemTime::now().into()
    }

    /// What the server says to the same event.
    fn server_says(body: &Value) -> String {
        IngestRequest::parse(body.to_string().as_bytes(), now()).unwrap_err().to_string()
    }

    #[test]
    fn a_line_is_what_the_server_reads() {
        let event = Event::new("ada \"x\"", "CLICK").metadata(json!({"a": [1, {"b": "\n"}]}));
        let line = line(&event).unwrap();
        let request = IngestRequest::parse(line.as_bytes(), now()).unwrap();
        assert_eq!(request.user_id.as_str(), "ada \"x\"");
        assert_eq!(request.metadata.as_json(), r#"{"a":[1,{"b":"\n"}]}"#);
        assert!(request.id.is_some() && request.timestamp.is_some());
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn no_metadata_is_left_out() {
        assert!(!line(&Event::new("u", "A")).unwrap().contains("metadata"));
        let none: Option<Value> = None;
        assert!(!line(&Event::new("u", "A").metadata(none)).unwrap().contains("metadata"));
    }

    #[test]
    fn raw_metadata_stays_on_its_line() {
        let raw: &RawValue = serde_json::from_str("{\r\n \"k\": 1\n}").unwrap();
        let line = line(&Event::new("u", "A").metadata(raw)).unwrap();
        assert!(line.ends_with("\"metadata\":{   \"k\": 1 }}\n"), "{line}");
    }

    #[test]
    fn faults_read_as_the_servers() {
        for (user, action, metadata) in [
            ("", "A", json!({})),
            ("u", "", json!({})),
            ("u\0", "A", json!({"a\0": 1})),
            (&"u".repeat(257), &*"a".repeat(129), json!([1])),
            ("u", "A", json!({"n": u64::MAX})),
            ("u", "A", (0..33).fold(json!(1), |inner, _| json!({"k": inner}))),
        ] {
            let told = line(&Event::new(user, action).metadata(&metadata)).unwrap_err();
            let body = json!({"userId": user, "metadata": metadata, "action": action});
            let server: Vec<String> = server_says(&body).split("; ").map(str::to_owned).collect();
            let mut told: Vec<String> = told.to_string().split("; ").map(str::to_owned).collect();
            // The same faults; the server lists them in the body's order.
            told.sort_by_key(|fault| server.iter().position(|other| other == fault));
            assert_eq!(told, server);
        }
    }

    #[test]
    fn a_key_that_does_not_serialise_and_a_late_time_are_faults() {
        let map = std::collections::BTreeMap::from([((1, 2), 3)]);
        let fault = line(&Event::new("u", "A").metadata(map)).unwrap_err();
        assert_eq!(fault.to_string(), "metadata must be JSON: key must be a string");
        let late = Timestamp::from_millis(now().as_millis() + 86_400_000 + 60_000).unwrap();
        let fault = line(&Event::new("u", "A").timestamp(late)).unwrap_err();
        assert!(fault.to_string().starts_with("timestamp must not be more than 24 hours ahead"));
    }

    #[test]
    fn an_event_over_its_limit_is_refused() {
        let fault = line(&Event::new("u", "A").metadata(json!({"k": "x".repeat(65 << 10)})));
        assert!(matches!(fault, Err(LogError::TooLarge { max: 65_536, .. })));
    }

    #[test]
    fn a_serialize_that_logs_is_served() {
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
        fn ids_and_times_are_written_as_core_writes_them(
            times in prop::collection::vec(-62_167_219_200_000_i64..253_402_207_200_000, 1..5),
            more in 0_i64..2000,
        ) {
            let mut head = Head::new();
            let id = LogIdGenerator::new().generate(now());
            for millis in times {
                for millis in [millis, (millis + more).min(Timestamp::MAX.as_millis())] {
                    let time = Timestamp::from_millis(millis).unwrap();
                    let text = std::str::from_utf8(head.text(id, time)).unwrap();
                    let expected = format!(r#"{{"id":"{id}","timestamp":"{time}","userId":"#);
                    prop_assert_eq!(text, expected);
                }
            }
        }
    }
}
