//! The use cases, written against the ports of [`domain`](crate::domain).

pub mod access;
pub mod dead_letters;
mod decode;
pub mod identity;
pub mod ingest;
pub mod metrics;
pub mod persist;
pub mod read_budget;
pub mod reload;
pub mod removal;
pub mod tail;
pub mod wait;
