//! Removal: documents of other programs, and the lease.

use ::mongodb::bson::DateTime;
use ::mongodb::bson::oid::ObjectId;
use eyego_log_core::{LogIdGenerator, UserId};
use eyego_log_server::domain::erasure::Erasures as _;
use eyego_log_server::domain::removal::{LogRemoval as _, Window};
use eyego_log_server::domain::retention::Retention;

use super::*;
use crate::conformance::at;

#[tokio::test]
async fn documents_of_the_legacy_service_are_erased_by_their_earliest_time() {
    let store = Store::shared().await;
    let cut_off = 1_768_435_085_442;
    let id = |seconds: i64, n: u8| {
        let mut bytes = [n; 12];
        bytes[..4].copy_from_slice(&u32::try_from(seconds).unwrap().to_be_bytes());
        ObjectId::from_bytes(bytes)
    };
    let document = |n: u8, id_at: i64, timestamp: i64, created_at: i64| {
        doc! {
            "_id": id(id_at / 1000, n),
            "userId": "ada",
            "action": "A",
            "timestamp": DateTime::from_millis(timestamp),
            "createdAt": DateTime::from_millis(created_at),
            "__v": 0,
        }
    };
    let (before, after) = (cut_off - 5_000, cut_off + 5_000);
    let mut current = document(5, before, before, before);
    current.insert("receivedAt", DateTime::from_millis(after));
    let documents = [
        document(1, after, before, after),
        document(2, after, after, before),
        document(3, before, after, after),
        document(4, after, after, after),
        current,
    ];
    let logs = store.logs().await;
    logs.insert_many(&documents).await.unwrap();
    let user = UserId::from_stored("ada").unwrap();
    let deleted = store.repository().delete_of_user(&user, at(cut_off), 100).await.unwrap();
    assert_eq!(deleted, 3);
    for kept in &documents[3..] {
        let filter = doc! { "_id": kept.get("_id").unwrap() };
        assert!(logs.find_one(filter).await.unwrap().is_some(), "{kept}");
    }
}

#[tokio::test]
async fn retention_leaves_documents_that_are_not_events() {
    let store = Store::shared().await;
    let old = DateTime::from_millis(5);
    let foreign = [
        doc! { "timestamp": old, "x": 1 },
        doc! { "_id": 7, "userId": "ada", "action": "A", "timestamp": old },
        doc! { "userId": "ada", "action": "", "timestamp": old },
        doc! { "userId": "ada", "action": "A", "timestamp": "long ago" },
        doc! { "userId": "ada", "action": "A" },
    ];
    store.logs().await.insert_many(&foreign).await.unwrap();
    let event = doc! { "userId": "ada", "action": "A", "timestamp": old };
    store.logs().await.insert_one(event).await.unwrap();
    let retention = Retention::new(Some(Duration::from_secs(1)), []);
    let window = Window { action: None, after: None, before: at(1_000) };
    let repository = store.repository();
    let examined = repository.delete_expired(&retention, at(9_000), &window, 100).await.unwrap();
    assert_eq!((examined.deleted, examined.next), (1, None));
    assert_eq!(count(&store).await, foreign.len() as u64);
    assert_eq!(repository.oldest().await.unwrap(), Some(at(5)), "of any document");
}

#[tokio::test]
async fn lease_has_one_holder_until_it_expires() {
    let store = Store::shared().await;
    let erasures = store.erasures();
    let ids = LogIdGenerator::new();
    let [first, second] = [0, 1].map(|millis| ids.generate(at(millis)));
    eventually("the lease to be created", TIMEOUT, async || {
        ensure!(erasures.acquire_lease(first).await?, "not acquired");
        Ok(())
    })
    .await
    .unwrap();
    assert!(!erasures.acquire_lease(second).await.unwrap());
    assert!(erasures.acquire_lease(first).await.unwrap(), "renewed");

    let leases = store.raw_database().await.collection::<Document>("leases");
    let expired = doc! { "$set": { "expiresAt": DateTime::from_millis(0) } };
    leases.update_one(doc! {}, expired).await.unwrap();
    assert!(erasures.acquire_lease(second).await.unwrap());
    assert!(!erasures.acquire_lease(first).await.unwrap());
    assert_eq!(leases.count_documents(doc! {}).await.unwrap(), 1);
}
