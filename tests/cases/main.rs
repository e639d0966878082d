//! The integration tests: one binary, so that it links once.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what goes wrong in a test fails it, in the functions beside it too"
)]

mod client;
mod conformance;
mod embedded;
mod http;
