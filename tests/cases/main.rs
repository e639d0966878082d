//! The integration tests, in one binary so that it is linked once.
//!
//! Tests panic on any error: the panic's location and message say what failed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "an error in a test or in its helpers fails the test"
)]

mod access;
mod architecture;
mod client;
mod client_calls;
mod client_kill;
mod client_tail;
mod conformance;
mod dashboard;
mod dead_letters;
mod embedded;
mod fixture;
mod fuzz;
mod http;
mod kafka;
mod language;
mod metrics;
mod mongodb;
mod openapi;
mod overload;
mod pipeline;
mod reading;
mod reads;
mod rebalance;
mod removal;
mod sources;
mod spool;
mod stop;
mod survival;
mod wait;
