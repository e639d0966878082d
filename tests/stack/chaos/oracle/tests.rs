//! Each violation is planted into a store that is otherwise correct, and must be detected.

use serde_json::{Value, json};

use super::*;

const SEED: u64 = 7;
const EVENTS: u64 = 1_000;

/// Returns the number of an event whose unit is sent in this mode.
fn sent(is_keyed: bool, retries: Retries) -> u64 {
    let matches = |n: &u64| {
        let mode = send_mode(SEED, n / event::UNIT);
        mode.is_keyed == is_keyed && mode.retries == retries
    };
    let n = (0..EVENTS).find(matches).unwrap_or(EVENTS);
    assert!(n < EVENTS, "no unit of the test is sent in this mode");
    n
}

fn id(n: u64) -> String {
    let is_keyed = send_mode(SEED, n / event::UNIT).is_keyed;
    if is_keyed { format!("key-{n}") } else { own_id(SEED, n).to_string() }
}

struct Store {
    ack_log: AckLog,
    logs: Vec<Value>,
    dead_letters: Vec<(Value, Vec<u8>)>,
}

fn stored(n: u64) -> Value {
    let mut log = event::event(n);
    log["id"] = json!(id(n));
    log["timestamp"] = log.get("timestamp").cloned().unwrap_or(json!("2026-01-01T00:00:00.000Z"));
    log
}

fn reason() -> Value {
    json!({"id": "1", "code": "not_a_record", "message": "not a record"})
}

/// Returns a store in which every event is acknowledged and stored.
fn complete() -> Store {
    let ack_log = AckLog::new(SEED, EVENTS, 10);
    let mut dead_letters = Vec::new();
    for n in 0..EVENTS {
        ack_log.acknowledge(n, &id(n));
    }
    for n in 0..10 {
        ack_log.poison_sent(n);
        dead_letters.extend(poison::value(n).map(|raw| (reason(), raw)));
    }
    let mut logs: Vec<_> = (0..EVENTS).map(stored).collect();
    logs.push(json!({"id": "probe", "action": "PROBE", "metadata": {}}));
    Store { ack_log, logs, dead_letters }
}

impl Store {
    fn check(&self) -> (Found, String) {
        let mut oracle = Oracle::new(&self.ack_log, ["probe".to_owned()]);
        self.logs.iter().for_each(|log| oracle.log(log));
        self.dead_letters.iter().for_each(|(reason, raw)| oracle.dead_letter(reason, raw));
        let (found, violations) = oracle.finish();
        assert_eq!(violations.is_empty(), violations.to_string().is_empty());
        (found, violations.to_string())
    }

    fn must_detect(&self, violation: &str) {
        let (_, violations) = self.check();
        assert_eq!(violations.lines().count(), 1, "{violations}");
        assert!(violations.contains(violation), "{violations}");
    }
}

#[test]
fn complete_store_has_no_violations() {
    let (found, violations) = complete().check();
    assert_eq!(violations, "");
    assert_eq!(found, Found { logs: EVENTS + 1, dead_letters: 8, ..Found::default() });
}

#[test]
fn lost_event_is_detected() {
    let mut store = complete();
    store.logs.remove(500);
    assert_eq!(store.check().0.lost, 1);
    store.must_detect("event 500 was acknowledged and is not stored");
}

#[test]
fn duplicate_event_is_detected_whether_acknowledged_or_not() {
    let mut store = complete();
    let n = sent(true, Retries::Never);
    store.logs.push(stored(n));
    store.must_detect("stored twice");
    // Under another id, like a retry that was not recognised.
    let mut other = complete();
    let n = sent(true, Retries::UntilAcknowledged);
    let mut log = stored(n);
    log["id"] = json!("another");
    other.logs.push(log);
    let (_, violations) = other.check();
    assert!(violations.contains("stored twice"), "{violations}");
    assert!(violations.contains("under another id"), "{violations}");
}

#[test]
fn changed_event_is_detected() {
    for (field, value) in [
        ("userId", json!("user-x")),
        ("timestamp", json!("2026-01-01T00:00:00.001Z")),
        ("metadata", json!({"n": 300})),
        ("id", json!("another")),
    ] {
        let mut store = complete();
        store.logs[300][field] = value;
        store.must_detect("event 300");
    }
    let mut store = complete();
    // An integer that became a double, and an empty list that was removed.
    store.logs[4]["metadata"]["$nested"]["list"] = json!([4.0, "x", {}, -1, 1.5e-7]);
    store.must_detect("event 4 is not what was sent");
}

#[test]
fn log_that_was_not_sent_is_detected() {
    for log in [
        json!({"id": "1", "action": "CHAOS", "metadata": {"n": EVENTS}}),
        json!({"id": "2", "action": "A"}),
        json!({"id": "probe", "action": "PROBE", "metadata": {}}),
    ] {
        let mut store = complete();
        store.logs.push(log);
        store.must_detect("a log was not sent");
    }
    let mut store = complete();
    store.dead_letters.push((reason(), b"x".to_vec()));
    store.must_detect("a dead letter was not sent");
}

#[test]
fn dead_letters_are_checked() {
    let mut store = complete();
    store.dead_letters.pop();
    store.must_detect("poison 8 has no dead letter");
    let mut store = complete();
    store.dead_letters.push((reason(), poison::value(3).unwrap_or_default()));
    store.must_detect("poison 3 has two dead letters");
    // Its producer sent it twice.
    store.dead_letters.last_mut().unwrap().0["offset"] = json!(7);
    assert_eq!(store.check().1, "");
    let mut store = complete();
    store.dead_letters[0].0 = json!({"code": "x", "message": ""});
    store.must_detect("has no reason");
    let mut store = complete();
    store.dead_letters[0].1.push(b' ');
    let (_, violations) = store.check();
    assert!(violations.contains("was not sent") && violations.contains("poison 0"), "{violations}");

    // An event may be a dead letter, unless it is stored as well.
    let mut store = complete();
    let raw = event::event(500).to_string().into_bytes();
    store.dead_letters.push((reason(), raw));
    store.must_detect("event 500 is stored twice");
    store.logs.remove(500);
    assert_eq!(store.check().1, "");
    assert_eq!(store.check().0.dead_events, 1);
}

#[test]
fn missing_probe_is_detected() {
    let mut store = complete();
    store.logs.pop();
    store.must_detect("log probe is not stored");
}

#[test]
fn unacknowledged_event_may_be_stored_once_if_its_caller_gave_up() {
    let ack_log = AckLog::new(SEED, EVENTS, 0);
    let given_up = sent(true, Retries::Never);
    for n in (0..EVENTS).filter(|n| *n != given_up) {
        ack_log.acknowledge(n, &id(n));
    }
    let mut store = Store { ack_log, logs: complete().logs, dead_letters: Vec::new() };
    assert_eq!((store.check().0.unacknowledged, store.check().1.as_str()), (1, ""));
    store.logs.push(stored(given_up));
    store.must_detect("stored twice");
    store.logs.retain(|log| number(log) != Some(given_up));
    assert_eq!(store.check().1, "");

    let retried = sent(false, Retries::UntilAcknowledged);
    let ack_log = AckLog::new(SEED, EVENTS, 0);
    for n in (0..EVENTS).filter(|n| *n != retried) {
        ack_log.acknowledge(n, &id(n));
    }
    let store = Store { ack_log, logs: complete().logs, dead_letters: Vec::new() };
    store.must_detect("was never acknowledged");
}

#[test]
fn second_id_is_a_violation() {
    let ack_log = AckLog::new(SEED, EVENTS, 0);
    ack_log.acknowledge(1, "a");
    ack_log.acknowledge(1, "a");
    assert!(ack_log.violations().is_empty());
    ack_log.acknowledge(1, "b");
    assert!(ack_log.violations().to_string().contains("two ids"));
}
