//! The event that a caller hands over. `pipeline::encode` turns it into JSON.

use std::borrow::Cow;

use eyego_log_core::{FieldError, FieldErrors, LogId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One action of a user, to be logged.
///
/// An event can borrow its fields. Building one does not allocate if the names
/// are `&str` and the metadata is a reference or lives on the stack. The fields
/// are validated by the call that accepts the event, such as
/// [`Client::log`](crate::Client::log).
///
/// ```
/// use eyego_log_client::Event;
/// use serde::Serialize;
///
/// #[derive(Serialize)]
/// struct Click<'a> {
///     page: &'a str,
///     x: u32,
/// }
///
/// let event = Event::new("user-123", "CLICK_BUTTON").metadata(Click { page: "home", x: 7 });
/// let event = event.field("experiment", "blue");
/// # let _ = event;
/// ```
#[derive(Debug, Clone)]
#[must_use = "an event does nothing until it is passed to `log` or `send`"]
pub struct Event<'a, M = ()> {
    pub(crate) user_id: Cow<'a, str>,
    pub(crate) action: Cow<'a, str>,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) id: Option<LogId>,
    pub(crate) metadata: M,
    /// Boxed, because most events have none.
    pub(crate) fields: Option<Box<Fields>>,
}

/// Single members of the metadata.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields {
    /// Such as `"page":"home","n":7`.
    pub(crate) json: Vec<u8>,
    pub(crate) errors: FieldErrors,
}

/// The JSON of an event, as the encoder writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a JSON object")]
struct EventJson<'a> {
    id: Option<LogId>,
    timestamp: Option<Timestamp>,
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
}

impl<'a> Event<'a> {
    /// Creates an event without metadata. `user_id` has 1 to 256 characters,
    /// `action` 1 to 128.
    pub fn new(user_id: impl Into<Cow<'a, str>>, action: impl Into<Cow<'a, str>>) -> Self {
        let (user_id, action) = (user_id.into(), action.into());
        Self { user_id, action, timestamp: None, id: None, metadata: (), fields: None }
    }
}

impl<'a> Event<'a, Option<&'a RawValue>> {
    /// Creates an event from the JSON of a lost event, as
    /// [`LostEvent::json`](crate::LostEvent::json) returns it, with the same id
    /// and timestamp. The server stores an event only once, however often it is
    /// logged.
    ///
    /// # Errors
    /// Returns an error if `json` is not such an object.
    ///
    /// ```
    /// use eyego_log_client::Event;
    ///
    /// let kept = r#"{"id":"69682d8d81847b87ab93264b","userId":"ada","action":"LOGIN"}"#;
    /// let event = Event::from_json(kept)?;
    /// # let _ = event;
    /// # Ok::<(), eyego_log_client::FieldErrors>(())
    /// ```
    pub fn from_json(json: &'a str) -> Result<Self, FieldErrors> {
        // A derived implementation also accepts an array of the fields.
        if json.trim_start().starts_with('[') {
            return Err(FieldError::of_input("must be a JSON object, not an array").into());
        }
        let event: EventJson<'a> = serde_json::from_str(json)
            .map_err(|error| FieldError::of_input(format!("must be an event as JSON: {error}")))?;
        let EventJson { id, timestamp, user_id, action, metadata } = event;
        Ok(Self { user_id, action, timestamp, id, metadata, fields: None })
    }
}

impl<'a, M> Event<'a, M> {
    /// Sets the metadata, replacing any set before: a value, or a reference to
    /// one, that serializes to a JSON object of up to 32 levels. `None` and
    /// `()` mean no metadata. As everywhere in `serde_json`, a float that is
    /// NaN or infinite becomes `null`. Single [fields](Self::field) are kept.
    pub fn metadata<N>(self, metadata: N) -> Event<'a, N> {
        let Self { user_id, action, timestamp, id, metadata: _, fields } = self;
        Event { user_id, action, timestamp, id, metadata, fields }
    }

    /// Adds a single field to the metadata. May be called several times, before
    /// or after [`metadata`](Self::metadata). A name that occurs more than once
    /// makes the event invalid.
    ///
    /// The value is encoded by this call, which allocates. Where that matters,
    /// pass a struct to [`metadata`](Self::metadata) instead.
    ///
    /// ```
    /// use eyego_log_client::Event;
    ///
    /// let event = Event::new("user-123", "SEARCH").field("query", "shoes").field("hits", 42);
    /// # let _ = event;
    /// ```
    pub fn field(mut self, name: impl AsRef<str>, value: impl Serialize) -> Self {
        let name = name.as_ref();
        let Fields { json, errors } = &mut **self.fields.get_or_insert_default();
        let length = json.len();
        if !json.is_empty() {
            json.push(b',');
        }
        let written = serde_json::to_writer(&mut *json, name).and_then(|()| {
            json.push(b':');
            serde_json::to_writer(&mut *json, &value)
        });
        if let Err(error) = written {
            json.truncate(length);
            errors.add(format_args!("metadata.{name}"), format_args!("must be JSON: {error}"));
        }
        self
    }

    /// Makes the event invalid for this reason.
    #[cfg(feature = "tracing")]
    pub(crate) fn invalid(mut self, field: &str, reason: &str) -> Self {
        self.fields.get_or_insert_default().errors.add(field, reason);
        self
    }

    /// Sets the time of the action. Defaults to the time at which the event is
    /// accepted. A time more than 24 hours in the future is invalid.
    pub fn timestamp(mut self, timestamp: impl Into<Timestamp>) -> Self {
        self.timestamp = Some(timestamp.into());
        self
    }

    /// Sets the unique event id. Defaults to an id generated when the event is
    /// accepted. Of several events with the same id, only the first is stored.
    pub fn id(mut self, id: LogId) -> Self {
        self.id = Some(id);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_json_object_is_an_event() {
        for (json, expected) in [
            (r#" [null, null, "ada", "LOGIN", null]"#, "must be a JSON object, not an array"),
            ("[]", "must be a JSON object, not an array"),
            ("7", "invalid type: integer `7`, expected a JSON object"),
            (r#"{"userId":"ada"}"#, "missing field `action`"),
        ] {
            let error = Event::from_json(json).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("EventJson"), "{error}");
        }
    }
}
