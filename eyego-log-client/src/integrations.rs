//! Optional ways to use the client, each behind a crate feature.

#[cfg(feature = "blocking")]
pub mod blocking;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "test-util")]
pub mod testing;
#[cfg(feature = "tower")]
pub mod tower;
#[cfg(feature = "tracing")]
pub mod tracing;
