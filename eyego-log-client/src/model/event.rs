//! What a caller hands over: who did what, when, with which metadata.
//!
//! Turning it into a line of the request is not here but in `encode`.

use std::borrow::Cow;

use eyego_log_core::{LogId, Timestamp};

/// One thing that a user did, as the caller describes it.
///
/// It borrows what it is given: building one allocates nothing when the names
/// are `&str` and the metadata is a reference or lives on the stack. Whether
/// its fields are in order is told by the call that takes it
/// ([`Client::log`](crate::Client::log)).
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
#[must_use = "an event does nothing until it is handed to `log` or `send`"]
pub struct Event<'a, M = ()> {
    pub(crate) user_id: Cow<'a, str>,
    pub(crate) action: Cow<'a, str>,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) id: Option<LogId>,
    pub(crate) metadata: M,
}

impl<'a> Event<'a> {
    /// `user_id` (1 to 256 characters) did `action` (1 to 128 characters),
    /// with no metadata so far.
    pub fn new(user_id: impl Into<Cow<'a, str>>, action: impl Into<Cow<'a, str>>) -> Self {
        let (user_id, action) = (user_id.into(), action.into());
        Self { user_id, action, timestamp: None, id: None, metadata: () }
    }
}

impl<'a, M> Event<'a, M> {
    /// What else is to be known: anything that serialises to a JSON object of
    /// up to 32 levels, by value or by reference. What was set before is
    /// replaced. `None` and `()` stand for the empty object; a float that is
    /// no number becomes `null`, as everywhere in `serde_json`.
    pub fn metadata<N>(self, metadata: N) -> Event<'a, N> {
        let Self { user_id, action, timestamp, id, metadata: _ } = self;
        Event { user_id, action, timestamp, id, metadata }
    }

    /// When it was done. Default: the time of the call that takes the event.
    /// More than 24 h ahead is a fault.
    pub fn timestamp(mut self, timestamp: impl Into<Timestamp>) -> Self {
        self.timestamp = Some(timestamp.into());
        self
    }

    /// The identity of the log. Default: minted by the call that takes the
    /// event. Two events with one id are stored once, the first one.
    pub fn id(mut self, id: LogId) -> Self {
        self.id = Some(id);
        self
    }
}
