//! Each thing that can go wrong is done to a store in which all is well, and must be seen.

use serde_json::{Value, json};

use super::*;

const SEED: u64 = 7;
const EVENTS: u64 = 1_000;

/// A number whose unit is sent in this manner.
fn sent(is_keyed: bool, insistence: Insistence) -> u64 {
    let is_it = |n: &u64| {
        let manner = manner(SEED, n / event::UNIT);
        manner.is_keyed == is_keyed && manner.insistence == insistence
    };
    let n = (0..EVENTS).find(is_it).unwrap_or(EVENTS);
    assert!(n < EVENTS, "no unit of the test is sent in this manner");
    n
}

fn id(n: u64) -> String {
    let is_keyed = manner(SEED, n / event::UNIT).is_keyed;
    if is_keyed { format!("key-{n}") } else { own_id(SEED, n).to_string() }
}

struct Store {
    ledger: Ledger,
    logs: Vec<Value>,
    letters: Vec<(Value, Vec<u8>)>,
}

fn stored(n: u64) -> Value {
    let mut log = event::event(n);
    log["id"] = json!(id(n));
    log["timestamp"] = log.get("timestamp").cloned().unwrap_or(json!("2026-01-01T00:00:00.000Z"));
    log
}

fn reason() -> Value {
    json!({"id": "1", "code": "not_a_record", "message": "it is none"})
}

/// All that was sent is acknowledged and there.
fn whole() -> Store {
    let ledger = Ledger::new(SEED, EVENTS, 10);
    let mut letters = Vec::new();
    for n in 0..EVENTS {
        ledger.acknowledge(n, &id(n));
    }
    for n in 0..10 {
        ledger.poisoned(n);
        letters.extend(poison::value(n).map(|raw| (reason(), raw)));
    }
    let mut logs: Vec<_> = (0..EVENTS).map(stored).collect();
    logs.push(json!({"id": "probe", "action": "PROBE", "metadata": {}}));
    Store { ledger, logs, letters }
}

impl Store {
    fn judge(&self) -> (Found, String) {
        let mut judge = Judge::new(&self.ledger, ["probe".to_owned()]);
        self.logs.iter().for_each(|log| judge.log(log));
        self.letters.iter().for_each(|(letter, raw)| judge.letter(letter, raw));
        let (found, complaints) = judge.verdict();
        assert_eq!(complaints.is_empty(), complaints.to_string().is_empty());
        (found, complaints.to_string())
    }

    fn must_be_seen(&self, complaint: &str) {
        let (_, complaints) = self.judge();
        assert_eq!(complaints.lines().count(), 1, "{complaints}");
        assert!(complaints.contains(complaint), "{complaints}");
    }
}

#[test]
fn a_whole_store_is_clean() {
    let (found, complaints) = whole().judge();
    assert_eq!(complaints, "");
    assert_eq!(found, Found { logs: EVENTS + 1, letters: 8, ..Found::default() });
}

#[test]
fn a_lost_event_is_seen() {
    let mut store = whole();
    store.logs.remove(500);
    assert_eq!(store.judge().0.lost, 1);
    store.must_be_seen("event 500 was acknowledged and is nowhere");
}

#[test]
fn a_doubled_event_is_seen_acknowledged_or_not() {
    let mut store = whole();
    let n = sent(true, Insistence::Once);
    store.logs.push(stored(n));
    store.must_be_seen("there twice");
    // Under another id, as a retry that was not recognised.
    let mut other = whole();
    let n = sent(true, Insistence::UntilAcknowledged);
    let mut log = stored(n);
    log["id"] = json!("another");
    other.logs.push(log);
    let (_, complaints) = other.judge();
    assert!(complaints.contains("there twice"), "{complaints}");
    assert!(complaints.contains("under another id"), "{complaints}");
}

#[test]
fn a_changed_event_is_seen() {
    for (field, value) in [
        ("userId", json!("user-x")),
        ("timestamp", json!("2026-01-01T00:00:00.001Z")),
        ("metadata", json!({"n": 300})),
        ("id", json!("another")),
    ] {
        let mut store = whole();
        store.logs[300][field] = value;
        store.must_be_seen("event 300");
    }
    let mut store = whole();
    // An integer that became a double, an empty list that went.
    store.logs[4]["metadata"]["$nested"]["list"] = json!([4.0, "x", {}, -1, 1.5e-7]);
    store.must_be_seen("event 4 is not what was sent");
}

#[test]
fn what_nobody_sent_is_seen() {
    for log in [
        json!({"id": "1", "action": "CHAOS", "metadata": {"n": EVENTS}}),
        json!({"id": "2", "action": "A"}),
        json!({"id": "probe", "action": "PROBE", "metadata": {}}),
    ] {
        let mut store = whole();
        store.logs.push(log);
        store.must_be_seen("nobody sent this log");
    }
    let mut store = whole();
    store.letters.push((reason(), b"x".to_vec()));
    store.must_be_seen("a dead letter of what nobody sent");
}

#[test]
fn dead_letters_are_checked() {
    let mut store = whole();
    store.letters.pop();
    store.must_be_seen("poison 8 has no dead letter");
    let mut store = whole();
    store.letters.push((reason(), poison::value(3).unwrap_or_default()));
    store.must_be_seen("two dead letters for poison 3");
    let mut store = whole();
    store.letters[0].0 = json!({"code": "x", "message": ""});
    store.must_be_seen("without a reason");
    let mut store = whole();
    store.letters[0].1.push(b' ');
    let (_, complaints) = store.judge();
    assert!(complaints.contains("nobody sent") && complaints.contains("poison 0"), "{complaints}");

    // An event of ours may end as one, if it is not in the store as well.
    let mut store = whole();
    let raw = event::event(500).to_string().into_bytes();
    store.letters.push((reason(), raw));
    store.must_be_seen("event 500 is there twice");
    store.logs.remove(500);
    assert_eq!(store.judge().1, "");
    assert_eq!(store.judge().0.events_in_letters, 1);
}

#[test]
fn a_missing_probe_is_seen() {
    let mut store = whole();
    store.logs.pop();
    store.must_be_seen("the probe probe is not in the store");
}

#[test]
fn what_was_not_acknowledged_may_be_there_once_if_its_caller_gave_up() {
    let ledger = Ledger::new(SEED, EVENTS, 0);
    let given_up = sent(true, Insistence::Once);
    for n in (0..EVENTS).filter(|n| *n != given_up) {
        ledger.acknowledge(n, &id(n));
    }
    let mut store = Store { ledger, logs: whole().logs, letters: Vec::new() };
    assert_eq!((store.judge().0.unacknowledged, store.judge().1.as_str()), (1, ""));
    store.logs.push(stored(given_up));
    store.must_be_seen("there twice");
    store.logs.retain(|log| number(log) != Some(given_up));
    assert_eq!(store.judge().1, "");

    let insisted = sent(false, Insistence::UntilAcknowledged);
    let ledger = Ledger::new(SEED, EVENTS, 0);
    for n in (0..EVENTS).filter(|n| *n != insisted) {
        ledger.acknowledge(n, &id(n));
    }
    let store = Store { ledger, logs: whole().logs, letters: Vec::new() };
    store.must_be_seen("was never acknowledged");
}

#[test]
fn a_second_id_is_complained_of() {
    let ledger = Ledger::new(SEED, EVENTS, 0);
    ledger.acknowledge(1, "a");
    ledger.acknowledge(1, "a");
    assert!(ledger.complaints().is_empty());
    ledger.acknowledge(1, "b");
    assert!(ledger.complaints().to_string().contains("two ids"));
}
