//! The use cases: what the server does with the ports of
//! [`domain`](crate::domain), whoever calls it and whatever fulfils them.

pub mod dead_letters;
mod decode;
pub mod identity;
pub mod ingest;
pub mod metrics;
pub mod persist;
pub mod retrieve;
