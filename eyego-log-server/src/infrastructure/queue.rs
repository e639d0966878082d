//! Adapters of the queue port.

pub mod kafka;
pub mod spool;
pub mod sqlite;
