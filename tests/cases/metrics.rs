//! The two conservation invariants, read from outside at every scrape: no event is lost without a
//! counted reason.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use stack::eventually;
use stack::load::{self, Load, RequestFn};
use stack::openapi;
use stack::server::Server;

use crate::fixture::{Deployment, JSON, TIMEOUT, embedded_server, logs, post_log, ready};

/// One scrape: the value of each series, by its name with its labels.
pub(crate) struct Scrape(HashMap<String, f64>);

impl Scrape {
    pub(crate) async fn of(server: &Server) -> Self {
        let url = format!("{}/metrics", server.base_url());
        let response = openapi::send(reqwest::Client::new().get(url)).await.unwrap();
        assert_eq!(response.status, 200);
        let media = response.headers["content-type"].to_str().unwrap();
        assert!(media.starts_with("text/plain; version=0.0.4"), "{media}");
        let text = String::from_utf8(response.body).unwrap();
        let mut series = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("eyego_"), "{line}");
            let previous = series.insert(name.to_owned(), value.parse().unwrap());
            assert!(previous.is_none(), "duplicate series: {line}");
        }
        Self(series)
    }

    pub(crate) fn get(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no series {name}"))
    }

    /// Returns the sum over all series of a family.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let labelled = format!("{name}{{");
        let of_family = |series: &&String| **series == name || series.starts_with(&labelled);
        self.0.keys().filter(of_family).map(|series| self.0[series]).sum()
    }

    /// Returns the number of partitions that the worker exports a lag for: those it is assigned.
    pub(crate) fn partitions(&self) -> usize {
        self.0.keys().filter(|series| series.starts_with("eyego_worker_lag{")).count()
    }

    /// Returns whether the worker has committed everything in the partitions it is assigned.
    pub(crate) fn is_drained(&self) -> bool {
        self.sum("eyego_worker_lag") == 0.0 && self.get("eyego_worker_in_flight") == 0.0
    }

    pub(crate) fn check_ingest(&self) {
        let known = self.get("eyego_ingest_queued_total")
            + self.get("eyego_ingest_spooled_total")
            + self.sum("eyego_ingest_refused_total")
            + self.get("eyego_ingest_in_flight");
        assert_eq!(self.get("eyego_ingest_received_total"), known);
    }

    pub(crate) fn check_worker(&self) {
        let outcomes = ["stored", "duplicates", "dead_letters", "skipped", "released"];
        let known = outcomes.map(|outcome| self.sum(&format!("eyego_worker_{outcome}_total")));
        let known = known.iter().sum::<f64>() + self.get("eyego_worker_in_flight");
        assert_eq!(self.get("eyego_worker_consumed_total"), known);
    }
}

/// Scrapes until `holds`, and returns that scrape.
pub(crate) async fn scrape_until(
    server: &Server,
    what: &str,
    holds: impl Fn(&Scrape) -> bool,
) -> Scrape {
    eventually(what, TIMEOUT * 2, async || {
        let scrape = Scrape::of(server).await;
        ensure!(holds(&scrape), "{:#?}\n{}", scrape.0, server.log());
        Ok(scrape)
    })
    .await
    .unwrap()
}

/// A load of valid and invalid events. A third of the requests hang up before the response, and some
/// are cut off.
fn mixed_load(server: &Server, duration: Duration) -> Load {
    let request: Arc<RequestFn> = Arc::new(|n| {
        // Enough users to reach each partition.
        let user = format!("user-{}", n % 80);
        let valid = json!({"userId": user, "action": "A", "metadata": {"n": n}});
        let invalid = json!({"userId": "", "action": "A"});
        let (path, body) = match n % 7 {
            0 => ("/api/v1/logs", invalid.to_string()),
            1 => ("/api/v1/logs/batch", json!([valid, invalid, valid, 7]).to_string()),
            2 => ("/api/v1/logs/batch", "[1,".to_owned()),
            _ => ("/api/v1/logs", valid.to_string()),
        };
        let mut request = load::post(path, JSON, body.as_bytes());
        if n % 11 == 0 {
            request.bytes.truncate(request.bytes.len() - 5);
            request.hang_up_after = Some(Duration::ZERO);
        }
        if n % 3 == 0 {
            // Some callers hang up before the response, some after it.
            request.hang_up_after = Some(Duration::from_micros(n % 10 * 200));
        }
        request
    });
    Load { address: server.address(), connections: 8, duration, request, rate: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_invariants_hold_under_load_and_hang_ups() {
    let server = embedded_server().await;
    let loading = tokio::spawn(mixed_load(&server, Duration::from_secs(4)).run());
    while !loading.is_finished() {
        let scrape = Scrape::of(&server).await;
        scrape.check_ingest();
        scrape.check_worker();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let outcome = loading.await.unwrap().unwrap();
    assert_eq!(outcome.broken, 0, "complete requests without a response");
    let is_drained = |scrape: &Scrape| {
        scrape.get("eyego_ingest_in_flight") == 0.0
            && scrape.partitions() == 1
            && scrape.is_drained()
    };
    let last = scrape_until(&server, "all events to be stored", is_drained).await;
    last.check_ingest();
    last.check_worker();
    let queued = last.get("eyego_ingest_queued_total");
    let abandoned = last.get("eyego_ingest_refused_total{reason=\"abandoned\"}");
    let stored = last.get("eyego_worker_stored_total");
    assert!(queued > 0.0 && abandoned > 0.0, "{:#?}", last.0);
    // An abandoned event may have been queued.
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
async fn each_refusal_is_counted_by_reason() {
    let builder = Server::builder()
        .env("EYEGO_MAX_EVENT_BYTES", "1 KiB")
        .env("EYEGO_MAX_BODY_BYTES", "4 KiB");
    let server = ready(builder).await;
    let client = reqwest::Client::new();
    let url = format!("{}/api/v1/logs", server.base_url());
    let send = async |media: &str, body: String| {
        let request = client.post(&url).header("content-type", media).body(body);
        openapi::send(request).await.unwrap().status
    };
    let sized = |n| json!({"userId": "u", "action": "A", "metadata": {"a": "x".repeat(n)}});
    assert_eq!(send(JSON, sized(10).to_string()).await, 202);
    assert_eq!(send(JSON, sized(2_000).to_string()).await, 413);
    assert_eq!(send(JSON, sized(5_000).to_string()).await, 413);
    assert_eq!(send("text/plain", "x".to_owned()).await, 415);
    assert_eq!(send(JSON, "{".to_owned()).await, 400);
    let scrape = Scrape::of(&server).await;
    scrape.check_ingest();
    let refused =
        |of: &str, why: &str| scrape.get(&format!("eyego_ingest_{of}_total{{reason=\"{why}\"}}"));
    assert_eq!(scrape.get("eyego_ingest_received_total"), 2.0);
    assert_eq!((refused("refused", "too_large"), refused("refused", "invalid")), (0.0, 1.0));
    let bodies = ["too_large", "unsupported"].map(|why| refused("bodies_refused", why));
    assert_eq!(bodies, [2.0, 1.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_exports_its_own_invariant() {
    let deployment = Deployment::shared().await;
    let api = ready(deployment.server("api")).await;
    let id = "69682d8d81847b87ab93264b";
    for action in ["A", "A", "B"] {
        let event = json!({"id": id, "userId": "same", "action": action});
        assert_eq!(post_log(&api, &event).await.0, 202);
    }
    deployment.produce("same", b"not JSON").await;
    deployment.produce_null("same").await;
    let worker = deployment.server("worker").start().await.unwrap();
    logs(&api, "", 1).await;
    let is_done = |scrape: &Scrape| {
        scrape.check_worker();
        scrape.get("eyego_worker_consumed_total") == 5.0
            && scrape.partitions() == 6
            && scrape.is_drained()
    };
    let scrape = scrape_until(&worker, "five records to be settled", is_done).await;
    for (series, count) in [
        ("stored_total", 1.0),
        ("duplicates_total", 1.0),
        ("dead_letters_total{code=\"id_conflict\"}", 1.0),
        ("skipped_total{reason=\"no_value\"}", 1.0),
        ("dead_letters_total{code=\"not_a_record\"}", 1.0),
    ] {
        assert_eq!(scrape.get(&format!("eyego_worker_{series}")), count, "{series}");
    }
    assert!(!scrape.0.contains_key("eyego_ingest_received_total"), "a worker has no ingest");
    let scrape = Scrape::of(&api).await;
    scrape.check_ingest();
    assert_eq!(scrape.get("eyego_ingest_queued_total"), 3.0);
    assert!(!scrape.0.contains_key("eyego_worker_consumed_total"));
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_invariant_holds_while_partitions_move() {
    let deployment = Deployment::shared().await;
    let first = ready(deployment.server("all")).await;
    let loading = tokio::spawn(mixed_load(&first, TIMEOUT * 2).run());
    let second = deployment.server("worker").start().await.unwrap();
    eventually("both workers to store", TIMEOUT, async || {
        let scrapes = [Scrape::of(&first).await, Scrape::of(&second).await];
        scrapes.iter().for_each(Scrape::check_worker);
        scrapes[0].check_ingest();
        let stored = scrapes.map(|scrape| scrape.get("eyego_worker_stored_total"));
        ensure!(stored.iter().all(|stored| *stored > 0.0), "{stored:?}");
        Ok(())
    })
    .await
    .unwrap();
    second.terminate().await.unwrap();
    // Closes the connections.
    loading.abort();
    let is_drained = |scrape: &Scrape| {
        scrape.check_worker();
        scrape.partitions() == 6 && scrape.is_drained()
    };
    scrape_until(&first, "the first worker to store the rest", is_drained).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_deleted_by_kafka_before_they_were_stored_are_counted() {
    let deployment = Deployment::shared().await;
    let api = ready(deployment.server("api")).await;
    // One user, and so one partition.
    let post_all = async |events: std::ops::Range<u64>| {
        for n in events {
            let event = json!({"userId": "same", "action": "A", "metadata": {"n": n}});
            assert_eq!(post_log(&api, &event).await.0, 202);
        }
    };
    post_all(0..10).await;
    let worker = deployment.server("worker").start().await.unwrap();
    logs(&api, "userId=same", 10).await;
    let is_a_week = |scrape: &Scrape| scrape.sum("eyego_worker_retention_left_seconds") > 600_000.0;
    scrape_until(&worker, "the retention that is left", is_a_week).await;
    // A worker commits what it has stored when it stops.
    assert!(worker.terminate().await.unwrap().success());
    post_all(10..30).await;
    deployment.delete_records_before(25).await;

    let worker = deployment.server("worker").start().await.unwrap();
    let are_stored = |scrape: &Scrape| scrape.sum("eyego_worker_stored_total") == 5.0;
    let scrape = scrape_until(&worker, "five logs to be stored", are_stored).await;
    scrape.check_worker();
    assert_eq!(scrape.get("eyego_worker_expired_total"), 15.0);
    let log = worker.log();
    assert!(log.contains("records were lost before they were stored"), "{log}");
    logs(&api, "userId=same", 15).await;
}
