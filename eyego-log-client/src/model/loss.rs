//! Lost events, as the loss hook receives them.

use eyego_log_core::{FieldErrors, LogId};
use serde_json::value::RawValue;

use crate::model::event::Event;
use crate::model::line::{Lines, id_of_line};
use crate::model::loss_reason::LossReason;

/// One or more events that were lost together, for the same reason.
///
/// [`ClientBuilder::on_loss`](crate::ClientBuilder::on_loss) receives it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Loss<'a> {
    /// Why the events were lost.
    pub reason: LossReason,
    /// A description for people, including the server's message if there was
    /// one.
    pub message: &'a str,
    pub(crate) lines: Lines<'a>,
    /// Events whose content can no longer be read.
    pub(crate) unreadable: u64,
}

impl<'a> Loss<'a> {
    /// Returns the number of lost events, which is at least 1.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lines.ends.len() + usize::try_from(self.unreadable).unwrap_or(usize::MAX)
    }

    /// Iterates over the lost events. Events of a damaged spool file
    /// ([`LossReason::Damaged`]) are counted but cannot be read, so they are
    /// not included.
    pub fn events(&self) -> impl Iterator<Item = LostEvent<'a>> + 'a {
        self.lines.iter().map(LostEvent)
    }
}

/// One event of a [`Loss`].
#[derive(Debug, Clone, Copy)]
pub struct LostEvent<'a>(&'a [u8]);

impl<'a> LostEvent<'a> {
    /// Returns the event as it would have been sent: a JSON object with `id`,
    /// `timestamp`, `userId`, `action` and `metadata`. It can be kept and logged
    /// again later with [`Event::from_json`], or posted to `/api/v1/logs`, and is
    /// then stored under the same id.
    #[must_use]
    pub fn json(&self) -> &'a str {
        std::str::from_utf8(self.0.trim_ascii_end()).unwrap_or_default()
    }

    /// Returns the event, to be logged again under the same id and with the same
    /// timestamp.
    ///
    /// # Errors
    /// Returns an error if the JSON is damaged.
    ///
    /// ```
    /// use eyego_log_client::Client;
    ///
    /// let second = Client::builder("http://localhost:9").build()?;
    /// let first = Client::builder("http://localhost:9")
    ///     .on_loss(move |loss| {
    ///         for event in loss.events().filter_map(|event| event.to_event().ok()) {
    ///             // What the second client loses, it counts itself.
    ///             let _ = second.log(event);
    ///         }
    ///     })
    ///     .build()?;
    /// # Ok::<(), eyego_log_client::ConfigError>(())
    /// ```
    pub fn to_event(&self) -> Result<Event<'a, Option<&'a RawValue>>, FieldErrors> {
        Event::from_json(self.json())
    }

    /// Returns the event's id.
    #[must_use]
    pub fn id(&self) -> Option<LogId> {
        id_of_line(self.0)
    }
}
