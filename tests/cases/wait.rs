//! `?wait=stored`, for callers that read what they have just written.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stack::server::Server;

use crate::fixture::{Deployment, embedded_server, get, post, ready};
use crate::metrics::{Scrape, scrape_until};

const ID: &str = "69682d8d81847b87ab93264b";

async fn wait(server: &Server, timeout: &str, event: &Value) -> (u16, Value) {
    post(server, &format!("/api/v1/logs?wait=stored{timeout}"), event).await
}

async fn awaited_log_can_be_read(server: &Server) {
    // The consumer group may still be forming.
    let first = json!({"userId": "first", "action": "A"});
    assert_eq!(wait(server, "&timeout=30s", &first).await.0, 200);
    for n in 0..20 {
        let event = json!({"userId": "ada", "action": "A", "metadata": {"n": n, "x": 1.0}});
        let (status, body) = wait(server, "", &event).await;
        assert_eq!((status, &body["message"]), (200, &json!("Log stored")), "{body}");
        assert_eq!(body["status"], "success");
        let (status, log) =
            get(server, &format!("/api/v1/logs/{}", body["id"].as_str().unwrap())).await;
        assert_eq!((status, &log["data"]["metadata"]["n"]), (200, &json!(n)));
    }
    let event = json!({"id": ID, "userId": "ada", "action": "A", "metadata": {"a": [1, 2]}});
    for _ in 0..2 {
        assert_eq!(wait(server, "", &event).await.0, 200, "a retry is the same log");
    }
    let other = json!({"id": ID, "userId": "ada", "action": "B", "metadata": {"a": [1, 2]}});
    let (status, body) = wait(server, "", &other).await;
    assert_eq!((status, &body["status"], &body["id"]), (409, &json!("fail"), &json!(ID)));
    let (_, log) = get(server, &format!("/api/v1/logs/{ID}")).await;
    assert_eq!(log["data"]["action"], "A", "the first log is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn awaited_log_can_be_read_embedded() {
    awaited_log_can_be_read(&embedded_server().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn awaited_log_can_be_read_on_kafka_and_mongodb() {
    awaited_log_can_be_read(&ready(Deployment::shared().await.server("all")).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_ends_at_its_timeout_and_at_a_stop() {
    // Without a worker the event stays queued.
    let api = ready(Deployment::shared().await.server("api")).await;
    let began = Instant::now();
    let event = json!({"userId": "ada", "action": "A"});
    let (status, body) = wait(&api, "&timeout=700ms", &event).await;
    assert_eq!((status, &body["message"]), (202, &json!("Log queued successfully")));
    let took = began.elapsed();
    assert!((Duration::from_millis(700)..Duration::from_secs(3)).contains(&took), "{took:?}");

    let began = Instant::now();
    let stop = async {
        let is_queued = |scrape: &Scrape| scrape.get("eyego_ingest_queued_total") == 2.0;
        scrape_until(&api, "the second event to be queued", is_queued).await;
        api.terminate().await.unwrap()
    };
    let ((status, _), exit) = tokio::join!(wait(&api, "&timeout=30s", &event), stop);
    assert!(status == 202 && exit.success(), "{status}, {exit}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn invalid_wait_parameters_return_400() {
    let server = embedded_server().await;
    let event = json!({"userId": "never", "action": "A"});
    for (query, path, error) in [
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
        let (status, body) = post(&server, &format!("/api/v1/logs?{query}"), &event).await;
        assert_eq!((status, &body["errors"][0]["path"]), (400, &json!(path)), "{query}: {body}");
        assert!(body["message"].as_str().unwrap().contains(error), "{query}: {body}");
    }
    let batch = json!([event]);
    let (status, body) = post(&server, "/api/v1/logs/batch?wait=stored", &batch).await;
    assert_eq!((status, &body["errors"][0]["path"]), (400, &json!("wait")), "{body}");
    let (_, page) = get(&server, "/api/v1/logs?userId=never").await;
    assert_eq!(page["results"], 0);
}
