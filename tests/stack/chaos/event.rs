//! What is sent: each event and each request follows from the seed and a number, so that nobody has
//! to remember a million of them.

use eyego_log_core::{LogId, Timestamp};
use serde_json::{Value, json};

use super::random::mix;

/// Events in a unit: what a caller takes at a time.
pub(super) const UNIT: u64 = 50;
/// 2026-01-01, from where the times count that callers give.
const EPOCH_MILLIS: i64 = 1_767_225_600_000;
/// Events that are not ours, such as probes, say so by their action.
const ACTION: &str = "CHAOS";

/// How a caller goes about a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    /// One request for all, or one for each.
    pub(super) is_batch: bool,
    /// The ids come from the server, by an `Idempotency-Key`; otherwise from the caller.
    pub(super) is_keyed: bool,
    pub(super) insistence: Insistence,
}

/// How often a caller sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Insistence {
    /// Once, whatever comes of it: what is not acknowledged may or may not be stored.
    Once,
    /// Until it is acknowledged.
    UntilAcknowledged,
    /// Once more after that, as a caller does that has lost the answer.
    OnceMore,
}

/// How the unit of this number is sent.
pub(super) fn manner(seed: u64, unit: u64) -> Manner {
    let random = mix(seed, unit);
    Manner {
        is_batch: !random.is_multiple_of(5),
        is_keyed: (random >> 8).is_multiple_of(2),
        insistence: match (random >> 16) % 20 {
            0 => Insistence::Once,
            1 | 2 => Insistence::OnceMore,
            _ => Insistence::UntilAcknowledged,
        },
    }
}

/// The id that the caller gives to its event of this number.
pub(super) fn own_id(seed: u64, n: u64) -> LogId {
    let mut bytes = [0x69; 12];
    bytes[1..4].copy_from_slice(&seed.to_be_bytes()[5..]);
    bytes[4..].copy_from_slice(&n.to_be_bytes());
    LogId::from_bytes(bytes)
}

/// The event of this number as it is sent, without an id.
pub(super) fn event(n: u64) -> Value {
    let metadata = json!({
        "n": n,
        "text": format!("ünï \"{n}\" \\ 🦀\n"),
        "ratio": f64::from(u32::try_from(n % 1_000_000).unwrap_or_default()) + 0.1,
        "large": i64::MAX - n.cast_signed(),
        "is.even": n.is_multiple_of(2),
        "none": null,
        "$nested": {"list": [n, "x", [], {}, -1, 1.5e-7], "referrer": "https://example.com/a/b"},
    });
    let mut event =
        json!({"userId": format!("user-{}", n % 499), "action": ACTION, "metadata": metadata});
    if let Some(timestamp) = timestamp(n) {
        event["timestamp"] = json!(timestamp);
    }
    event
}

/// The time that its caller gives, for every third event.
fn timestamp(n: u64) -> Option<String> {
    let millis = EPOCH_MILLIS + n.cast_signed();
    let given = n.is_multiple_of(3).then(|| Timestamp::from_millis(millis));
    given.flatten().map(|timestamp| timestamp.to_string())
}

/// Which event a stored log is, if it is one of ours.
pub(super) fn number(log: &Value) -> Option<u64> {
    (log["action"] == ACTION).then(|| log["metadata"]["n"].as_u64()).flatten()
}

/// What is wrong with a stored log that should be the event of this number.
pub(super) fn difference(n: u64, log: &Value) -> Option<String> {
    let sent = event(n);
    let mut fields = vec!["userId", "action", "metadata"];
    if sent.get("timestamp").is_some() {
        fields.push("timestamp");
    } else if !log["timestamp"].is_string() {
        return Some("it has no time".to_owned());
    }
    let field = fields.into_iter().find(|field| log[field] != sent[field])?;
    Some(format!("its {field} is {}, sent was {}", log[field], sent[field]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_by_its_number_and_differs_from_its_neighbour() {
        for n in 0..100 {
            let mut log = event(n);
            log["timestamp"] = log.get("timestamp").cloned().unwrap_or(json!("2026"));
            assert_eq!(number(&log), Some(n));
            assert_eq!(difference(n, &log), None);
            assert!(difference(n + 1, &log).is_some());
            log["metadata"]["ratio"] = json!(1);
            assert!(difference(n, &log).unwrap_or_default().contains("metadata"));
        }
        assert_eq!(number(&json!({"action": "A", "metadata": {"n": 1}})), None);
    }

    #[test]
    fn units_are_sent_in_each_manner() {
        let manners: Vec<_> = (0..1_000).map(|unit| manner(7, unit)).collect();
        for is_batch in [true, false] {
            for is_keyed in [true, false] {
                for insistence in
                    [Insistence::Once, Insistence::UntilAcknowledged, Insistence::OnceMore]
                {
                    assert!(manners.contains(&Manner { is_batch, is_keyed, insistence }));
                }
            }
        }
    }

    #[test]
    fn ids_differ_by_seed_and_number() {
        assert_ne!(own_id(1, 1), own_id(1, 2));
        assert_ne!(own_id(1, 1), own_id(2, 1));
    }
}
