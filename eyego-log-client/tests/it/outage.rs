//! Servers that accept a part of the events, or none at all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eyego_log_client::Event;
use wiremock::ResponseTemplate;

use crate::eventually::eventually;
use crate::server::{FakeServer, Seen, accepted, partly};

/// Rejects the events of this user as retryable.
fn refuse_user(seen: &Seen, user: &str) -> ResponseTemplate {
    let users = seen.users();
    let refused = users.iter().enumerate().filter(|(_, other)| **other == user);
    let refused: Vec<_> = refused.map(|(index, _)| (index, "queue_full", true)).collect();
    match refused.len() {
        0 => accepted(seen),
        all if all == users.len() => partly(503, seen, &refused),
        _ => partly(207, seen, &refused),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_user_does_not_delay_the_others() {
    let is_refused = Arc::new(AtomicBool::new(true));
    let refused = Arc::clone(&is_refused);
    let server = FakeServer::start(move |_, seen| {
        if refused.load(Ordering::SeqCst) { refuse_user(seen, "refused") } else { accepted(seen) }
    })
    .await;
    let reported = Arc::new(std::sync::Mutex::new(Vec::new()));
    let problems = Arc::clone(&reported);
    let client = server
        .client()
        // Long pauses, which would show if they delayed the others.
        .retry(Duration::from_secs(20), Duration::from_secs(20))
        .max_batch_events(40)
        .on_problem(move |problem| problems.lock().unwrap().push(problem.to_owned()))
        .build()
        .unwrap();
    for n in 0..1000 {
        for user in ["a", "b", "refused", "c"] {
            client.log(Event::new(user, format!("A{n}"))).unwrap();
        }
    }
    eventually("all other events are delivered", || client.stats().delivered == 3000);
    let stats = client.stats();
    assert_eq!((stats.refused, stats.pending, stats.lost.total()), (1000, 1000, 0), "{stats:?}");
    assert!(stats.is_balanced());
    eventually("the refusal is reported", || {
        reported.lock().unwrap().iter().any(|problem| problem.contains("events for now"))
    });
    is_refused.store(false, Ordering::SeqCst);
    let report = client.flush_within(Duration::from_secs(30)).await;
    assert!(report.all_delivered(), "{report:?}");
    assert_eq!(report.stats.refused, 0);
    assert_eq!(report.stats.last_problem, None);
    let seen = server.seen();
    let ids = seen.iter().flat_map(|seen| &seen.events).map(|event| event["id"].to_string());
    assert_eq!(ids.collect::<BTreeSet<_>>().len(), 4000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lasting_refusal_is_one_problem_that_names_the_response() {
    let server = FakeServer::start(|_, seen| refuse_user(seen, "refused")).await;
    let reported = Arc::new(std::sync::Mutex::new(Vec::new()));
    let problems = Arc::clone(&reported);
    let client = server
        .client()
        // The first request contains both users.
        .linger(Duration::from_millis(50))
        .retry(Duration::from_millis(20), Duration::from_millis(50))
        .on_problem(move |problem| problems.lock().unwrap().push(problem.to_owned()))
        .build()
        .unwrap();
    let begin = Instant::now();
    let is_refused_alone = |seen: &Seen| seen.users().iter().all(|user| *user == "refused");
    let mut logged = 0;
    // Problems are reported at most once per second.
    eventually("refused events are retried for some seconds", || {
        for user in ["a", "refused"] {
            client.log(Event::new(user, "A")).unwrap();
        }
        logged += 1;
        let retries = server.seen().iter().filter(|seen| is_refused_alone(seen)).count();
        retries > 20 && begin.elapsed() > Duration::from_secs(3)
    });
    eventually("the others are delivered", || client.stats().delivered == logged);
    let problem = client.stats().last_problem.unwrap().message;
    assert!(problem.contains("/logs/batch") && problem.contains("with status"), "{problem}");
    let reported = reported.lock().unwrap();
    assert!(reported.len() == 1 && reported[0].contains("events for now"), "{reported:?}");
}

/// The server fails whenever a batch contains an event of one user.
#[tokio::test(flavor = "multi_thread")]
async fn events_with_which_the_server_fails_delay_no_others() {
    let fails = Arc::new(AtomicBool::new(true));
    let is_failing = Arc::clone(&fails);
    let server = FakeServer::start(move |_, seen| {
        let is_fatal = seen.users().contains(&"fatal") && is_failing.load(Ordering::SeqCst);
        if is_fatal { ResponseTemplate::new(500) } else { accepted(seen) }
    })
    .await;
    let reported = Arc::new(std::sync::Mutex::new(Vec::new()));
    let problems = Arc::clone(&reported);
    let client = server
        .client()
        .max_batch_events(100)
        .on_problem(move |problem| problems.lock().unwrap().push(problem.to_owned()))
        .build()
        .unwrap();
    for n in 0..10_000 {
        let user = if n % 500 == 250 { "fatal" } else { "ada" };
        client.log(Event::new(user, "A")).unwrap();
    }
    eventually("all others are delivered", || client.stats().delivered == 9980);
    let stats = client.stats();
    assert_eq!((stats.refused, stats.pending, stats.lost.total()), (20, 20, 0), "{stats:?}");
    let problems = || -> Vec<String> {
        let reported = reported.lock().unwrap();
        let fails = |problem: &&String| problem.contains("fails with some events");
        reported.iter().filter(fails).cloned().collect()
    };
    eventually("it is reported", || !problems().is_empty());
    assert!(problems()[0].contains("status 500"), "{:?}", problems());
    assert_eq!(problems().len(), 1, "a lasting problem is reported once");
    fails.store(false, Ordering::SeqCst);
    assert!(client.flush_within(Duration::from_secs(30)).await.all_delivered());
    let stats = client.stats();
    assert_eq!((stats.refused, &stats.last_problem), (0, &None), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_every_request_is_not_stormed() {
    for status in [400, 401, 404, 413] {
        let server = FakeServer::start(move |_, _| {
            ResponseTemplate::new(status).set_body_string(r#"{"status":"fail","message":"no"}"#)
        })
        .await;
        let client = server
            .client()
            .retry(Duration::from_millis(100), Duration::from_secs(30))
            .max_batch_events(100)
            .shutdown_timeout(Duration::ZERO)
            .build()
            .unwrap();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(4) {
            client.log(Event::new("a", "A")).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let requests = server.seen().len();
        // A few at the beginning, and then at most one per second.
        assert!((2..=14).contains(&requests), "{requests} requests with status {status}");
        assert!(client.stats().is_balanced());
    }
}
