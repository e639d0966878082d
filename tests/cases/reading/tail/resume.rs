//! Tails that are resumed while servers and databases are killed. The oracle is the store itself: each
//! stored event is on the tail exactly once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bson::doc;
use serde_json::{Value, json};
use stack::mongodb::{Mongo, MongoOptions};
use stack::server::Server;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::TAIL;
use super::messages::Messages;
use crate::fixture::{Deployment, JSON, TIMEOUT, get, post_bytes, post_log, ready, stored, url};
use crate::reading::exported;
use stack::kafka::Kafka;

/// Posts events until it is told to stop. Each is sent again, under its id, until it is accepted.
struct Caller {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Caller {
    fn start(base_url: String) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let task = tokio::spawn(async move {
            let client = reqwest::Client::new();
            while !stopped.load(Ordering::Relaxed) {
                let n = count.load(Ordering::Relaxed);
                let event = json!({"userId": format!("u{}", n % 7), "action": "A",
                                   "metadata": {"n": n}});
                let request = client
                    .post(format!("{base_url}/api/v1/logs"))
                    .timeout(Duration::from_secs(10))
                    .header("content-type", JSON)
                    .header("idempotency-key", format!("tail-{n}"))
                    .body(event.to_string());
                if request.send().await.is_ok_and(|response| response.status() == 202) {
                    count.fetch_add(1, Ordering::Relaxed);
                } else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        Self { stop, sent, task }
    }

    async fn wait_for(&self, more: usize) {
        let goal = self.sent.load(Ordering::Relaxed) + more;
        let what = format!("{more} more events to be accepted");
        stack::eventually(&what, 6 * TIMEOUT, async || {
            let sent = self.sent.load(Ordering::Relaxed);
            anyhow::ensure!(sent >= goal, "{sent}");
            Ok(())
        })
        .await
        .unwrap();
    }

    /// Stops, and returns the number of accepted events.
    async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

/// Follows the server, and resumes after each disconnection, until it has received `END`.
async fn follow(server: &Server) -> JoinHandle<Vec<Value>> {
    let address = url(server, TAIL);
    let mut token = Messages::open(server, "").await.position().await;
    tokio::spawn(async move {
        let mut events = Vec::new();
        loop {
            let request = reqwest::Client::new().get(&address).header("last-event-id", &token);
            let response = match request.send().await {
                Ok(response) if response.status() == 200 => response,
                refused => {
                    let status = refused.map_or(503, |response| response.status().as_u16());
                    assert_eq!(status, 503);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let mut tail = Messages::of(response);
            while let Some(message) = tail.try_next().await {
                assert_eq!(message.event, "log", "{message:?}");
                let event = message.json();
                if event["action"] == "END" {
                    return events;
                }
                events.push(event);
            }
            if !tail.last_id().is_empty() {
                tail.last_id().clone_into(&mut token);
            }
        }
    })
}

/// Ends the tail and compares what it received with what is stored.
async fn compare(server: &Server, caller: Caller, tail: JoinHandle<Vec<Value>>) {
    let accepted = caller.stop().await;
    let mut stored_events = HashMap::new();
    // All are stored once this one is: later events may be stored first, so wait for each.
    for n in [0, accepted.saturating_sub(1)] {
        let query = format!("/api/v1/logs?metadata.n={n}");
        stack::eventually("the last events to be stored", 3 * TIMEOUT, async || {
            let (_, page) = get(server, &query).await;
            anyhow::ensure!(page["results"] == 1, "{page}");
            Ok(())
        })
        .await
        .unwrap();
    }
    stack::eventually("all accepted events to be stored", 3 * TIMEOUT, async || {
        let count = exported(server, "").await.len();
        anyhow::ensure!(count >= accepted, "{count} of {accepted}");
        Ok(())
    })
    .await
    .unwrap();
    let (status, body) = post_log(server, &json!({"userId": "end", "action": "END"})).await;
    assert_eq!(status, 202, "{body}");
    stored(server, body["id"].as_str().unwrap()).await;
    let received = timeout(3 * TIMEOUT, tail).await.expect("the tail does not end").unwrap();
    for event in exported(server, "").await {
        if event["action"] != "END" {
            stored_events.insert(event["id"].as_str().unwrap().to_owned(), event);
        }
    }
    let mut times: HashMap<&str, usize> = HashMap::new();
    for event in &received {
        *times.entry(event["id"].as_str().unwrap()).or_default() += 1;
    }
    let missing: Vec<_> =
        stored_events.keys().filter(|id| !times.contains_key(id.as_str())).collect();
    let repeated: Vec<_> = times.iter().filter(|(_, count)| **count > 1).collect();
    assert!(missing.is_empty(), "{} missing: {:?}", missing.len(), missing.first());
    assert!(repeated.is_empty(), "{} repeated: {:?}", repeated.len(), repeated.first());
    assert!(received.iter().all(|event| stored_events[event["id"].as_str().unwrap()] == *event));
}

/// Follows the server while events are sent and `faults` happen, and then compares the tail with
/// what is stored.
async fn check_tail_through(server: &Server, faults: impl AsyncFnOnce(&Caller)) {
    let tail = follow(server).await;
    let caller = Caller::start(server.base_url());
    faults(&caller).await;
    caller.wait_for(100).await;
    compare(server, caller, tail).await;
}

async fn kill_and_restart(server: &Server) {
    server.kill().unwrap();
    server.restart().await.unwrap();
    server.wait_ready(2 * TIMEOUT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_stored_event_is_on_the_tail_once_through_kills_of_an_embedded_server() {
    let server = ready(Server::builder()).await;
    check_tail_through(&server, async |caller| {
        for _ in 0..4 {
            caller.wait_for(300).await;
            kill_and_restart(&server).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_stored_event_is_on_the_tail_once_through_kills_of_server_and_primary() {
    let mongo = Mongo::start(MongoOptions::three()).await.unwrap();
    let kafka = Kafka::shared().await.unwrap();
    let deployment = Deployment::on(kafka.bootstrap(), mongo.uri());
    let server = ready(deployment.server("all")).await;
    check_tail_through(&server, async |caller| {
        for round in 0..4 {
            caller.wait_for(200).await;
            if round % 2 == 0 {
                let primary = mongo.primary().await.unwrap();
                mongo.kill(primary).unwrap();
                mongo.ready().await.unwrap();
                caller.wait_for(100).await;
                mongo.restart(primary).await.unwrap();
            } else {
                kill_and_restart(&server).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_continues_through_a_restart_of_the_only_mongod() {
    let mongo = Mongo::start(MongoOptions::default()).await.unwrap();
    let kafka = Kafka::shared().await.unwrap();
    let server = ready(Deployment::on(kafka.bootstrap(), mongo.uri()).server("all")).await;
    check_tail_through(&server, async |caller| {
        for _ in 0..2 {
            caller.wait_for(100).await;
            mongo.kill(0).unwrap();
            caller.wait_for(50).await;
            mongo.restart(0).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standalone_mongod_cannot_be_followed_and_the_response_says_why() {
    let mongo = Mongo::start(MongoOptions::standalone()).await.unwrap();
    let kafka = Kafka::shared().await.unwrap();
    let server = ready(Deployment::on(kafka.bootstrap(), mongo.uri()).server("all")).await;
    let (status, body) = get(&server, TAIL).await;
    assert_eq!((status, &body["status"]), (501, &json!("error")), "{body}");
    assert!(body["message"].as_str().unwrap().contains("replica set"), "{body}");
    let (status, body) = post_bytes(
        &server,
        "/api/v1/logs",
        &[("content-type", JSON)],
        r#"{"userId":"u","action":"A"}"#,
    )
    .await;
    assert_eq!(status, 202, "{body}");
    stored(&server, body["id"].as_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_from_before_the_oplog_is_gone() {
    let args = ["--oplogSize", "1"].map(str::to_owned).to_vec();
    let mongo = Mongo::start(MongoOptions { args, ..MongoOptions::default() }).await.unwrap();
    let kafka = Kafka::shared().await.unwrap();
    let deployment = Deployment::on(kafka.bootstrap(), mongo.uri());
    let server = ready(deployment.server("all")).await;
    let token = Messages::open(&server, "").await.position().await;
    // MongoDB shortens the oplog some time after it has become too large.
    let others = deployment.collection("others").await;
    let large = doc! { "text": "x".repeat(1 << 20) };
    let resumed = url(&server, &format!("{TAIL}?after={token}"));
    let body = stack::eventually("the token to be too old", 6 * TIMEOUT, async || {
        others.insert_many(vec![large.clone(); 8]).await?;
        let response = reqwest::get(&resumed).await?;
        anyhow::ensure!(response.status() == 410, "{}", response.status());
        Ok(response.text().await?)
    });
    let body: Value = serde_json::from_str(&body.await.unwrap()).unwrap();
    assert_eq!(body["status"], "fail");
    assert!(body["message"].as_str().unwrap().contains("start again without the token"), "{body}");
    Messages::open(&server, "").await.position().await;
}
