//! Documents that other programs wrote: those of the legacy service, and documents that are not logs.

use ::mongodb::bson::oid::ObjectId;
use ::mongodb::bson::{Bson, DateTime};
use eyego_log_core::LogQuery;
use eyego_log_core::query::{Order, Start};
use eyego_log_server::application::read_budget::ReadBudget;
use eyego_log_server::application::tail::{TailStart, Tails};
use eyego_log_server::domain::dead_letter::DeadLetterQuery;
use eyego_log_server::domain::repository::LogRepository as _;

use super::*;
use crate::dead_letters::dead_letter;

fn legacy(n: u8, metadata: impl Into<Bson>) -> Document {
    doc! {
        "_id": ObjectId::from_bytes([n; 12]),
        "userId": "eyego",
        "action": "ADD_TO_CART",
        "metadata": metadata,
        "timestamp": DateTime::from_millis(1_768_435_085_442 + i64::from(n)),
        "createdAt": DateTime::from_millis(1),
        "updatedAt": DateTime::from_millis(2),
        "__v": 0,
    }
}

#[tokio::test]
async fn documents_of_the_legacy_service_are_readable() {
    let store = Store::shared().await;
    let mut without_metadata = legacy(5, Bson::Null);
    without_metadata.remove("metadata");
    let date = DateTime::from_millis(0);
    let mixed = doc! { "int": 1, "long": 1_i64, "double": 1.0, "large": 1e19, "at": date };
    let documents = [
        legacy(1, mixed),
        legacy(2, vec![1, 2]),
        legacy(3, "text"),
        legacy(4, Bson::Null),
        without_metadata,
    ];
    store.logs().await.insert_many(documents).await.unwrap();
    let query = LogQuery { user_id: Some("eyego".to_owned()), ..LogQuery::default() };
    let page = store.repository().find(&query, unlimited()).await.unwrap();
    let metadata: Vec<_> = page.entries.iter().map(|entry| entry.metadata.as_json()).collect();
    let mixed =
        r#"{"int":1,"long":1,"double":1.0,"large":1e+19,"at":{"$date":"1970-01-01T00:00:00Z"}}"#;
    assert_eq!(metadata, ["{}", "{}", r#"{"value":"text"}"#, r#"{"value":[1,2]}"#, mixed]);
    for entry in page.entries {
        assert_eq!(store.repository().get(entry.id).await.unwrap(), Some(entry));
    }
}

#[tokio::test]
async fn documents_that_are_not_logs_do_not_shorten_pages() {
    let store = Store::shared().await;
    let valid = entries(0..20);
    store.repository().store(&valid).await.unwrap();
    let at = DateTime::from_millis(7);
    let invalid = [
        doc! { "timestamp": at, "x": 1 },
        doc! { "_id": 7, "userId": "ada", "action": "A", "timestamp": at },
        doc! { "_id": "text", "userId": "ada", "action": "A", "timestamp": at },
        doc! { "userId": 7, "action": "A", "timestamp": at },
        doc! { "userId": "ada", "action": "", "timestamp": at },
        doc! { "userId": "ada", "action": "A", "timestamp": 7 },
        doc! { "userId": "ada", "action": "A" },
        doc! { "userId": ["ada"], "action": "A", "timestamp": at },
    ];
    store.logs().await.insert_many(invalid).await.unwrap();

    for user_id in [None, Some("ada".to_owned())] {
        for order in [Order::Ascending, Order::Descending] {
            let mut expected = valid.clone();
            if order == Order::Descending {
                expected.reverse();
            }
            let query =
                LogQuery { user_id: user_id.clone(), limit: 3, order, ..LogQuery::default() };
            let mut by_cursor = Vec::new();
            let mut start = Start::Page(1);
            loop {
                let page = LogQuery { start, ..query.clone() };
                let page = store.repository().find(&page, unlimited()).await.unwrap();
                by_cursor.extend(page.entries);
                let Some(next) = page.next else { break };
                start = Start::After(next);
            }
            assert_eq!(by_cursor, expected);
            let mut by_number = Vec::new();
            for number in 1..=7 {
                let page = LogQuery { start: Start::Page(number), ..query.clone() };
                by_number
                    .extend(store.repository().find(&page, unlimited()).await.unwrap().entries);
            }
            assert_eq!(by_number, expected);
        }
    }
}

/// Reads all pages, and returns their events.
async fn all_pages(store: &Store, query: &LogQuery) -> Vec<LogEntry> {
    let (mut found, mut query) = (Vec::new(), query.clone());
    loop {
        let page = store.repository().find(&query, unlimited()).await.unwrap();
        found.extend(page.entries);
        let Some(next) = page.next else { return found };
        query.start = Start::After(next);
    }
}

#[tokio::test]
async fn documents_with_a_date_that_no_event_can_have_hide_no_events() {
    let store = Store::shared().await;
    let valid = entries(0..5);
    store.repository().store(&valid).await.unwrap();
    let micros = 1_700_000_000_000_000_i64;
    let foreign = (0..300).map(|n| {
        let at = DateTime::from_millis(if n % 2 == 0 { micros + n } else { -micros - n });
        doc! { "userId": "ada", "action": "LOGIN", "timestamp": at, "metadata": { "page": "home" } }
    });
    store.logs().await.insert_many(foreign).await.unwrap();
    for order in [Order::Ascending, Order::Descending] {
        let mut expected = valid.clone();
        if order == Order::Descending {
            expected.reverse();
        }
        let query = LogQuery { order, limit: 10, ..LogQuery::default() };
        let page = store.repository().find(&query, unlimited()).await.unwrap();
        assert_eq!((page.entries, page.next), (expected.clone(), None));
        let query = LogQuery { order, limit: 2, ..LogQuery::default() };
        assert_eq!(all_pages(&store, &query).await, expected);
        let filters = [("userId", "ada"), ("metadata.page", "home"), ("limit", "2")];
        let query = LogQuery { order, ..LogQuery::from_pairs(filters).unwrap() };
        assert_eq!(all_pages(&store, &query).await, expected);
    }
}

#[tokio::test]
async fn a_page_of_skipped_documents_continues() {
    let store = Store::shared().await;
    let mut expected = entries(0..3);
    store.repository().store(&expected).await.unwrap();
    expected.reverse();
    // As JSON, they are too large to be returned.
    for n in 10..13 {
        let too_large = doc! {
            "userId": "ada",
            "action": "LOGIN",
            "timestamp": DateTime::from_millis(n),
            "metadata": { "text": "\u{1}".repeat(3 << 20) },
        };
        store.logs().await.insert_one(too_large).await.unwrap();
    }
    let query = LogQuery { limit: 1, ..LogQuery::default() };
    let first = store.repository().find(&query, unlimited()).await.unwrap();
    assert!(first.entries.is_empty() && first.next.is_some(), "{first:?}");
    assert_eq!(all_pages(&store, &query).await, expected);

    // The stored events at the start of a tail take the same pages.
    let budget = ReadBudget::new(64 << 20);
    let tails = Tails::new(store.tail().await, Arc::new(store.repository()), budget);
    let mut tail = tails.start(LogQuery::default(), TailStart::Last(2)).await.unwrap();
    expected.truncate(2);
    expected.reverse();
    assert_eq!(tail.next().await.unwrap().backlog, expected);
}

#[tokio::test]
async fn foreign_documents_do_not_hide_dead_letters() {
    let store = Store::shared().await;
    let dead_letters = store.dead_letters();
    let mut expected = Vec::new();
    for n in (0..3).rev() {
        let dead_letter = dead_letter(n, "invalid_json", b"x");
        dead_letters.put(&dead_letter).await.unwrap();
        expected.push(dead_letter.summary);
    }
    let collection = store.raw_database().await.collection("dead-letters");
    for n in 10..15 {
        // Its code and everything else is missing.
        let foreign = doc! { "failedAt": DateTime::from_millis(1_768_435_085_000 + n) };
        collection.insert_one(foreign).await.unwrap();
    }
    let (mut query, mut found) =
        (DeadLetterQuery { limit: 1, ..DeadLetterQuery::default() }, vec![]);
    loop {
        let page = dead_letters.list(&query, unlimited()).await.unwrap();
        found.extend(page.entries);
        let Some(next) = page.next else { break };
        query.after = Some(next);
    }
    assert_eq!(found, expected);
}
