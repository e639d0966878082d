//! The adapters: each fulfils a port of [`domain`](crate::domain) with one
//! engine, and knows nothing of the others.

pub mod embedded;
pub mod queue;
pub mod repository;
