//! What is sent. Each event and each request follows from the random seed and a number, so that none
//! of them has to be stored.

use eyego_log_core::{LogId, Timestamp};
use serde_json::{Value, json};

use super::random::mix;

/// The number of consecutive events that a caller takes at a time.
pub(super) const UNIT: u64 = 50;
/// 2026-01-01, the start of the timestamps that callers set.
const EPOCH_MILLIS: i64 = 1_767_225_600_000;
/// Distinguishes the events of the callers from others, such as probes.
const ACTION: &str = "CHAOS";

/// How a caller sends a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SendMode {
    /// Whether the unit is one request, or one request per event.
    pub(super) is_batch: bool,
    /// Whether the server derives the ids from an `Idempotency-Key`. Otherwise the caller sets them.
    pub(super) is_keyed: bool,
    pub(super) retries: Retries,
}

/// How often a caller sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retries {
    /// Once. An event that is not acknowledged may or may not be stored.
    Never,
    /// Until it is acknowledged.
    UntilAcknowledged,
    /// Until it is acknowledged and then once again, like a caller that lost the response.
    OnceAgain,
}

/// Returns how the unit of this number is sent.
pub(super) fn send_mode(seed: u64, unit: u64) -> SendMode {
    let random = mix(seed, unit);
    SendMode {
        is_batch: !random.is_multiple_of(5),
        is_keyed: (random >> 8).is_multiple_of(2),
        retries: match (random >> 16) % 20 {
            0 => Retries::Never,
            1 | 2 => Retries::OnceAgain,
            _ => Retries::UntilAcknowledged,
        },
    }
}

/// Returns the id that the caller sets for event `n`.
pub(super) fn own_id(seed: u64, n: u64) -> LogId {
    let mut bytes = [0x69; 12];
    bytes[1..4].copy_from_slice(&seed.to_be_bytes()[5..]);
    bytes[4..].copy_from_slice(&n.to_be_bytes());
    LogId::from_bytes(bytes)
}

/// Returns event `n` as it is sent, without an id.
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

/// Returns the timestamp that the caller sets, for every third event.
fn timestamp(n: u64) -> Option<String> {
    let millis = EPOCH_MILLIS + n.cast_signed();
    let given = n.is_multiple_of(3).then(|| Timestamp::from_millis(millis));
    given.flatten().map(|timestamp| timestamp.to_string())
}

/// Returns the event number of a stored log, or `None` if the callers did not send it.
pub(super) fn number(log: &Value) -> Option<u64> {
    (log["action"] == ACTION).then(|| log["metadata"]["n"].as_u64()).flatten()
}

/// Returns how a stored log differs from event `n`.
pub(super) fn difference(n: u64, log: &Value) -> Option<String> {
    let sent = event(n);
    let mut fields = vec!["userId", "action", "metadata"];
    if sent.get("timestamp").is_some() {
        fields.push("timestamp");
    } else if !log["timestamp"].is_string() {
        return Some("it has no timestamp".to_owned());
    }
    let field = fields.into_iter().find(|field| log[field] != sent[field])?;
    Some(format!("its {field} is {}, but {} was sent", log[field], sent[field]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_matches_the_event_of_its_number_only() {
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
    fn each_send_mode_is_used() {
        let modes: Vec<_> = (0..1_000).map(|unit| send_mode(7, unit)).collect();
        for is_batch in [true, false] {
            for is_keyed in [true, false] {
                for retries in [Retries::Never, Retries::UntilAcknowledged, Retries::OnceAgain] {
                    assert!(modes.contains(&SendMode { is_batch, is_keyed, retries }));
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
