//! A mongod that is killed, frozen, stopped and restarted, and a set that loses its primary.

use std::time::{Duration, Instant};

use ::mongodb::Client;
use ::mongodb::bson::{Document, doc};
use ::mongodb::options::ClientOptions;

use super::{Mongo, MongoOptions};
use crate::unique;

/// Inserts a document and returns the number of documents.
async fn insert(uri: &str, database: &str) -> u64 {
    let mut options = ClientOptions::parse(uri).await.unwrap();
    options.server_selection_timeout = Some(Duration::from_secs(20));
    let database = Client::with_options(options).unwrap().database(database);
    let logs = database.collection::<Document>("logs");
    logs.insert_one(doc! { "a": 1 }).await.unwrap();
    logs.count_documents(doc! {}).await.unwrap()
}

#[tokio::test]
async fn shared_mongod_is_started_once() {
    let (one, other) = tokio::try_join!(Mongo::shared(), Mongo::shared()).unwrap();
    assert_eq!(one.uri(), other.uri());
    assert_eq!(insert(one.uri(), &unique("db")).await, 1);
}

#[tokio::test]
async fn member_keeps_its_data_over_kill_pause_and_stop() {
    let database = unique("db");
    let mongo = Mongo::prepare(MongoOptions::default()).await.unwrap();
    let began = Instant::now();
    mongo.up().await.unwrap();
    println!("up after {:?}", began.elapsed());
    assert_eq!(insert(mongo.uri(), &database).await, 1);

    mongo.kill(0).unwrap();
    assert!(mongo.primary().await.is_err(), "it was killed");
    let began = Instant::now();
    mongo.restart(0).await.unwrap();
    println!("restarted after SIGKILL in {:?}", began.elapsed());
    assert_eq!(insert(mongo.uri(), &database).await, 2);

    mongo.pause(0).unwrap();
    assert!(mongo.primary().await.is_err(), "it is frozen");
    mongo.resume(0).unwrap();
    assert_eq!(mongo.primary().await.unwrap(), 0);

    mongo.step_down(Duration::from_secs(1)).await.unwrap();
    let began = Instant::now();
    mongo.ready().await.unwrap();
    println!("primary again after {:?}", began.elapsed());

    let began = Instant::now();
    mongo.stop(0).await.unwrap();
    println!("stopped after {:?}", began.elapsed());
    mongo.up().await.unwrap();
    assert_eq!(insert(mongo.uri(), &database).await, 3);
}

#[tokio::test]
async fn standalone_needs_no_replica_set() {
    let mongo = Mongo::start(MongoOptions::standalone()).await.unwrap();
    assert_eq!(insert(mongo.uri(), &unique("db")).await, 1);
    mongo.kill(0).unwrap();
    mongo.restart(0).await.unwrap();
}

#[tokio::test]
async fn clients_connect_only_through_the_proxies() {
    let database = unique("db");
    let mongo = Mongo::start(MongoOptions::default().behind_proxies()).await.unwrap();
    assert_eq!(insert(mongo.uri(), &database).await, 1);
    let proxy = mongo.proxy(0).unwrap();
    proxy.stall();
    let held = insert(mongo.uri(), &database);
    assert!(tokio::time::timeout(Duration::from_secs(1), held).await.is_err());
    proxy.heal();
    assert_eq!(insert(mongo.uri(), &database).await, 2);
    mongo.kill(0).unwrap();
    mongo.restart(0).await.unwrap();
    assert_eq!(insert(mongo.uri(), &database).await, 3);
}

#[tokio::test]
async fn three_members_survive_the_loss_of_the_primary() {
    let database = unique("db");
    let began = Instant::now();
    let mongo = Mongo::start(MongoOptions::three()).await.unwrap();
    println!("three up after {:?}", began.elapsed());
    let primary = mongo.primary().await.unwrap();
    insert(mongo.uri(), &database).await;

    let began = Instant::now();
    mongo.kill(primary).unwrap();
    mongo.ready().await.unwrap();
    println!("new primary after {:?}", began.elapsed());
    let next = mongo.primary().await.unwrap();
    assert_ne!(next, primary);
    mongo.restart(primary).await.unwrap();
    assert_eq!(insert(mongo.uri(), &database).await, 2);

    mongo.step_down(Duration::from_secs(30)).await.unwrap();
    mongo.ready().await.unwrap();
    assert_ne!(mongo.primary().await.unwrap(), next);
}
