//! Delivered events, as the delivery hook receives them.

use eyego_log_core::LogId;

use crate::model::line::{Lines, id_of_line};

/// One or more events that were delivered by the same request.
///
/// [`ClientBuilder::on_delivery`](crate::ClientBuilder::on_delivery) receives it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Delivered<'a> {
    pub(crate) lines: Lines<'a>,
}

impl<'a> Delivered<'a> {
    /// Returns the number of delivered events, which is at least 1.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lines.ends.len()
    }

    /// Iterates over the ids of the events.
    pub fn ids(&self) -> impl Iterator<Item = LogId> + 'a {
        self.lines.iter().filter_map(id_of_line)
    }
}
