//! Metadata filters beyond the conformance suite: long paths, and an index that an operator created.

use eyego_log_core::LogQuery;
use eyego_log_core::query::MetadataFilter;
use eyego_log_server::domain::repository::LogRepository as _;

use super::*;

async fn find(store: &Store, path: &str, value: &str) -> usize {
    let metadata = vec![MetadataFilter::new(path, value).unwrap()];
    let query = LogQuery { metadata, limit: 100, ..LogQuery::default() };
    store.repository().find(&query, unlimited()).await.unwrap().entries.len()
}

#[tokio::test]
async fn longest_path_matches_every_split_into_keys() {
    let store = Store::shared().await;
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut entries = Vec::new();
    // One bit per dot of the path: it separates two levels, or is part of a key.
    for splits in 0..128_u32 {
        let mut path = String::from(keys[0]);
        for (bit, key) in keys[1..].iter().enumerate() {
            path.push(if splits >> bit & 1 == 1 { '\n' } else { '.' });
            path.push_str(key);
        }
        let mut json = "[0, 7]".to_owned();
        for key in path.rsplit('\n') {
            json = format!("{{\"{key}\": {json}}}");
        }
        entries.push(entry(splits, "ada", "LOGIN", 1, &json));
    }
    store.repository().store(&entries).await.unwrap();
    let page = |limit| LogQuery {
        metadata: vec![MetadataFilter::new("a.b.c.d.e.f.g.h", "7").unwrap(); 3],
        limit,
        ..LogQuery::default()
    };
    assert_eq!(store.repository().find(&page(1000), unlimited()).await.unwrap().entries.len(), 128);
    assert_eq!(find(&store, "a.b.c.d.e.f.g", "7").await, 0);
}

#[tokio::test]
async fn operators_index_is_used_for_a_single_key() {
    let store = Store::shared().await;
    let entries: Vec<_> = (0..500)
        .map(|n| entry(n, "ada", "LOGIN", i64::from(n), &format!(r#"{{"order": {n}}}"#)))
        .collect();
    store.repository().store(&entries).await.unwrap();
    let database = store.raw_database().await;
    let index = doc! { "key": { "metadata.order": 1 }, "name": "order" };
    database.run_command(doc! { "createIndexes": "logs", "indexes": [index] }).await.unwrap();
    database.run_command(doc! { "profile": 2 }).await.unwrap();
    assert_eq!(find(&store, "order", "77").await, 1);
    database.run_command(doc! { "profile": 0 }).await.unwrap();
    let profile = database.collection::<Document>("system.profile");
    let filter = doc! { "op": "query", "command.find": "logs" };
    let plan = profile.find_one(filter).await.unwrap().unwrap();
    let plan = plan.get_str("planSummary").unwrap();
    assert!(plan.contains("metadata.order"), "{plan}");
}

#[tokio::test]
async fn values_that_look_like_operators_are_text() {
    let store = Store::shared().await;
    let metadata = r#"{"k": "$userId", "$k": {"$gt": ""}, "r": "^.*$"}"#;
    store.repository().store(&[entry(1, "ada", "LOGIN", 1, metadata)]).await.unwrap();
    assert_eq!(find(&store, "k", "$userId").await, 1);
    assert_eq!(find(&store, "k", "ada").await, 0);
    assert_eq!(find(&store, "k", r#"{"$gt": ""}"#).await, 0);
    assert_eq!(find(&store, "$k.$gt", "").await, 1);
    assert_eq!(find(&store, "r", ".*").await, 0);
    assert_eq!(find(&store, "r", "^.*$").await, 1);
}
