//! What happens when the buffer is full.

use std::time::Duration;

/// What happens to an event when the buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The event is lost, and `log` returns
    /// [`LogError::Full`](crate::LogError::Full).
    #[default]
    DropNewest,
    /// The oldest buffered batch that is not in flight is lost to make room.
    DropOldest,
    /// `log` blocks its thread for up to this duration until there is room, and
    /// then behaves like `DropNewest`. `send` never blocks; it behaves like
    /// `DropNewest` immediately.
    Block(Duration),
}
