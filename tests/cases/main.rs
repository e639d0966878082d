//! The integration tests: one binary, so that it links once.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what goes wrong in a test fails it, in the functions beside it too"
)]

mod architecture;
mod client;
mod conformance;
mod dead_letters;
mod embedded;
mod fixture;
mod fuzz;
mod http;
mod kafka;
mod metrics;
mod mongodb;
mod overload;
mod pipeline;
mod rebalance;
mod spool;
mod stop;
mod survival;
mod wait;
