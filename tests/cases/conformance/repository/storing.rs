//! Storing: exactly once, durably, each log independently of the others.

use std::sync::Arc;

use eyego_log_core::{Action, LogEntry, LogQuery, Metadata, UserId};
use eyego_log_server::domain::repository::StoreOutcome;

use super::{Fixture, find, store};
use crate::conformance::{at, entry, id, unlimited};

const SAME: StoreOutcome = StoreOutcome::Duplicate { conflicting: false };
const CONFLICT: StoreOutcome = StoreOutcome::Duplicate { conflicting: true };

pub(super) async fn stored_logs_survive_a_restart(mut fixture: Fixture) {
    let entries: Vec<_> = (0..10).map(|n| entry(n, "ada", "LOGIN", i64::from(n), "{}")).collect();
    store(&fixture.repository(), &entries).await;
    fixture.restart().await;
    let repository = fixture.repository();
    for entry in &entries {
        assert_eq!(repository.get(entry.id).await.unwrap().as_ref(), Some(entry));
    }
    assert_eq!(repository.store(&entries).await.unwrap(), vec![SAME; 10]);
    assert!(repository.health().state.is_up());
}

pub(super) async fn id_is_stored_once(fixture: Fixture) {
    let repository = fixture.repository();
    assert!(repository.store(&[]).await.unwrap().is_empty());
    let [a, b, c] = [1, 2, 3].map(|n| entry(n, "ada", "LOGIN", 1_000, r#"{"a": 1}"#));
    let outcomes = repository.store(&[a.clone(), b.clone(), a.clone()]).await.unwrap();
    assert_eq!(outcomes, [StoreOutcome::Stored, StoreOutcome::Stored, SAME]);
    let outcomes = repository.store(&[b.clone(), c.clone(), b.clone()]).await.unwrap();
    assert_eq!(outcomes, [SAME, StoreOutcome::Stored, SAME]);
    assert_eq!(find(&repository, &LogQuery::default()).await, [c, b, a]);
}

pub(super) async fn concurrent_calls_store_an_id_once(fixture: Fixture) {
    let repository = fixture.repository();
    let calls: Vec<_> = (0..8_u32)
        .map(|call| {
            let repository = Arc::clone(&repository);
            tokio::spawn(async move {
                // Each call in a different order.
                let entries: Vec<_> = (0..50)
                    .map(|n| (n * 7 + call * 13) % 50)
                    .map(|n| entry(n, "ada", "LOGIN", i64::from(n), "{}"))
                    .collect();
                repository.store(&entries).await.unwrap()
            })
        })
        .collect();
    let mut stored = 0;
    for call in calls {
        for outcome in call.await.unwrap() {
            match outcome {
                StoreOutcome::Stored => stored += 1,
                outcome => assert_eq!(outcome, SAME),
            }
        }
    }
    assert_eq!(stored, 50);
    let query = LogQuery { limit: 100, ..LogQuery::default() };
    assert_eq!(find(&repository, &query).await.len(), 50);
}

pub(super) async fn equal_log_is_a_duplicate_and_different_one_a_conflict(fixture: Fixture) {
    let repository = fixture.repository();
    let first = entry(1, "ada", "LOGIN", 1_000, r#"{"a": 1, "b": [true, null]}"#);
    store(&repository, std::slice::from_ref(&first)).await;

    let metadata = |json: &str| Metadata::from_json(json.to_owned()).unwrap();
    let changed = |change: &dyn Fn(&mut LogEntry)| {
        let mut entry = first.clone();
        change(&mut entry);
        entry
    };
    let offered = [
        (first.clone(), SAME),
        (
            changed(&|entry| {
                entry.metadata = metadata(r#"{ "b":[true,null] , "a":1}"#);
                entry.received_at = Some(at(99_000));
            }),
            SAME,
        ),
        // The server sets the time of receipt, which differs between retries.
        (
            changed(&|entry| {
                entry.timestamp = at(99_000);
                entry.received_at = Some(at(99_000));
            }),
            SAME,
        ),
        (changed(&|entry| entry.timestamp = at(99_000)), CONFLICT),
        (changed(&|entry| entry.user_id = UserId::new("bob").unwrap()), CONFLICT),
        (changed(&|entry| entry.action = Action::new("LOGOUT").unwrap()), CONFLICT),
        (changed(&|entry| entry.metadata = metadata(r#"{"a": 1.0, "b": [true, null]}"#)), CONFLICT),
        (changed(&|entry| entry.metadata = metadata(r#"{"a": 1}"#)), CONFLICT),
    ];
    for (entry, expected) in &offered {
        let outcomes = repository.store(std::slice::from_ref(entry)).await.unwrap();
        assert_eq!(outcomes, std::slice::from_ref(expected), "{entry:?}");
    }
    let (entries, expected): (Vec<_>, Vec<_>) = offered.into_iter().unzip();
    assert_eq!(repository.store(&entries).await.unwrap(), expected, "in one call");
    let stored = repository.get(id(1)).await.unwrap();
    assert_eq!(stored, Some(first), "the first one is kept");

    let same_call = [entry(2, "ada", "LOGIN", 0, "{}"), entry(2, "bob", "LOGIN", 0, "{}")];
    let outcomes = repository.store(&same_call).await.unwrap();
    assert_eq!(outcomes, [StoreOutcome::Stored, CONFLICT]);
}

pub(super) async fn rejected_log_does_not_affect_its_neighbours(fixture: Fixture) {
    let repository = fixture.repository();
    let unstorable = fixture.unstorable(5);
    let entries: Vec<_> = (0..10)
        .map(|n| match n {
            5 => unstorable.clone(),
            n => entry(n, "ada", "LOGIN", i64::from(n), "{}"),
        })
        .collect();
    for expected in [StoreOutcome::Stored, SAME] {
        let outcomes = repository.store(&entries).await.unwrap();
        for (n, outcome) in outcomes.iter().enumerate() {
            if n == 5 {
                assert!(matches!(outcome, StoreOutcome::Rejected(_)), "{outcome:?}");
            } else {
                assert_eq!(outcome, &expected);
            }
        }
    }
    assert_eq!(repository.get(unstorable.id).await.unwrap(), None);
    let query = LogQuery { limit: 100, ..LogQuery::default() };
    assert_eq!(find(&repository, &query).await.len(), 9);
}

pub(super) async fn large_call_is_stored(fixture: Fixture) {
    let repository = fixture.repository();
    let text = "x".repeat(2_000);
    let metadata = format!(r#"{{"text": "{text}"}}"#);
    let entries: Vec<_> =
        (0..2_500).map(|n| entry(n, "ada", "LOGIN", i64::from(n), &metadata)).collect();
    store(&repository, &entries).await;
    let largest =
        entry(9_999, "ada", "LOGIN", 0, &format!(r#"{{"a": "{}"}}"#, "y".repeat(1 << 20)));
    store(&repository, std::slice::from_ref(&largest)).await;
    assert_eq!(repository.get(largest.id).await.unwrap(), Some(largest));
    let query = LogQuery { limit: 1_000, ..LogQuery::default() };
    let page = repository.find(&query, unlimited()).await.unwrap();
    assert_eq!(page.entries.len(), 1_000);
    assert_eq!(page.entries.first(), entries.last());
}
