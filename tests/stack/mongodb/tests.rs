//! A mongod that is killed, frozen, stopped and brought back, and a set that loses its primary.

use std::time::{Duration, Instant};

use ::mongodb::Client;
use ::mongodb::bson::{Document, doc};
use ::mongodb::options::ClientOptions;
use anyhow::Result;

use super::{Mongo, MongoOptions};
use crate::unique;

async fn insert(uri: &str, database: &str) -> Result<u64> {
    let mut options = ClientOptions::parse(uri).await?;
    options.server_selection_timeout = Some(Duration::from_secs(20));
    let logs = Client::with_options(options)?.database(database).collection::<Document>("logs");
    logs.insert_one(doc! { "a": 1 }).await?;
    Ok(logs.count_documents(doc! {}).await?)
}

#[tokio::test]
async fn the_shared_mongod_is_one_for_all() -> Result<()> {
    let (one, other) = tokio::try_join!(Mongo::shared(), Mongo::shared())?;
    assert_eq!(one.uri(), other.uri());
    assert_eq!(insert(one.uri(), &unique("db")).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_member_comes_back_with_its_data() -> Result<()> {
    let database = unique("db");
    let mongo = Mongo::prepare(MongoOptions::default()).await?;
    let began = Instant::now();
    mongo.up().await?;
    println!("up after {:?}", began.elapsed());
    assert_eq!(insert(mongo.uri(), &database).await?, 1);

    mongo.kill(0)?;
    assert!(mongo.primary().await.is_err(), "it was killed");
    let began = Instant::now();
    mongo.restart(0).await?;
    println!("back from SIGKILL after {:?}", began.elapsed());
    assert_eq!(insert(mongo.uri(), &database).await?, 2);

    mongo.pause(0)?;
    assert!(mongo.primary().await.is_err(), "it is frozen");
    mongo.resume(0)?;
    assert_eq!(mongo.primary().await?, 0);

    mongo.step_down(Duration::from_secs(1)).await?;
    let began = Instant::now();
    mongo.ready().await?;
    println!("primary again after {:?}", began.elapsed());

    let began = Instant::now();
    mongo.stop(0).await?;
    println!("stopped after {:?}", began.elapsed());
    mongo.up().await?;
    assert_eq!(insert(mongo.uri(), &database).await?, 3);
    Ok(())
}

#[tokio::test]
async fn a_standalone_needs_no_set() -> Result<()> {
    let mongo = Mongo::start(MongoOptions::standalone()).await?;
    assert_eq!(insert(mongo.uri(), &unique("db")).await?, 1);
    mongo.kill(0)?;
    mongo.restart(0).await
}

#[tokio::test]
async fn a_set_behind_proxies_is_reached_through_them_only() -> Result<()> {
    let database = unique("db");
    let mongo = Mongo::start(MongoOptions::default().behind_proxies()).await?;
    assert_eq!(insert(mongo.uri(), &database).await?, 1);
    let proxy = mongo.proxy(0)?;
    proxy.stall();
    let held = insert(mongo.uri(), &database);
    assert!(tokio::time::timeout(Duration::from_secs(1), held).await.is_err());
    proxy.heal();
    assert_eq!(insert(mongo.uri(), &database).await?, 2);
    mongo.kill(0)?;
    mongo.restart(0).await?;
    assert_eq!(insert(mongo.uri(), &database).await?, 3);
    Ok(())
}

#[tokio::test]
async fn three_members_survive_the_loss_of_the_primary() -> Result<()> {
    let database = unique("db");
    let began = Instant::now();
    let mongo = Mongo::start(MongoOptions::three()).await?;
    println!("three up after {:?}", began.elapsed());
    let primary = mongo.primary().await?;
    insert(mongo.uri(), &database).await?;

    let began = Instant::now();
    mongo.kill(primary)?;
    mongo.ready().await?;
    println!("another primary after {:?}", began.elapsed());
    let next = mongo.primary().await?;
    assert_ne!(next, primary);
    mongo.restart(primary).await?;
    assert_eq!(insert(mongo.uri(), &database).await?, 2);

    mongo.step_down(Duration::from_secs(30)).await?;
    mongo.ready().await?;
    assert_ne!(mongo.primary().await?, next);
    Ok(())
}
