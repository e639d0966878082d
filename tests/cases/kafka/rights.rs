//! Rights that Kafka denies: readiness names the topic or the group and the right, nothing is lost, and the server
//! works again once the right is granted.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use stack::eventually;
use stack::kafka::Kafka;
use stack::server::Server;

use super::acl::{Resource, Right, deny, grant_all, with_authorizer};
use super::readiness::down;
use crate::conformance::id;
use crate::fixture::{Deployment, TIMEOUT, get, logs, post_log, ready};

/// Kafka first has to learn of the change.
const NOTICED: Duration = Duration::from_secs(30);

fn event(n: u32) -> Value {
    json!({"id": id(n), "userId": format!("u{n}"), "action": "A"})
}

/// Posts an event until it is accepted.
async fn post(server: &Server, n: u32) {
    eventually("an event to be accepted", NOTICED * 2, async || {
        let (status, body) = post_log(server, &event(n)).await;
        ensure!(status == 202, "{body}\n{}", server.log());
        Ok(())
    })
    .await
    .unwrap();
}

/// Waits until the reason of Kafka's state contains each of `words`, whether it is down or not.
async fn reported(server: &Server, words: &[&str]) {
    eventually("the missing right to be reported", NOTICED, async || {
        let (_, health) = get(server, "/health/ready").await;
        let reason = health["parts"]["kafka"]["reason"].as_str().unwrap_or_default();
        ensure!(words.iter().all(|word| reason.contains(word)), "{health}\n{}", server.log());
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_rights_are_named_and_nothing_is_lost() {
    let kafka = Kafka::start(with_authorizer()).await.unwrap();
    let deployment = Deployment::on_shared_mongodb(kafka.bootstrap()).await;
    let (broker, name) = (kafka.bootstrap(), deployment.topic.as_str());
    let topic = Resource::Topic(name);

    // The server cannot create the topic, so it accepts nothing.
    deny(broker, topic, Right::Create);
    deny(broker, Resource::Cluster, Right::Create);
    let server = deployment.server("all").start().await.unwrap();
    down(&server, NOTICED, &["denies the right to create the topic", name]).await;
    let (status, body) = post_log(&server, &event(0)).await;
    assert_eq!((status, &body["id"]), (503, &json!(id(0))), "{body}");
    grant_all(broker, topic);
    grant_all(broker, Resource::Cluster);
    server.wait_ready(NOTICED).await.unwrap();
    post(&server, 0).await;
    logs(&server, "", 1).await;

    // Without the right to write, events are refused. They may be repeated.
    deny(broker, topic, Right::Write);
    eventually("events to be refused", NOTICED, async || {
        let (status, body) = post_log(&server, &event(1)).await;
        ensure!(status == 503, "{body}");
        Ok(())
    })
    .await
    .unwrap();
    down(&server, NOTICED, &["denies the right to write to the topic", name]).await;
    grant_all(broker, topic);
    post(&server, 1).await;
    post(&server, 2).await;
    server.wait_ready(NOTICED).await.unwrap();
    logs(&server, "", 3).await;

    // Without the right to read, events are accepted, and stored later.
    deny(broker, topic, Right::Read);
    post(&server, 3).await;
    reported(&server, &["denies the right to read the topic", name]).await;
    // The checks of the brokers, which succeed meanwhile, do not hide it.
    tokio::time::sleep(Duration::from_secs(15)).await;
    reported(&server, &["denies the right to read the topic", name]).await;
    grant_all(broker, topic);
    post(&server, 4).await;
    logs(&server, "", 5).await;
    server.wait_ready(NOTICED).await.unwrap();

    // Without the right to describe it, nothing works.
    deny(broker, topic, Right::Describe);
    down(&server, NOTICED, &["denies the right to describe the topic", name]).await;
    grant_all(broker, topic);
    server.wait_ready(NOTICED).await.unwrap();
    post(&server, 5).await;
    logs(&server, "", 6).await;
    assert!(server.terminate().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_consumer_group_is_named_and_used_once_it_is_granted() {
    let kafka = Kafka::start(with_authorizer()).await.unwrap();
    let deployment = Deployment::on_shared_mongodb(kafka.bootstrap()).await;
    let (broker, name) = (kafka.bootstrap(), deployment.group("g"));
    let api = ready(deployment.server("api")).await;
    let group = Resource::Group(&name);
    deny(broker, group, Right::Read);
    let worker = deployment.server("worker").start().await.unwrap();
    post(&api, 0).await;
    down(&worker, NOTICED, &["denies the right to read the consumer group", &name]).await;
    grant_all(broker, group);
    worker.wait_ready(TIMEOUT * 3).await.unwrap();
    logs(&api, "", 1).await;
}
