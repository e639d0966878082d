//! The two laws of conservation, read from outside at every scrape: nothing is lost without a
//! counted reason.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::producer::FutureRecord;
use serde_json::json;
use stack::server::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::conformance::PATIENCE;
use crate::fixture::{Names, logs, post};

/// One scrape: the value of each series, by its name with its labels.
pub(crate) struct Scrape(HashMap<String, f64>);

impl Scrape {
    pub(crate) async fn of(server: &Server) -> Self {
        let answer = reqwest::get(format!("{}/metrics", server.base_url())).await.unwrap();
        assert_eq!(answer.status(), 200);
        let media = answer.headers()["content-type"].to_str().unwrap();
        assert!(media.starts_with("text/plain; version=0.0.4"), "{media}");
        let text = answer.text().await.unwrap();
        let mut series = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("eyego_"), "{line}");
            let doubled = series.insert(name.to_owned(), value.parse().unwrap());
            assert!(doubled.is_none(), "{line}");
        }
        Self(series)
    }

    pub(crate) fn get(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// All series of a family together.
    fn sum(&self, name: &str) -> f64 {
        let labelled = format!("{name}{{");
        let of_family = |series: &&String| **series == name || series.starts_with(&labelled);
        self.0.keys().filter(of_family).map(|series| self.0[series]).sum()
    }

    pub(crate) fn check_ingest(&self) {
        let known = self.get("eyego_ingest_queued_total")
            + self.get("eyego_ingest_spooled_total")
            + self.sum("eyego_ingest_refused_total")
            + self.get("eyego_ingest_in_flight");
        assert_eq!(self.get("eyego_ingest_received_total"), known);
    }

    fn check_worker(&self) {
        let fates = ["stored", "duplicates", "dead_letters", "skipped", "released"];
        let known = fates.map(|fate| self.sum(&format!("eyego_worker_{fate}_total")));
        let known = known.iter().sum::<f64>() + self.get("eyego_worker_in_flight");
        assert_eq!(self.get("eyego_worker_consumed_total"), known);
        assert!(self.get("eyego_worker_conflicts_total") <= known);
    }
}

/// Scrapes until this holds; answers that scrape.
pub(crate) async fn eventually(server: &Server, holds: impl Fn(&Scrape) -> bool) -> Scrape {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let scrape = Scrape::of(server).await;
        if holds(&scrape) {
            return scrape;
        }
        assert!(Instant::now() < deadline, "{:#?}", scrape.0);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn request(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends good and bad events, and hangs up on every third answer, until it is told to stop.
async fn caller(port: u16, caller: u64, is_over: Arc<AtomicBool>) {
    for n in 0_u64.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        // Enough users for each partition to have some.
        let user = format!("user-{caller}-{}", n % 10);
        let good = json!({"userId": user, "action": "A", "metadata": {"n": n}});
        let bad = json!({"userId": "", "action": "A"});
        let request = match n % 7 {
            0 => request("/api/v1/logs", &bad.to_string()),
            1 => request("/api/v1/logs/batch", &json!([good, bad, good, 7]).to_string()),
            2 => request("/api/v1/logs/batch", "[1,"),
            _ => request("/api/v1/logs", &good.to_string()),
        };
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let whole = if n % 11 == 0 { &request[..request.len() - 5] } else { &request };
        stream.write_all(whole.as_bytes()).await.unwrap();
        if n % 3 == 0 {
            // Early enough to come before the answer, or not.
            tokio::time::sleep(Duration::from_micros(n % 10 * 200)).await;
            continue;
        }
        if whole.len() == request.len() {
            let mut answer = [0; 64];
            assert!(stream.read(&mut answer).await.unwrap() > 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_laws_hold_under_load_and_hang_ups() {
    let server = Server::builder().start().await.unwrap();
    server.wait_ready(PATIENCE).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> =
        (0..8).map(|n| tokio::spawn(caller(server.port(), n, Arc::clone(&is_over)))).collect();
    let deadline = Instant::now() + Duration::from_secs(4);
    while Instant::now() < deadline {
        let scrape = Scrape::of(&server).await;
        scrape.check_ingest();
        scrape.check_worker();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    let is_done = |scrape: &Scrape| {
        scrape.get("eyego_ingest_in_flight") == 0.0
            && scrape.get("eyego_worker_in_flight") == 0.0
            && scrape.get("eyego_worker_lag{partition=\"0\"}") == 0.0
    };
    let last = eventually(&server, is_done).await;
    last.check_ingest();
    last.check_worker();
    let queued = last.get("eyego_ingest_queued_total");
    let abandoned = last.get("eyego_ingest_refused_total{reason=\"abandoned\"}");
    let stored = last.get("eyego_worker_stored_total");
    assert!(queued > 0.0 && abandoned > 0.0, "{:#?}", last.0);
    // What was abandoned may have been queued.
    assert!((queued..=queued + abandoned).contains(&stored), "{queued} + {abandoned}: {stored}");
    assert!(last.get("eyego_ingest_refused_total{reason=\"invalid\"}") > 0.0);
    assert!(last.get("eyego_ingest_bodies_refused_total{reason=\"invalid\"}") > 0.0);
    for (histogram, count) in [
        ("eyego_ingest_received_to_queued_seconds", queued),
        ("eyego_worker_received_to_stored_seconds", stored),
    ] {
        assert_eq!(last.get(&format!("{histogram}_count")), count);
        assert_eq!(last.get(&format!("{histogram}_bucket{{le=\"+Inf\"}}")), count);
        assert!(last.get(&format!("{histogram}_sum")) > 0.0);
    }
}

#[tokio::test]
async fn each_refusal_has_its_reason() {
    let server = Server::builder()
        .env("EYEGO_MAX_EVENT_BYTES", "1 KiB")
        .env("EYEGO_MAX_BODY_BYTES", "4 KiB")
        .start()
        .await
        .unwrap();
    server.wait_ready(PATIENCE).await.unwrap();
    let client = reqwest::Client::new();
    let url = format!("{}/api/v1/logs", server.base_url());
    let send = async |media: &str, body: String| {
        let request = client.post(&url).header("content-type", media).body(body);
        request.send().await.unwrap().status().as_u16()
    };
    let sized = |n| json!({"userId": "u", "action": "A", "metadata": {"a": "x".repeat(n)}});
    assert_eq!(send("application/json", sized(10).to_string()).await, 202);
    assert_eq!(send("application/json", sized(2_000).to_string()).await, 413);
    assert_eq!(send("application/json", sized(5_000).to_string()).await, 413);
    assert_eq!(send("text/plain", "x".to_owned()).await, 415);
    assert_eq!(send("application/json", "{".to_owned()).await, 400);
    let scrape = Scrape::of(&server).await;
    scrape.check_ingest();
    let refused =
        |of: &str, why: &str| scrape.get(&format!("eyego_ingest_{of}_total{{reason=\"{why}\"}}"));
    assert_eq!(scrape.get("eyego_ingest_received_total"), 3.0);
    assert_eq!((refused("refused", "too_large"), refused("refused", "invalid")), (1.0, 1.0));
    let bodies = ["too_large", "unsupported"].map(|why| refused("bodies_refused", why));
    assert_eq!(bodies, [1.0, 1.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_shows_its_own_law() {
    let names = Names::new().await;
    let api = names.server("api", "g").start().await.unwrap();
    api.wait_ready(PATIENCE).await.unwrap();
    let id = "69682d8d81847b87ab93264b";
    for action in ["A", "A", "B"] {
        let event = json!({"id": id, "userId": "same", "action": action});
        assert_eq!(post(&api, &event).await.0, 202);
    }
    names.produce("same", b"not JSON").await;
    let tombstone: FutureRecord<'_, str, [u8]> = FutureRecord::to(&names.topic).key("same");
    names.producer().send(tombstone, PATIENCE).await.unwrap();
    let worker = names.server("worker", "g").start().await.unwrap();
    logs(&api, "", 1).await;
    let is_done = |scrape: &Scrape| {
        scrape.check_worker();
        scrape.get("eyego_worker_consumed_total") == 5.0
            && scrape.get("eyego_worker_in_flight") == 0.0
            && scrape.0.contains_key("eyego_worker_lag{partition=\"5\"}")
            && scrape.sum("eyego_worker_lag") == 0.0
    };
    let scrape = eventually(&worker, is_done).await;
    for (series, count) in [
        ("stored_total", 1.0),
        ("duplicates_total", 2.0),
        ("conflicts_total", 1.0),
        ("skipped_total", 1.0),
        ("dead_letters_total{code=\"not_a_record\"}", 1.0),
    ] {
        assert_eq!(scrape.get(&format!("eyego_worker_{series}")), count, "{series}");
    }
    assert!(!scrape.0.contains_key("eyego_ingest_received_total"), "a worker takes no events");
    let scrape = Scrape::of(&api).await;
    scrape.check_ingest();
    assert_eq!(scrape.get("eyego_ingest_queued_total"), 3.0);
    assert!(!scrape.0.contains_key("eyego_worker_consumed_total"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_law_holds_while_partitions_move() {
    let names = Names::new().await;
    let first = names.server("all", "g").start().await.unwrap();
    first.wait_ready(PATIENCE).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> =
        (0..4).map(|n| tokio::spawn(caller(first.port(), n, Arc::clone(&is_over)))).collect();
    let second = names.server("worker", "g").start().await.unwrap();
    let both_work = async {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let scrapes = [Scrape::of(&first).await, Scrape::of(&second).await];
            scrapes.iter().for_each(Scrape::check_worker);
            scrapes[0].check_ingest();
            if scrapes.iter().all(|scrape| scrape.get("eyego_worker_stored_total") > 0.0) {
                return;
            }
            assert!(Instant::now() < deadline, "{:#?}", scrapes.map(|scrape| scrape.0));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    both_work.await;
    second.terminate().await.unwrap();
    is_over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    let is_done = |scrape: &Scrape| {
        scrape.check_worker();
        scrape.sum("eyego_worker_lag") == 0.0
            && scrape.0.contains_key("eyego_worker_lag{partition=\"5\"}")
            && scrape.get("eyego_worker_in_flight") == 0.0
    };
    eventually(&first, is_done).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_kafka_deleted_before_they_were_stored_are_counted() {
    let names = Names::new().await;
    let api = names.server("api", "g").start().await.unwrap();
    api.wait_ready(PATIENCE).await.unwrap();
    // One user, so one partition.
    let post_all = async |events: std::ops::Range<u64>| {
        for n in events {
            let event = json!({"userId": "same", "action": "A", "metadata": {"n": n}});
            assert_eq!(post(&api, &event).await.0, 202);
        }
    };
    post_all(0..10).await;
    let worker = names.server("worker", "g").start().await.unwrap();
    logs(&api, "userId=same", 10).await;
    let week = |scrape: &Scrape| scrape.sum("eyego_worker_retention_left_seconds") > 600_000.0;
    eventually(&worker, week).await;
    // It commits what it has stored.
    assert!(worker.terminate().await.unwrap().success());
    post_all(10..30).await;
    names.delete_records_before(25).await;

    let worker = names.server("worker", "g").start().await.unwrap();
    let scrape = eventually(&worker, |scrape| scrape.sum("eyego_worker_stored_total") == 5.0).await;
    scrape.check_worker();
    assert_eq!(scrape.get("eyego_worker_expired_total"), 15.0);
    assert!(worker.log().contains("lost records"), "{}", worker.log());
    logs(&api, "userId=same", 15).await;
}
