//! The client against made-up servers: what a real one cannot be made to do.
//! Against the real one it is tested in the workspace's `tests`.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

mod answers;
#[cfg(all(feature = "blocking", feature = "test-util", feature = "tower", feature = "tracing"))]
mod features;
mod lifecycle;
mod reading;
mod runtimes;
mod server;
#[cfg(feature = "spool")]
mod spool;
#[cfg(feature = "tls")]
mod tls;
