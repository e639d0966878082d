//! Documents that others wrote: the seed's, and what is no log at all.

use ::mongodb::bson::oid::ObjectId;
use ::mongodb::bson::{Bson, DateTime};
use eyego_log_core::LogQuery;
use eyego_log_core::query::{Order, Start};
use eyego_log_server::domain::repository::LogRepository as _;

use super::*;

fn seeds(n: u8, metadata: impl Into<Bson>) -> Document {
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
async fn the_seeds_documents_read_back() {
    let store = Store::shared().await;
    let mut without = seeds(5, Bson::Null);
    without.remove("metadata");
    let date = DateTime::from_millis(0);
    let mixed = doc! { "int": 1, "long": 1_i64, "double": 1.0, "large": 1e19, "at": date };
    let documents =
        [seeds(1, mixed), seeds(2, vec![1, 2]), seeds(3, "text"), seeds(4, Bson::Null), without];
    store.logs().await.insert_many(documents).await.unwrap();
    let query = LogQuery { user_id: Some("eyego".to_owned()), ..LogQuery::default() };
    let page = store.repository().find(&query).await.unwrap();
    let metadata: Vec<_> = page.entries.iter().map(|entry| entry.metadata.as_json()).collect();
    let mixed =
        r#"{"int":1,"long":1,"double":1.0,"large":1e+19,"at":{"$date":"1970-01-01T00:00:00Z"}}"#;
    assert_eq!(metadata, ["{}", "{}", r#"{"value":"text"}"#, r#"{"value":[1,2]}"#, mixed]);
    for entry in page.entries {
        assert_eq!(store.repository().get(entry.id).await.unwrap(), Some(entry));
    }
}

#[tokio::test]
async fn what_is_no_log_costs_no_page_a_row() {
    let store = Store::shared().await;
    let ours = entries(0..20);
    store.repository().store(&ours).await.unwrap();
    let at = DateTime::from_millis(7);
    let odd = [
        doc! { "timestamp": at, "x": 1 },
        doc! { "_id": 7, "userId": "ada", "action": "A", "timestamp": at },
        doc! { "_id": "text", "userId": "ada", "action": "A", "timestamp": at },
        doc! { "userId": 7, "action": "A", "timestamp": at },
        doc! { "userId": "ada", "action": "", "timestamp": at },
        doc! { "userId": "ada", "action": "A", "timestamp": 7 },
        doc! { "userId": "ada", "action": "A" },
        doc! { "userId": ["ada"], "action": "A", "timestamp": at },
    ];
    store.logs().await.insert_many(odd).await.unwrap();

    for user_id in [None, Some("ada".to_owned())] {
        for order in [Order::Ascending, Order::Descending] {
            let mut expected = ours.clone();
            if order == Order::Descending {
                expected.reverse();
            }
            let query =
                LogQuery { user_id: user_id.clone(), limit: 3, order, ..LogQuery::default() };
            let mut by_cursor = Vec::new();
            let mut start = Start::Page(1);
            loop {
                let page = LogQuery { start, ..query.clone() };
                let page = store.repository().find(&page).await.unwrap();
                by_cursor.extend(page.entries);
                let Some(next) = page.next else { break };
                start = Start::After(next);
            }
            assert_eq!(by_cursor, expected);
            let mut by_number = Vec::new();
            for number in 1..=7 {
                let page = LogQuery { start: Start::Page(number), ..query.clone() };
                by_number.extend(store.repository().find(&page).await.unwrap().entries);
            }
            assert_eq!(by_number, expected);
        }
    }
}
