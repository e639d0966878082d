//! Queues.

pub mod sqlite;
