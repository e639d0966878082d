//! The ports: what the pipeline requires of a queue and a store, and what each
//! guarantees. Nothing here depends on an adapter, a runtime or a protocol.
//!
//! The promises use the key words of RFC 2119. The conformance suites in
//! `tests/cases/conformance` check them for every adapter.

pub mod access;
pub mod dead_letter;
pub mod erasure;
pub mod health;
pub mod position;
pub mod queue;
pub mod read;
pub mod record_batch;
pub mod removal;
pub mod repeated;
pub mod repository;
pub mod retention;
pub mod stats;
pub mod subscription;
pub mod tail;
