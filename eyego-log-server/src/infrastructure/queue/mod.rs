//! Queues.

pub mod kafka;
pub mod sqlite;
