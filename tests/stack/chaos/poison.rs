//! Records that no store can hold, put straight into the topic.

use std::time::Duration;

use anyhow::Result;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};

/// How long Kafka may take to take one.
const PATIENCE: Duration = Duration::from_secs(30);
const KINDS: u64 = 5;

/// Puts poison into a topic.
pub(super) struct Poisoner {
    producer: FutureProducer,
    topic: String,
}

/// The value of the record of this number; none: a record with a null value, which is skipped.
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

/// Which poison these bytes are, if they are one, whole and unchanged.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(bytes);
    let (_, rest) = text.split_once("poison ")?;
    let n = rest.split(' ').next()?.parse().ok()?;
    (value(n)?.as_slice() == bytes).then_some(n)
}

impl Poisoner {
    pub(super) fn new(brokers: &str, topic: &str) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("partitioner", "murmur2_random")
            // A record that is sent once is there once.
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", PATIENCE.as_millis().to_string())
            .create()?;
        Ok(Self { producer, topic: topic.to_owned() })
    }

    /// Answers whether the topic has it.
    pub(super) async fn put(&self, n: u64) -> bool {
        let key = format!("user-{}", n % 499);
        let value = value(n);
        let record = FutureRecord { payload: value.as_deref(), ..FutureRecord::to(&self.topic) };
        self.producer.send(record.key(&key), PATIENCE).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{KINDS, number, value};

    #[test]
    fn poison_is_told_by_its_bytes() {
        for n in 0..50 {
            let bytes = value(n);
            assert_eq!(bytes.is_none(), n % KINDS == KINDS - 1);
            if let Some(mut bytes) = bytes {
                assert_eq!(number(&bytes), Some(n));
                bytes.push(b'x');
                assert_eq!(number(&bytes), None, "it is not what was sent");
            }
        }
        assert_eq!(number(b"poison"), None);
    }
}
