//! Queues.

pub mod kafka;
