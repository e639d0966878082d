//! Queues.

mod answers;
pub mod kafka;
pub mod sqlite;
