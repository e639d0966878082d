//! The stack under test: Apache Kafka, MongoDB and the server as processes that a test can kill,
//! pause and restart, and the tools that put load and faults on them.
//!
//! Kafka and MongoDB come from the first of these sources that is available:
//! 1. `EYEGO_TEST_KAFKA_BROKERS` and `EYEGO_TEST_MONGODB_URI`, if set;
//! 2. a Docker engine, with the services of `docker-compose.yml`;
//! 3. local processes: Kafka's jars from Maven and mongod from pip, cached in `target/stack`.
//!
//! A private cluster ([`kafka::Kafka`], [`mongodb::Mongo`]) always consists of local processes,
//! because only those can be sent signals. If a part is unavailable, the error says what to
//! install; tests are never skipped silently. No process started here outlives the test process,
//! even if that is killed (see [`process`]).
//!
//! The tests of the server itself are in `cases/`.

pub mod browser;
pub mod chaos;
pub mod client_kill;
pub mod cluster;
pub mod fuzz;
pub mod hostile;
pub mod kafka;
pub mod keys;
pub mod load;
pub mod memory_limit;
pub mod mongodb;
pub mod openapi;
pub mod parquet;
pub mod process;
pub mod proxy;
pub mod server;
pub mod steady;

mod compose;
mod download;
mod eventually;
mod port;
mod scratch;

#[cfg(test)]
mod orphans;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

pub use eventually::{eventually, eventually_blocking};

/// What Kafka or MongoDB is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Tests: small, and ready within seconds. The JVM uses only its fast compiler, which makes
    /// each request two to three times as expensive for the broker's lifetime. MongoDB has a cache
    /// of 0.5 GB, which is enough for about 100,000 logs.
    Tests,
    /// Benchmarks and manual use: a JVM with the options of Kafka's own scripts, which is fast
    /// after about 20 s of load, and MongoDB's default cache.
    ///
    /// `mongod` runs at a lower priority (`nice`), because acknowledgements depend on the broker
    /// and not on the store. `docker-compose.yml` does the same.
    Benchmarks,
}

/// Returns a name for a topic, a consumer group or a database that no other test and no earlier
/// run uses.
///
/// The suffix holds letters, digits and `-`, and is at most 32 characters long.
#[must_use]
pub fn unique(prefix: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis());
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{millis:x}-{:x}-{count:x}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::unique;

    #[test]
    fn unique_names_differ() {
        let (one, other) = (unique("topic"), unique("topic"));
        assert_ne!(one, other);
        assert!(one.starts_with("topic-"));
        assert!(one.len() <= "topic".len() + 32);
    }
}
