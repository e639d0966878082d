//! The bodies of the HTTP API: what callers send. What they are answered is in
//! a file of its own.

mod answer;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::answer::{
    BatchAnswer, Failure, IngestAnswer, LogAnswer, LogsPage, RejectedItem, RejectionCode, Status,
};
use crate::field::{FieldError, FieldErrors};
use crate::json::{LONE_SURROGATE, Members, Text, unquote};
use crate::limits::MAX_AHEAD_MILLIS;
use crate::{Action, LogEntry, LogId, Metadata, Timestamp, UserId};

/// What a caller sends to have one thing logged.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IngestRequest {
    /// The log's identity; minted by the receiver when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<LogId>,
    /// Who did it.
    pub user_id: UserId,
    /// What was done.
    pub action: Action,
    /// When it was done; the time of receipt when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// What else is to be known.
    pub metadata: Metadata,
}

/// Why a body is not an [`IngestRequest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The body is not JSON.
    #[error("{0}")]
    Syntax(SyntaxError),
    /// The body is JSON, with faults.
    #[error("{0}")]
    Fields(FieldErrors),
}

/// Where JSON ends to be JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// The line, from 1; 0 where the whole body is at fault.
    pub line: usize,
    /// The column in bytes, from 1.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

impl SyntaxError {
    /// As `serde_json` found it.
    #[must_use]
    pub fn from_json(error: &serde_json::Error) -> Self {
        let message = error.to_string();
        let position = format!(" at line {} column {}", error.line(), error.column());
        let message = message.strip_suffix(&position).unwrap_or(&message).to_owned();
        Self { line: error.line(), column: error.column(), message }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, message } = self;
        if *line == 0 {
            f.write_str(message)
        } else {
            write!(f, "not valid JSON at line {line} column {column}: {message}")
        }
    }
}

/// `bytes` as text.
///
/// # Errors
/// They are not UTF-8 or there are none.
pub fn body_text(bytes: &[u8]) -> Result<&str, SyntaxError> {
    let text = std::str::from_utf8(bytes).map_err(|error| SyntaxError {
        line: 0,
        column: 0,
        message: format!("the body is not valid UTF-8 at byte {}", error.valid_up_to()),
    })?;
    if text.trim_ascii().is_empty() {
        let message = "the body is empty: send a JSON object".to_owned();
        return Err(SyntaxError { line: 0, column: 0, message });
    }
    Ok(text)
}

/// The members of a JSON object, each as its text, in their order and with
/// repetitions; none where `raw` is no object.
#[must_use]
pub fn members(raw: &RawValue) -> Vec<(Cow<'_, str>, &RawValue)> {
    let Members(members) = serde_json::from_str(raw.get()).unwrap_or(Members(Vec::new()));
    let name = |raw| unquote(raw).unwrap_or(Cow::Borrowed(raw.get()));
    members.into_iter().map(|(raw, value)| (name(raw), value)).collect()
}

/// The shape of a faultless body; what does not fit is looked at again.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

impl IngestRequest {
    /// The request that is this JSON text, received at `now`.
    ///
    /// `null` for an optional field is as good as leaving it out.
    ///
    /// # Errors
    /// Where the text is no JSON, or every fault of every field.
    pub fn parse(bytes: &[u8], now: Timestamp) -> Result<Self, ParseError> {
        let text = body_text(bytes).map_err(ParseError::Syntax)?;
        match Self::parse_faultless(text, now) {
            Some(request) => Ok(request),
            None => Self::parse_slowly(text, now),
        }
    }

    fn parse_faultless(text: &str, now: Timestamp) -> Option<Self> {
        let body: Body<'_> = serde_json::from_str(text).ok()?;
        Some(Self {
            id: body.id.map(|id| id.0.parse()).transpose().ok()?,
            user_id: UserId::new(body.user_id).ok()?,
            action: Action::new(body.action).ok()?,
            timestamp: body.timestamp.map(|text| parse_time(&text.0, now)).transpose().ok()?,
            metadata: match body.metadata {
                Some(raw) => Metadata::from_raw(raw, &mut FieldErrors::new())?,
                None => Metadata::default(),
            },
        })
    }

    fn parse_slowly(text: &str, now: Timestamp) -> Result<Self, ParseError> {
        let raw: &RawValue = serde_json::from_str(text)
            .map_err(|error| ParseError::Syntax(SyntaxError::from_json(&error)))?;
        let mut faults = FieldErrors::new();
        if !raw.get().starts_with('{') {
            let message = "the body must be a JSON object".to_owned();
            faults.push(FieldError { path: String::new(), message });
            return Err(ParseError::Fields(faults));
        }
        let mut fields = Fields::default();
        for (name, value) in members(raw) {
            fields.take(&name, value, &mut faults);
        }
        let id = fields.id.and_then(|raw| {
            optional(raw, "id", &mut faults, |text| {
                text.parse::<LogId>().map_err(|error| error.to_string())
            })
        });
        let user_id = required(fields.user_id, "userId", &mut faults, UserId::new);
        let timestamp = fields
            .timestamp
            .and_then(|raw| optional(raw, "timestamp", &mut faults, |text| parse_time(text, now)));
        let metadata = match fields.metadata {
            Some(raw) if raw.get() != "null" => Metadata::from_raw(raw, &mut faults),
            _ => Some(Metadata::default()),
        };
        let action = required(fields.action, "action", &mut faults, Action::new);
        match (user_id, action, metadata) {
            (Some(user_id), Some(action), Some(metadata)) if faults.is_empty() => {
                Ok(Self { id, user_id, action, timestamp, metadata })
            }
            _ => Err(ParseError::Fields(faults)),
        }
    }

    /// The entry that this request asks for, received at `now`.
    #[must_use]
    pub fn into_entry(self, id: LogId, now: Timestamp) -> LogEntry {
        LogEntry {
            id,
            user_id: self.user_id,
            action: self.action,
            timestamp: self.timestamp.unwrap_or(now),
            metadata: self.metadata,
            received_at: Some(now),
        }
    }
}

/// The fields of a body, each as its text.
#[derive(Default)]
struct Fields<'a> {
    id: Option<&'a RawValue>,
    user_id: Option<&'a RawValue>,
    action: Option<&'a RawValue>,
    timestamp: Option<&'a RawValue>,
    metadata: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    fn take(&mut self, key: &str, value: &'a RawValue, faults: &mut FieldErrors) {
        let field = match key {
            "id" => &mut self.id,
            "userId" => &mut self.user_id,
            "action" => &mut self.action,
            "timestamp" => &mut self.timestamp,
            "metadata" => &mut self.metadata,
            unknown => {
                let known = "userId, action, metadata, timestamp, id";
                let fault = format!("is not a known field (those are {known}); put it in metadata");
                faults.push(FieldError::new(unknown, fault));
                return;
            }
        };
        if field.replace(value).is_some() {
            faults.push(FieldError::new(key, "must not be repeated"));
        }
    }
}

/// The text of a string field, or its fault.
fn string_field(raw: &RawValue) -> Result<Cow<'_, str>, String> {
    if !raw.get().starts_with('"') {
        return Err(format!("must be a string, not {}", kind_of(raw)));
    }
    unquote(raw).ok_or_else(|| LONE_SURROGATE.to_owned())
}

fn required<T>(
    raw: Option<&RawValue>,
    path: &str,
    faults: &mut FieldErrors,
    check: impl FnOnce(String) -> Result<T, String>,
) -> Option<T> {
    let value = match raw {
        Some(raw) if raw.get() == "null" => Err("must be a non-empty string".to_owned()),
        Some(raw) => string_field(raw).and_then(|text| check(text.into_owned())),
        None => Err("is required: a non-empty string".to_owned()),
    };
    value.map_err(|fault| faults.push(FieldError::new(path, fault))).ok()
}

fn optional<T>(
    raw: &RawValue,
    path: &str,
    faults: &mut FieldErrors,
    check: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    if raw.get() == "null" {
        return None;
    }
    let value = string_field(raw).and_then(|text| check(&text));
    value.map_err(|fault| faults.push(FieldError::new(path, fault))).ok()
}

fn kind_of(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let timestamp: Timestamp =
        text.parse().map_err(|error: crate::ParseTimestampError| error.to_string())?;
    if timestamp.as_millis() > now.as_millis().saturating_add(MAX_AHEAD_MILLIS) {
        return Err(format!("must not be more than 24 hours ahead (it is {now} here)"));
    }
    Ok(timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-14T12:00:00Z".parse().unwrap()
    }

    fn parse(body: &str) -> Result<IngestRequest, ParseError> {
        IngestRequest::parse(body.as_bytes(), now())
    }

    fn faults(body: &str) -> Vec<String> {
        match parse(body).unwrap_err() {
            ParseError::Fields(faults) => {
                faults.into_vec().into_iter().map(|e| e.message).collect()
            }
            ParseError::Syntax(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_full_body_is_read() {
        let request = parse(
            r#"{"id": "69682d8d81847b87ab93264b", "userId": "u", "action": "A",
                "timestamp": "2026-01-15T11:59:59+00:00", "metadata": {"k": [1, 2.5]}}"#,
        )
        .unwrap();
        assert_eq!(request.id.unwrap().to_string(), "69682d8d81847b87ab93264b");
        assert_eq!(request.timestamp.unwrap().to_string(), "2026-01-15T11:59:59.000Z");
        assert_eq!(request.metadata.as_json(), r#"{"k": [1, 2.5]}"#);
    }

    #[test]
    fn optional_fields_may_be_null_or_absent() {
        let absent = parse(r#"{"userId": "u", "action": "A"}"#).unwrap();
        let null = parse(
            r#"{"userId": "u", "action": "A", "id": null, "timestamp": null, "metadata": null}"#,
        );
        assert_eq!(absent, null.unwrap());
        assert_eq!(absent.metadata.as_json(), "{}");
    }

    #[test]
    fn every_fault_is_listed() {
        assert_eq!(
            faults(
                r#"{"userId": 7, "metadata": {"n": 1e999, "n": 2}, "colour": "red", "id": "12",
                    "timestamp": "2026-01-16T12:00:00.001Z", "timestamp": "2026-01-16T12:00:01Z"}"#
            ),
            [
                "colour is not a known field (those are userId, action, metadata, timestamp, id); \
                 put it in metadata",
                "timestamp must not be repeated",
                "id must be 24 hex digits",
                "userId must be a string, not a number",
                "timestamp must not be more than 24 hours ahead (it is 2026-01-14T12:00:00.000Z here)",
                "metadata.n must be a number that a 64-bit float can hold; send it as a string",
                "metadata.n must not be repeated in its object",
                "action is required: a non-empty string",
            ]
        );
        assert_eq!(faults("[]"), ["the body must be a JSON object"]);
        assert_eq!(
            faults(r#"{"userId": "a\u0000", "action": "\ud800"}"#),
            ["userId must not contain U+0000".to_owned(), format!("action {LONE_SURROGATE}"),]
        );
    }

    #[test]
    fn what_is_not_json_is_named_with_line_and_column() {
        let error = parse("{\n  \"userId\": oops}").unwrap_err();
        assert_eq!(error.to_string(), "not valid JSON at line 2 column 13: expected value");
        assert_eq!(parse(" \n").unwrap_err().to_string(), "the body is empty: send a JSON object");
        let error = IngestRequest::parse(b"{\"userId\": \"\xff\"}", now()).unwrap_err();
        assert_eq!(error.to_string(), "the body is not valid UTF-8 at byte 12");
        assert!(matches!(parse("{} {}").unwrap_err(), ParseError::Syntax(_)));
    }

    #[test]
    fn a_float_beyond_the_integers_is_no_fault() {
        let request = parse(r#"{"userId": "u", "action": "A", "metadata": {"n": 1e19}}"#);
        assert_eq!(request.unwrap().metadata.as_json(), r#"{"n": 1e19}"#);
    }
}
