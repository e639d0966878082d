//! Queues.

mod answers;
pub mod kafka;
pub mod spool;
pub mod sqlite;
