//! `GET /api/v1/logs/tail`.

mod limits;
mod messages;
mod resume;

use std::time::{Duration, Instant};

use anyhow::ensure;
use eyego_log_core::LogId;
use serde_json::{Value, json};
use stack::eventually;
use stack::server::Server;

use self::messages::Messages;
use super::{event, store_all};
use crate::fixture::{Deployment, TIMEOUT, embedded_server, get, post_log, ready, url};
use crate::metrics::{Scrape, scrape_until};

const TAIL: &str = "/api/v1/logs/tail";

async fn post_action(server: &Server, user: &str, action: &str) -> String {
    let (status, body) = post_log(server, &json!({"userId": user, "action": action})).await;
    assert_eq!(status, 202, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

/// Checks the main path, on either store.
async fn stored_events_come_first_and_then_each_new_one(server: &Server) {
    let user = LogId::from_bytes([7; 12]).to_string();
    let events: Vec<_> = (0..5).map(|n| event(n, &user, "A", 1_767_225_600_000)).collect();
    store_all(server, &events).await;
    let query = format!("userId={user}");
    let (_, page) = get(server, &format!("/api/v1/logs?{query}&limit=3")).await;
    let mut listed: Vec<_> = page["data"].as_array().unwrap().clone();
    listed.reverse();

    let mut tail = Messages::open(server, &format!("{query}&last=3")).await;
    assert_eq!(tail.header("content-type"), "text/event-stream");
    assert_eq!(tail.header("cache-control"), "no-store");
    for expected in &listed {
        let message = tail.next().await;
        assert_eq!((&*message.event, message.json()), ("log", expected.clone()));
    }
    let start = tail.position().await;

    post_action(server, "somebody else", "B").await;
    let first = post_action(server, &user, "B").await;
    let message = tail.next_event().await;
    assert_eq!(message.json()["id"], *first);
    assert_eq!(message.json()["action"], "B");
    assert!(!message.id.is_empty() && message.id != start);
    drop(tail);
    let second = post_action(server, &user, "C").await;
    // A tail resumes by the header and by the parameter, also before the first event.
    for (after, expected) in [(&message.id, &[&second][..]), (&start, &[&first, &second])] {
        let mut by_parameter = Messages::open(server, &format!("{query}&after={after}")).await;
        let mut by_header = Messages::resume(server, &format!("{query}&last=3"), after).await;
        for tail in [&mut by_parameter, &mut by_header] {
            for id in expected {
                assert_eq!(tail.next_event().await.json()["id"], **id);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_store_can_be_followed() {
    let server = embedded_server().await;
    stored_events_come_first_and_then_each_new_one(&server).await;
    let are_closed = |scrape: &Scrape| scrape.get("eyego_tails") == 0.0;
    let scrape = scrape_until(&server, "the tails to be closed", are_closed).await;
    assert!(scrape.get("eyego_tail_events_sent_total") >= 10.0);
    assert_eq!(scrape.get("eyego_tail_events_skipped_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_can_be_followed() {
    let server = ready(Deployment::shared().await.server("all")).await;
    stored_events_come_first_and_then_each_new_one(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_tails_get_an_envelope_that_says_what_is_possible() {
    let server = embedded_server().await;
    for (query, message) in [
        ("last=1001", "last must be a whole number from 0 to 1000"),
        ("last=1&after=e-0-1", "last must not be combined with after"),
        ("last=1&last=2", "last must not be repeated"),
        ("limit=10", "limit is not a known parameter of this route"),
        ("after=e-0-1", "after or Last-Event-ID must be the id of an event of this tail"),
        ("after=m-01234567-826744A6C800000001", "start again without it"),
    ] {
        let (status, body) = get(&server, &format!("{TAIL}?{query}")).await;
        assert_eq!((status, &body["status"]), (400, &json!("fail")), "{query}: {body}");
        assert!(body["message"].as_str().unwrap().contains(message), "{query}: {body}");
    }
    let client = reqwest::Client::new();
    let posted = client.post(url(&server, TAIL)).send().await.unwrap();
    assert_eq!(
        (posted.status().as_u16(), &posted.headers()["allow"]),
        (405, &"GET,HEAD".parse().unwrap())
    );
    let head = client.head(url(&server, TAIL)).send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), &head.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    scrape_until(&server, "no tail", |scrape| scrape.get("eyego_tails") == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_tail_gets_a_comment_and_ends_when_the_server_stops() {
    let server = embedded_server().await;
    let mut tail = Messages::open(&server, "").await;
    let position = tail.position().await;
    let opened = Instant::now();
    tail.comment(Duration::from_secs(20)).await;
    assert!(opened.elapsed() >= Duration::from_secs(14), "{:?}", opened.elapsed());
    // An event that does not match moves the position, which the next message contains.
    let mut filtered = Messages::open(&server, "userId=nobody").await;
    assert_eq!(filtered.position().await, position);
    let id = post_action(&server, "u", "A").await;
    assert_eq!(tail.next_event().await.json()["id"], *id);
    assert_ne!(filtered.position_within(Duration::from_secs(20)).await, position);

    let stopping = Instant::now();
    let status = server.terminate().await.unwrap();
    assert!(status.success() && stopping.elapsed() < Duration::from_secs(8), "{status}");
    tail.expect_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn erased_events_are_not_sent_later() {
    let server = embedded_server().await;
    let mut tail = Messages::open(&server, "").await;
    let start = tail.position().await;
    for n in 0..20 {
        post_action(&server, ["kept", "erased"][n % 2], "A").await;
    }
    for _ in 0..20 {
        tail.next_event().await;
    }
    let erase = reqwest::Client::new().delete(url(&server, "/api/v1/users/erased/logs"));
    assert_eq!(erase.send().await.unwrap().status(), 202);
    eventually("the events to be erased", TIMEOUT, async || {
        let (_, page) = get(&server, "/api/v1/logs?userId=erased").await;
        ensure!(page["results"] == 0, "{page}");
        Ok(())
    })
    .await
    .unwrap();
    let last = post_action(&server, "kept", "LAST").await;
    // The events come from memory while another tail is open, and otherwise from the store.
    for is_followed in [true, false] {
        if !is_followed {
            drop(std::mem::replace(&mut tail, Messages::open(&server, "userId=x").await));
            server.restart().await.unwrap();
            server.wait_ready(TIMEOUT).await.unwrap();
        }
        let mut resumed = Messages::resume(&server, "", &start).await;
        let mut users = Vec::new();
        loop {
            let event: Value = resumed.next_event().await.json();
            users.push(event["userId"].as_str().unwrap().to_owned());
            if event["id"] == *last {
                break;
            }
        }
        assert_eq!(users, vec!["kept"; 11]);
    }
}
