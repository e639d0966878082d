//! The ports: what the pipeline needs from a queue and a store, and what it is
//! promised. No adapter's types.

pub mod dead_letter;
pub mod health;
pub mod queue;
pub mod repository;
