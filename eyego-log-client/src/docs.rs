//! Pages to read: what can be relied on, and what to turn. No code.

#[doc = include_str!("guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("tuning.md")]
pub mod tuning {}
