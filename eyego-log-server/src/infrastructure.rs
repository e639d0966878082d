//! Adapters: each implements a port of [`domain`](crate::domain) with one
//! engine. Adapters are independent of each other, except that the spool keeps
//! its records in the embedded queue.

pub mod embedded;
pub mod keys_file;
pub mod queue;
pub mod repository;
