//! The event that a caller hands over. `pipeline::encode` turns it into JSON.

use std::borrow::Cow;

use eyego_log_core::{LogId, Timestamp};

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
}

impl<'a> Event<'a> {
    /// Creates an event without metadata. `user_id` has 1 to 256 characters,
    /// `action` 1 to 128.
    pub fn new(user_id: impl Into<Cow<'a, str>>, action: impl Into<Cow<'a, str>>) -> Self {
        let (user_id, action) = (user_id.into(), action.into());
        Self { user_id, action, timestamp: None, id: None, metadata: () }
    }
}

impl<'a, M> Event<'a, M> {
    /// Sets the metadata, replacing any set before: a value, or a reference to
    /// one, that serializes to a JSON object of up to 32 levels. `None` and
    /// `()` mean no metadata. As everywhere in `serde_json`, a float that is
    /// NaN or infinite becomes `null`.
    pub fn metadata<N>(self, metadata: N) -> Event<'a, N> {
        let Self { user_id, action, timestamp, id, metadata: _ } = self;
        Event { user_id, action, timestamp, id, metadata }
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
