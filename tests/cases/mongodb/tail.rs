//! Tokens of tails name their collection, and tails of a collection that is dropped.

use eyego_log_core::{LogId, LogQuery};
use eyego_log_server::domain::read::ReadError;
use eyego_log_server::domain::repository::LogRepository as _;
use eyego_log_server::domain::tail::{Tail, TailError};
use tokio::time::timeout;

use super::*;
use crate::conformance::id;

async fn follow(tail: &Arc<dyn LogTail>, after: Option<&str>) -> Result<Box<dyn Tail>, TailError> {
    tail.follow(&LogQuery::default(), after).await
}

/// Waits for the next event, and returns its id and its token.
async fn next_event(tail: &mut Box<dyn Tail>) -> (LogId, String) {
    loop {
        let batch = timeout(TIMEOUT, tail.next()).await.unwrap().unwrap();
        assert!(batch.events.len() <= 1);
        if let Some(event) = batch.events.first() {
            return (event.entry.id, event.token.clone());
        }
    }
}

/// Waits until the tail ends, and returns the error.
async fn end_of(tail: &mut Box<dyn Tail>) -> TailError {
    let end = async {
        loop {
            if let Err(error) = tail.next().await {
                return error;
            }
        }
    };
    timeout(TIMEOUT, end).await.unwrap()
}

/// Returns the tag of the collection as its tokens should have it.
async fn expected_tag(store: &Store) -> String {
    let command = doc! { "listCollections": 1, "filter": { "name": "logs" } };
    let listed = store.raw_database().await.run_command(command).await.unwrap();
    let collections = listed.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
    let info = collections[0].as_document().unwrap().get_document("info").unwrap();
    let ::mongodb::bson::Bson::Binary(uuid) = info.get("uuid").unwrap() else { panic!("{info}") };
    uuid.bytes[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tag_of(token: &str) -> &str {
    token.split('-').nth(1).unwrap()
}

#[tokio::test]
async fn token_is_refused_by_another_database() {
    let (store, other) = (Store::shared().await, Store::shared().await);
    for store in [&store, &other] {
        store.repository().store(&entries(0..1)).await.unwrap();
    }
    let (tail, other_tail) = (store.tail().await, other.tail().await);
    let mut live = follow(&tail, None).await.unwrap();
    store.repository().store(&entries(1..2)).await.unwrap();
    let (_, token) = next_event(&mut live).await;
    for token in [token, live.token()] {
        assert_eq!(tag_of(&token), expected_tag(&store).await);
        assert_ne!(tag_of(&token), "00000000");
        assert!(follow(&tail, Some(&token)).await.is_ok());
        let error = follow(&other_tail, Some(&token)).await.err();
        assert!(matches!(error, Some(TailError::InvalidToken)), "{error:?}");
        let position = token.rsplit('-').next().unwrap();
        let untagged = format!("m-00000000-{position}");
        let error = follow(&tail, Some(&untagged)).await.err();
        assert!(matches!(error, Some(TailError::InvalidToken)), "{error:?}");
    }
}

#[tokio::test]
async fn tail_can_start_before_the_collection_exists() {
    let uri = Mongo::shared().await.unwrap().uri().to_owned();
    let (store, other) = (Store::with(&uri, false), Store::with(&uri, false));
    let (tail, other_tail) = (store.tail().await, other.tail().await);
    let mut live = follow(&tail, None).await.unwrap();
    let start = live.token();
    let error = follow(&other_tail, Some(&start)).await.err();
    assert!(matches!(error, Some(TailError::InvalidToken)), "{error:?}");
    store.repository().store(&entries(0..1)).await.unwrap();
    let (first, token) = next_event(&mut live).await;
    assert_eq!(first, id(0));
    assert_eq!(tag_of(&token), expected_tag(&store).await);
    let mut resumed = follow(&tail, Some(&start)).await.unwrap();
    assert_eq!(next_event(&mut resumed).await.0, id(0));
}

#[tokio::test]
async fn drop_of_the_collection_ends_open_tails_and_new_ones_follow_its_successor() {
    let store = Store::with(Mongo::shared().await.unwrap().uri(), false);
    let (repository, tail) = (store.repository(), store.tail().await);
    let mut live = follow(&tail, None).await.unwrap();
    let provisional = live.token();
    repository.store(&entries(0..1)).await.unwrap();
    let (_, token) = next_event(&mut live).await;

    store.logs().await.drop().await.unwrap();
    let error = end_of(&mut live).await;
    assert!(
        matches!(&error, TailError::Read(ReadError::Unavailable(reason))
            if reason.contains("dropped or renamed")),
        "{error:?}"
    );

    // No collection exists now.
    let mut fresh = follow(&tail, None).await.unwrap();
    repository.store(&entries(1..2)).await.unwrap();
    let (stored, new_token) = next_event(&mut fresh).await;
    assert_eq!(stored, id(1));
    assert_eq!(tag_of(&new_token), expected_tag(&store).await);
    assert_ne!(tag_of(&new_token), tag_of(&token));
    let mut another = follow(&tail, None).await.unwrap();
    repository.store(&entries(2..3)).await.unwrap();
    for tail in [&mut fresh, &mut another] {
        assert_eq!(next_event(tail).await.0, id(2));
    }
    let mut resumed = follow(&tail, Some(&new_token)).await.unwrap();
    assert_eq!(next_event(&mut resumed).await.0, id(2));

    let error = follow(&tail, Some(&token)).await.err();
    assert!(matches!(error, Some(TailError::InvalidToken)), "{error:?}");
    // The tag of these does not tell that the collection was dropped.
    let position = token.rsplit('-').next().unwrap();
    for old in [provisional, format!("m-{}-{position}", tag_of(&new_token))] {
        let error = follow(&tail, Some(&old)).await.err();
        assert!(matches!(error, Some(TailError::TokenTooOld)), "{old}: {error:?}");
    }
}
