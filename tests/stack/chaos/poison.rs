//! Poison messages: records that no store can hold, sent directly to the topic.

use std::time::Duration;

use anyhow::Result;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};

/// The time for Kafka to acknowledge one.
const TIMEOUT: Duration = Duration::from_secs(30);
const KINDS: u64 = 5;

/// Sends poison messages to a topic.
pub(super) struct Poisoner {
    producer: FutureProducer,
    topic: String,
}

/// Creates a producer of records that no server sends. It does not retry, and it is not idempotent: such
/// a producer sends some twice when the topic is replaced. This one can send some twice when a leader
/// changes: librdkafka always sends again what the old leader refuses, although that can have appended it.
pub(super) fn producer(brokers: &str) -> Result<FutureProducer> {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("partitioner", "murmur2_random")
        .set("message.send.max.retries", "0")
        .set("message.timeout.ms", TIMEOUT.as_millis().to_string())
        .create()?;
    Ok(producer)
}

/// Returns the value of poison message `n`. `None` is a null value, which the worker
/// skips.
pub(super) fn value(n: u64) -> Option<Vec<u8>> {
    let text = match n % KINDS {
        0 => format!("poison {n} is not JSON"),
        1 => format!(r#"{{"poison":"poison {n} ","action":"NOBODY","metadata":{{}}}}"#),
        2 => format!(
            r#"{{"userId":"u","action":"A","metadata":{{"p":"poison {n} ","huge":1e999}}}}"#
        ),
        3 => return Some([b"\xff\xfe", format!("poison {n} ").as_bytes()].concat()),
        _ => return None,
    };
    Some(text.into_bytes())
}

/// Returns the number of the poison message with exactly these bytes.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(bytes);
    let (_, rest) = text.split_once("poison ")?;
    let n = rest.split(' ').next()?.parse().ok()?;
    (value(n)?.as_slice() == bytes).then_some(n)
}

impl Poisoner {
    pub(super) fn new(brokers: &str, topic: &str) -> Result<Self> {
        Ok(Self { producer: producer(brokers)?, topic: topic.to_owned() })
    }

    /// Sends one and returns whether the topic contains it.
    pub(super) async fn send(&self, n: u64) -> bool {
        let key = format!("user-{}", n % 499);
        let value = value(n);
        let record = FutureRecord { payload: value.as_deref(), ..FutureRecord::to(&self.topic) };
        self.producer.send(record.key(&key), TIMEOUT).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{KINDS, number, value};

    #[test]
    fn poison_is_recognised_by_its_bytes() {
        for n in 0..50 {
            let bytes = value(n);
            assert_eq!(bytes.is_none(), n % KINDS == KINDS - 1);
            if let Some(mut bytes) = bytes {
                assert_eq!(number(&bytes), Some(n));
                bytes.push(b'x');
                assert_eq!(number(&bytes), None, "the bytes were changed");
            }
        }
        assert_eq!(number(b"poison"), None);
    }
}
