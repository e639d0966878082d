//! The client with simulated servers, for behavior that the real server cannot
//! be made to show. The workspace's `tests` run it with the real server.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod allocations;
mod architecture;
mod connections;
mod deadlines;
mod eventually;
#[cfg(all(feature = "blocking", feature = "test-util"))]
mod export;
#[cfg(all(feature = "blocking", feature = "test-util", feature = "tower", feature = "tracing"))]
mod features;
#[cfg(feature = "test-util")]
mod filtering;
#[cfg(unix)]
mod fork;
mod lifecycle;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "blocking")]
mod operations;
mod outage;
mod reading;
mod reporting;
mod responses;
#[cfg(feature = "test-util")]
mod room;
mod runtimes;
mod server;
#[cfg(feature = "spool")]
mod spool;
mod tail;
#[cfg(any(feature = "tls", feature = "native-tls"))]
mod tls;
