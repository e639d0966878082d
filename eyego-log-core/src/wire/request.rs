//! The body that asks to ingest one event.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::body::{SyntaxError, body_text, for_each_member};
use crate::field::{FieldError, FieldErrors};
use crate::json::{LONE_SURROGATE, Text, unquote};
use crate::limits::MAX_AHEAD_MILLIS;
#[cfg(feature = "openapi")]
use crate::openapi;
use crate::{Action, InvalidValue, LogEntry, LogId, Metadata, Timestamp, UserId};

/// Request to ingest one event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngestRequest {
    /// Unique event id. If absent, the receiver generates one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = openapi::requested_id))]
    pub id: Option<LogId>,
    /// The user who did it.
    #[cfg_attr(feature = "openapi", schema(schema_with = openapi::requested_user_id))]
    pub user_id: UserId,
    /// The action the user took.
    #[cfg_attr(feature = "openapi", schema(schema_with = openapi::requested_action))]
    pub action: Action,
    /// Time of the event. If absent, the time of receipt counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = openapi::requested_timestamp))]
    pub timestamp: Option<Timestamp>,
    /// Arbitrary metadata, as a JSON object.
    #[cfg_attr(
        feature = "openapi",
        schema(schema_with = openapi::requested_metadata, required = false)
    )]
    pub metadata: Metadata,
}

/// The reason a body is not a valid [`IngestRequest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The body is not JSON.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// The body is JSON, but fields are invalid.
    #[error(transparent)]
    Fields(#[from] FieldErrors),
}

/// The fields of a valid body. A body that does not deserialize into this is
/// parsed again by [`IngestRequest::parse_with_errors`].
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
    /// Parses a request that was received at `now`.
    ///
    /// `null` for an optional field is the same as omitting it.
    ///
    /// # Errors
    /// Returns an error if the body is not JSON, or an error for every invalid
    /// field.
    pub fn parse(bytes: &[u8], now: Timestamp) -> Result<Self, ParseError> {
        let text = body_text(bytes)?;
        match Self::parse_valid(text, now) {
            Some(request) => Ok(request),
            None => Self::parse_with_errors(text, now),
        }
    }

    /// Fast path: returns `None` if the body may be invalid.
    fn parse_valid(text: &str, now: Timestamp) -> Option<Self> {
        let body: Body<'_> = serde_json::from_str(text).ok()?;
        Some(Self {
            id: body.id.map(|id| id.0.parse()).transpose().ok()?,
            user_id: UserId::new(body.user_id).ok()?,
            action: Action::new(body.action).ok()?,
            timestamp: body.timestamp.map(|text| parse_timestamp(&text.0, now)).transpose().ok()?,
            metadata: match body.metadata {
                Some(raw) => Metadata::from_raw(raw, &mut FieldErrors::new())?,
                None => Metadata::default(),
            },
        })
    }

    /// Slow path: decides whether the body is valid and finds every error.
    fn parse_with_errors(text: &str, now: Timestamp) -> Result<Self, ParseError> {
        let raw: &RawValue =
            serde_json::from_str(text).map_err(|error| SyntaxError::from_json(&error))?;
        let mut errors = FieldErrors::new();
        if !raw.get().starts_with('{') {
            let error = FieldError::of_input("the body must be a JSON object");
            return Err(FieldErrors::from(error).into());
        }
        let mut fields = Fields::default();
        for_each_member(raw, |name, value| fields.set(&name, value, &mut errors));
        let id = fields.id.and_then(|raw| optional(raw, "id", &mut errors, str::parse::<LogId>));
        let user_id = required(fields.user_id, "userId", &mut errors, UserId::new);
        let timestamp = fields.timestamp.and_then(|raw| {
            optional(raw, "timestamp", &mut errors, |text| parse_timestamp(text, now))
        });
        let metadata = match fields.metadata {
            Some(raw) if raw.get() != "null" => Metadata::from_raw(raw, &mut errors),
            _ => Some(Metadata::default()),
        };
        let action = required(fields.action, "action", &mut errors, Action::new);
        match (user_id, action, metadata) {
            (Some(user_id), Some(action), Some(metadata)) if errors.is_empty() => {
                Ok(Self { id, user_id, action, timestamp, metadata })
            }
            _ => Err(ParseError::Fields(errors)),
        }
    }

    /// Converts the request into an entry that was received at `now`.
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

/// The fields of a body as JSON text.
#[derive(Default)]
struct Fields<'a> {
    id: Option<&'a RawValue>,
    user_id: Option<&'a RawValue>,
    action: Option<&'a RawValue>,
    timestamp: Option<&'a RawValue>,
    metadata: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    fn set(&mut self, key: &str, value: &'a RawValue, errors: &mut FieldErrors) {
        let field = match key {
            "id" => &mut self.id,
            "userId" => &mut self.user_id,
            "action" => &mut self.action,
            "timestamp" => &mut self.timestamp,
            "metadata" => &mut self.metadata,
            unknown => {
                let known = "userId, action, metadata, timestamp, id";
                let reason =
                    format_args!("is not a known field (those are {known}); put it in metadata");
                errors.add(unknown, reason);
                return;
            }
        };
        if field.replace(value).is_some() {
            errors.add(key, "must not be repeated");
        }
    }
}

/// Returns the text of a string field, or the reason it is invalid.
fn string_field(raw: &RawValue) -> Result<Cow<'_, str>, String> {
    if !raw.get().starts_with('"') {
        return Err(format!("must be a string, not {}", kind_of(raw)));
    }
    unquote(raw).ok_or_else(|| LONE_SURROGATE.to_owned())
}

fn required<T>(
    raw: Option<&RawValue>,
    path: &str,
    errors: &mut FieldErrors,
    convert: impl FnOnce(String) -> Result<T, InvalidValue>,
) -> Option<T> {
    let value = match raw {
        Some(raw) if raw.get() == "null" => Err(InvalidValue::Empty.to_string()),
        Some(raw) => string_field(raw)
            .and_then(|text| convert(text.into_owned()).map_err(|error| error.to_string())),
        None => Err("is required: a non-empty string".to_owned()),
    };
    value.map_err(|reason| errors.add(path, reason)).ok()
}

fn optional<T, E: fmt::Display>(
    raw: &RawValue,
    path: &str,
    errors: &mut FieldErrors,
    convert: impl FnOnce(&str) -> Result<T, E>,
) -> Option<T> {
    if raw.get() == "null" {
        return None;
    }
    let value =
        string_field(raw).and_then(|text| convert(&text).map_err(|error| error.to_string()));
    value.map_err(|reason| errors.add(path, reason)).ok()
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

fn parse_timestamp(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    // Clamped, so that a time after the last `Timestamp` is reported as too far ahead.
    let timestamp = Timestamp::parse_clamped(text).map_err(|error| error.to_string())?;
    if timestamp.as_millis() > now.as_millis().saturating_add(MAX_AHEAD_MILLIS) {
        return Err(format!("must not be more than 24 hours ahead (it is {now} here)"));
    }
    // One before the first `Timestamp` is an error: it would be stored as another time.
    text.parse().map_err(|error: crate::ParseTimestampError| error.to_string())
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

    fn errors(body: &str) -> Vec<String> {
        match parse(body).unwrap_err() {
            ParseError::Fields(errors) => {
                errors.into_vec().into_iter().map(|e| e.message).collect()
            }
            ParseError::Syntax(error) => panic!("{error}"),
        }
    }

    #[test]
    fn every_field_is_parsed() {
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
    fn every_error_is_listed() {
        assert_eq!(
            errors(
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
        assert_eq!(errors("[]"), ["the body must be a JSON object"]);
        assert_eq!(
            errors(r#"{"userId": "a\u0000", "action": "\ud800"}"#),
            ["userId must not contain U+0000".to_owned(), format!("action {LONE_SURROGATE}"),]
        );
    }

    #[test]
    fn syntax_errors_have_a_line_and_a_column() {
        let error = parse("{\n  \"userId\": oops}").unwrap_err();
        assert_eq!(error.to_string(), "not valid JSON at line 2 column 13: expected value");
        assert_eq!(parse(" \n").unwrap_err().to_string(), "the body is empty: send a JSON object");
        let error = IngestRequest::parse(b"{\"userId\": \"\xff\"}", now()).unwrap_err();
        assert_eq!(error.to_string(), "the body is not valid UTF-8 at byte 12");
        assert!(matches!(parse("{} {}").unwrap_err(), ParseError::Syntax(_)));
    }

    #[test]
    fn timestamps_are_truncated_but_not_clamped() {
        let with = |timestamp: &str| {
            format!(r#"{{"userId": "u", "action": "A", "timestamp": "{timestamp}"}}"#)
        };
        let request = parse(&with("2026-01-14T10:00:00.12399999999999Z")).unwrap();
        assert_eq!(request.timestamp.unwrap().to_string(), "2026-01-14T10:00:00.123Z");
        let late = errors(&with("9999-12-31T23:59:59-12:00"));
        assert!(late[0].starts_with("timestamp must not be more than 24 hours ahead"), "{late:?}");
        let early = errors(&with("0000-01-01T00:00:00+12:00"));
        assert!(early[0].starts_with("timestamp must lie in the years 0 to 9999"), "{early:?}");
    }

    #[test]
    fn errors_and_names_are_bounded() {
        let unknown = format!("{{{}\"x\": 0}}", "\"\":0,".repeat(50_000));
        let long_name = format!("{{\"{}\": 0}}", "é".repeat(100_000));
        let long_value = format!("{{\"userId\": \"{}\", \"id\": \"{0}\"}}", "x".repeat(100_000));
        for (body, count) in [(unknown, 21), (long_name, 3), (long_value, 3)] {
            let errors = errors(&body);
            assert_eq!(errors.len(), count, "{errors:?}");
            assert!(errors.iter().all(|error| error.len() < 300), "{errors:?}");
        }
    }

    #[test]
    fn a_float_outside_i64_is_valid() {
        let request = parse(r#"{"userId": "u", "action": "A", "metadata": {"n": 1e19}}"#);
        assert_eq!(request.unwrap().metadata.as_json(), r#"{"n": 1e19}"#);
    }
}
