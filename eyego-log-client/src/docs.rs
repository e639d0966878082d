//! Guides: what the client guarantees, and how to tune it.

#[doc = include_str!("docs/guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("docs/tuning.md")]
pub mod tuning {}
