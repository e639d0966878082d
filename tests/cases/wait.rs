//! `?wait=stored`: a caller that wants to read what it wrote.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stack::server::Server;

use crate::conformance::PATIENCE;
use crate::fixture::{Names, get, send};

const ID: &str = "69682d8d81847b87ab93264b";

async fn wait(server: &Server, timeout: &str, event: &Value) -> (u16, Value) {
    send(server, &format!("/api/v1/logs?wait=stored{timeout}"), event).await
}

/// What holds on every queue and store.
async fn a_waited_log_can_be_read(server: &Server) {
    server.wait_ready(PATIENCE).await.unwrap();
    // The consumers' group may still be forming.
    let first = json!({"userId": "first", "action": "A"});
    assert_eq!(wait(server, "&timeout=30s", &first).await.0, 200);
    for n in 0..20 {
        let event = json!({"userId": "ada", "action": "A", "metadata": {"n": n, "x": 1.0}});
        let (status, answer) = wait(server, "", &event).await;
        assert_eq!((status, &answer["message"]), (200, &json!("Log stored")), "{answer}");
        assert_eq!(answer["status"], "success");
        let (status, log) =
            get(server, &format!("/api/v1/logs/{}", answer["id"].as_str().unwrap())).await;
        assert_eq!((status, &log["data"]["metadata"]["n"]), (200, &json!(n)));
    }
    let event = json!({"id": ID, "userId": "ada", "action": "A", "metadata": {"a": [1, 2]}});
    for _ in 0..2 {
        assert_eq!(wait(server, "", &event).await.0, 200, "a retry is the same log");
    }
    let other = json!({"id": ID, "userId": "ada", "action": "B", "metadata": {"a": [1, 2]}});
    let (status, answer) = wait(server, "", &other).await;
    assert_eq!((status, &answer["status"], &answer["id"]), (409, &json!("fail"), &json!(ID)));
    let (_, log) = get(server, &format!("/api/v1/logs/{ID}")).await;
    assert_eq!(log["data"]["action"], "A", "the first one stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waited_log_can_be_read_embedded() {
    a_waited_log_can_be_read(&Server::builder().start().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waited_log_can_be_read_on_kafka_and_mongodb() {
    let names = Names::new().await;
    a_waited_log_can_be_read(&names.server("all", "g").start().await.unwrap()).await;

    // Nobody stores: it stays queued.
    let alone = Names::new().await.server("api", "g").start().await.unwrap();
    alone.wait_ready(PATIENCE).await.unwrap();
    let began = Instant::now();
    let event = json!({"userId": "ada", "action": "A"});
    let (status, answer) = wait(&alone, "&timeout=700ms", &event).await;
    assert_eq!((status, &answer["message"]), (202, &json!("Log queued successfully")));
    let took = began.elapsed();
    assert!((Duration::from_millis(700)..Duration::from_secs(3)).contains(&took), "{took:?}");

    // Nor does a stop wait for it.
    let began = Instant::now();
    let stopped = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        alone.terminate().await.unwrap()
    };
    let ((status, _), exit) = tokio::join!(wait(&alone, "&timeout=30s", &event), stopped);
    assert!(status == 202 && exit.success(), "{status}, {exit}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_wait_that_makes_no_sense_is_a_fault() {
    let server = Server::builder().start().await.unwrap();
    server.wait_ready(PATIENCE).await.unwrap();
    let event = json!({"userId": "never", "action": "A"});
    for (query, path, fault) in [
        ("wait=stored&timeout=0", "timeout", "1ms to 30s"),
        ("wait=stored&timeout=0s", "timeout", "1ms to 30s"),
        ("wait=stored&timeout=1h", "timeout", "1ms to 30s"),
        ("wait=stored&timeout=5", "timeout", "1ms to 30s"),
        ("wait=stored&timeout=", "timeout", "1ms to 30s"),
        ("timeout=5s", "timeout", "wait=stored"),
        ("wait=queued", "wait", "stored"),
        ("wait=stored&wait=stored", "wait", "repeated"),
        ("wiat=stored", "wiat", "not a known parameter"),
    ] {
        let (status, body) = send(&server, &format!("/api/v1/logs?{query}"), &event).await;
        assert_eq!((status, &body["errors"][0]["path"]), (400, &json!(path)), "{query}: {body}");
        assert!(body["message"].as_str().unwrap().contains(fault), "{query}: {body}");
    }
    let batch = json!([event]);
    let (status, body) = send(&server, "/api/v1/logs/batch?wait=stored", &batch).await;
    assert_eq!((status, &body["errors"][0]["path"]), (400, &json!("wait")), "{body}");
    let (_, page) = get(&server, "/api/v1/logs?userId=never").await;
    assert_eq!(page["results"], 0);
}
