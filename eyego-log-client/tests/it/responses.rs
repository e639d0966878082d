//! Every kind of response to a batch, and what happens to its events.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, SystemTime};

use eyego_log_client::{Client, Event, LossReason, SendError, reqwest};
use wiremock::ResponseTemplate;

use crate::eventually::eventually;
use crate::server::{FakeServer, Seen, accepted, partly, refused};

fn log(client: &Client, users: &[&str]) {
    for user in users {
        client.log(Event::new(*user, "A")).unwrap();
    }
}

#[tokio::test]
async fn events_arrive_in_order_with_ids_and_times() {
    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let client = server.client().api_key("secret").build().unwrap();
    log(&client, &["a", "b", "c"]);
    let report = client.flush().await;
    assert!(report.is_settled());
    assert_eq!((report.stats.accepted, report.stats.delivered), (3, 3));
    let seen = server.seen();
    let users: Vec<_> = seen.iter().flat_map(Seen::users).collect();
    assert_eq!(users, ["a", "b", "c"]);
    assert_eq!(seen[0].events[0]["id"].as_str().unwrap().len(), 24);
    assert!(seen[0].events[0]["timestamp"].as_str().unwrap().ends_with('Z'));
    let requests = server.server.received_requests().await.unwrap();
    assert_eq!(requests[0].url.path(), "/api/v1/logs/batch");
    assert_eq!(requests[0].headers["authorization"], "Bearer secret");
}

#[tokio::test]
async fn retry_after_delays_all_requests() {
    let server = FakeServer::start(|n, seen| match n {
        0 => ResponseTemplate::new(429).insert_header("retry-after", "1"),
        _ => accepted(seen),
    })
    .await;
    let client = server.client().build().unwrap();
    client.send(Event::new("a", "A")).await.unwrap();
    client.send(Event::new("b", "A")).await.unwrap();
    let seen = server.seen();
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(1));
    assert_eq!(seen[0].events[0]["id"], seen[1].events[0]["id"], "the same event");
    assert_eq!(client.stats().failed_requests, 1);
}

#[tokio::test]
async fn retry_after_can_be_a_date() {
    let begin = SystemTime::now();
    // An HTTP date has no fraction of a second, so two seconds are at least one.
    let server = FakeServer::start(move |n, seen| match n {
        0 => {
            let date = httpdate::fmt_http_date(begin + Duration::from_secs(2));
            ResponseTemplate::new(503).insert_header("retry-after", date)
        }
        _ => accepted(seen),
    })
    .await;
    let client = server.client().build().unwrap();
    client.send(Event::new("a", "A")).await.unwrap();
    assert!(begin.elapsed().unwrap() >= Duration::from_secs(1));
    assert_eq!(client.stats().requests, 2);
}

#[tokio::test]
async fn a_413_loses_only_the_oversized_event() {
    let server = FakeServer::start(|_, seen| {
        if seen.users().contains(&"huge") { refused(413) } else { accepted(seen) }
    })
    .await;
    let lost = Arc::new(Mutex::new(Vec::new()));
    let losses = Arc::clone(&lost);
    let hook = move |loss: &eyego_log_client::Loss<'_>| {
        for event in loss.events() {
            assert!(event.id().is_some());
            losses.lock().unwrap().push((loss.reason, event.json().to_owned()));
        }
        panic!("the client catches this");
    };
    let client = server.client().max_in_flight(1).on_loss(hook).build().unwrap();
    log(&client, &["a", "b", "huge", "c", "d"]);
    let report = client.flush().await;
    assert_eq!(report.stats.delivered, 4);
    assert_eq!(report.stats.lost.get(LossReason::TooLarge), 1);
    eventually("the loss is reported", || !lost.lock().unwrap().is_empty());
    let lost = lost.lock().unwrap().clone();
    assert!(matches!(&lost[..], [(LossReason::TooLarge, json)] if json.contains("huge")));
    client.log(Event::new("a", "A")).unwrap();
    assert!(client.flush().await.is_settled(), "the worker survived the hook");
}

#[tokio::test]
async fn a_single_event_that_is_refused_is_reported_as_lost_and_not_as_split() {
    let server = FakeServer::start(|_, _| refused(413)).await;
    let reports = Arc::new(Mutex::new(Vec::new()));
    let collected = Arc::clone(&reports);
    let hook = move |problem: &str| collected.lock().unwrap().push(problem.to_owned());
    let client = server.client().on_problem(hook).build().unwrap();
    assert!(client.send(Event::new("a", "A")).await.is_err());
    let _ = client.shutdown().await;
    let reports = reports.lock().unwrap().clone();
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert!(report.starts_with("events are lost (too_large): "), "{report}");
}

#[tokio::test]
async fn compression_stays_off_after_a_415() {
    let server = FakeServer::start(|_, seen| match seen.encoding {
        Some(_) => ResponseTemplate::new(415),
        None => accepted(seen),
    })
    .await;
    let client = server.client().build().unwrap();
    for _ in 0..2 {
        for _ in 0..50 {
            log(&client, &["a"]);
        }
        assert!(client.flush().await.is_settled());
    }
    assert_eq!(client.stats().delivered, 100);
    let seen = server.seen();
    assert_eq!(seen[0].encoding.as_deref(), Some("zstd"));
    assert!(seen.iter().skip(4).all(|seen| seen.encoding.is_none()));
}

#[tokio::test]
async fn every_item_of_a_batch_has_its_own_outcome() {
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let server = FakeServer::start(move |n, seen| match n {
        // Blocks until the four events have been buffered, so that they share
        // the second request.
        0 => {
            released.lock().unwrap().recv().unwrap();
            accepted(seen)
        }
        1 => partly(
            207,
            seen,
            &[(3, "queue_full", true), (1, "invalid", false), (2, "too_large", false)],
        ),
        2 => partly(503, seen, &[(0, "queue_unavailable", true)]),
        _ => accepted(seen),
    })
    .await;
    let client = server.client().max_in_flight(1).build().unwrap();
    let first = client.send(Event::new("first", "A"));
    eventually("the first request arrives", || server.seen().len() == 1);
    let deliveries = ["a", "b", "c", "d"].map(|user| client.send(Event::new(user, "A")));
    release.send(()).unwrap();
    first.await.unwrap();
    let mut results = Vec::new();
    for delivery in deliveries {
        results.push(delivery.await);
    }
    let reason = |result: &Result<_, SendError>| match result {
        Err(SendError::Lost { reason, .. }) => *reason,
        other => panic!("{other:?}"),
    };
    assert!(results[0].is_ok() && results[3].is_ok(), "{results:?}");
    assert_eq!(reason(&results[1]), LossReason::Invalid);
    assert_eq!(reason(&results[2]), LossReason::TooLarge);
    let users: Vec<_> = server.seen().iter().map(|seen| seen.users().join(" ")).collect();
    assert_eq!(users, ["first", "a b c d", "d", "d"]);
    let stats = client.stats();
    assert_eq!((stats.delivered, stats.lost.total()), (3, 2));
    assert!(stats.is_balanced());
}

#[tokio::test]
async fn a_batch_of_invalid_events_is_lost_event_by_event() {
    let server = FakeServer::start(|_, seen| {
        let all: Vec<_> = (0..seen.events.len()).map(|index| (index, "invalid", false)).collect();
        partly(400, seen, &all)
    })
    .await;
    let client = server.client().build().unwrap();
    log(&client, &["a", "b"]);
    let report = client.flush().await;
    assert_eq!(report.stats.lost.get(LossReason::Invalid), 2);
    assert_eq!(report.stats.failed_requests, 0);
}

#[tokio::test]
async fn a_wrong_api_key_is_reported_once_and_not_retried() {
    for status in [401, 403] {
        let server = FakeServer::start(move |_, _| refused(status)).await;
        let reported = Arc::new(Mutex::new(Vec::new()));
        let problems = Arc::clone(&reported);
        let hook = move |problem: &str| problems.lock().unwrap().push(problem.to_owned());
        let client = server.client().on_problem(hook).build().unwrap();
        for _ in 0..3 {
            log(&client, &["a"]);
            let _ = client.flush().await;
        }
        assert_eq!(server.seen().len(), 3, "one request for each batch");
        assert_eq!(client.stats().lost.get(LossReason::Unauthorized), 3);
        eventually("the problem is reported", || reported.lock().unwrap().len() == 1);
        assert!(client.stats().last_problem.unwrap().message.contains(&status.to_string()));
    }
}

#[tokio::test]
async fn unexpected_responses_are_counted_and_shown() {
    let server = FakeServer::start(|n, seen| match n {
        0 => ResponseTemplate::new(200).set_body_string("<html>please log in</html>"),
        1 => ResponseTemplate::new(302).insert_header("location", "/login"),
        _ => accepted(seen),
    })
    .await;
    let client = server.client().build().unwrap();
    client.send(Event::new("a", "A")).await.unwrap();
    assert_eq!(client.stats().unexpected_responses, 2);

    let server =
        FakeServer::start(|_, _| ResponseTemplate::new(200).set_body_string("<html>")).await;
    let client = server.client().delivery_timeout(Duration::from_millis(50)).build().unwrap();
    let Err(SendError::Lost { reason, message, .. }) = client.send(Event::new("a", "A")).await
    else {
        panic!("the event was delivered")
    };
    assert_eq!(reason, LossReason::UnexpectedResponse);
    assert!(message.contains("status 200") && message.contains("<html>"), "{message}");
}

#[tokio::test]
async fn a_request_that_times_out_is_retried() {
    let server = FakeServer::start(|n, seen| match n {
        0 => accepted(seen).set_delay(Duration::from_secs(30)),
        _ => accepted(seen),
    })
    .await;
    let client = server.client().request_timeout(Duration::from_millis(200)).build().unwrap();
    client.send(Event::new("a", "A")).await.unwrap();
    let stats = client.stats();
    // On a busy machine, another request can time out.
    assert!(stats.failed_requests >= 1 && stats.requests == stats.failed_requests + 1, "{stats:?}");
}

/// Everything that a proxy or another server can answer: it is retried, and no
/// event is lost before the delivery timeout.
#[tokio::test]
async fn a_refusal_by_a_proxy_loses_nothing() {
    for status in [400, 401, 403, 404, 405, 410, 413, 415, 421] {
        let server = FakeServer::start(move |n, seen| match n {
            0..3 => ResponseTemplate::new(status).set_body_string("404 page not found"),
            _ => accepted(seen),
        })
        .await;
        let reported = Arc::new(Mutex::new(Vec::new()));
        let problems = Arc::clone(&reported);
        let hook = move |problem: &str| problems.lock().unwrap().push(problem.to_owned());
        let client = server.client().on_problem(hook).build().unwrap();
        client.send(Event::new("a", "A")).await.unwrap();
        let stats = client.stats();
        assert_eq!((stats.delivered, stats.unexpected_responses), (1, 3), "{status}");
        let reported = reported.lock().unwrap().clone();
        let expected = format!("status {status} and body \"404 page not found\"");
        assert!(reported[0].contains(&expected), "{reported:?}");
        assert!(reported[0].contains("/api/v1/logs/batch: "), "{reported:?}");
    }
}

#[tokio::test]
async fn a_batch_that_a_proxy_refuses_as_too_large_is_split() {
    let server = FakeServer::start(|_, seen| match seen.events.len() {
        3.. => ResponseTemplate::new(413).set_body_string("<html>too large</html>"),
        _ => accepted(seen),
    })
    .await;
    let client = server.client().linger(Duration::from_secs(5)).build().unwrap();
    log(&client, &["a"; 20]);
    assert!(client.flush().await.all_delivered());
    assert!(server.seen().iter().any(|seen| seen.events.len() == 20), "sent as one batch first");
}

/// The server answers 413 if every event of a batch is too large.
#[tokio::test]
async fn a_413_with_a_list_of_events_needs_no_further_request() {
    let server = FakeServer::start(|_, seen| {
        let all: Vec<_> = (0..seen.events.len()).map(|n| (n, "too_large", false)).collect();
        partly(413, seen, &all)
    })
    .await;
    let client = server.client().linger(Duration::from_secs(5)).build().unwrap();
    log(&client, &["a"; 5]);
    let report = client.flush().await;
    assert_eq!(report.stats.lost.get(LossReason::TooLarge), 5);
    assert_eq!(report.stats.requests, 1);
}

#[tokio::test]
async fn the_problem_names_the_target_of_a_redirect() {
    let server = FakeServer::start(|_, _| {
        ResponseTemplate::new(302).insert_header("location", "https://u:pw@login.example/?x=1")
    })
    .await;
    let client = server.client().delivery_timeout(Duration::ZERO).build().unwrap();
    let Err(SendError::Lost { message, .. }) = client.send(Event::new("a", "A")).await else {
        panic!("the event was delivered")
    };
    assert!(message.contains("a redirect to https://***@login.example/?x=1"), "{message}");
}

#[tokio::test]
async fn a_redirect_to_the_same_host_is_followed_with_the_events_and_the_key() {
    for status in [307, 308] {
        let server = FakeServer::start(move |n, seen| match n {
            0 => ResponseTemplate::new(status).insert_header("location", "/elsewhere/logs"),
            _ => accepted(seen),
        })
        .await;
        let client = server.client().api_key("secret").build().unwrap();
        client.send(Event::new("a", "A")).await.unwrap();
        let requests = server.server.received_requests().await.unwrap();
        assert_eq!(requests[1].url.path(), "/elsewhere/logs");
        assert_eq!(requests[1].headers["authorization"], "Bearer secret");
        assert_eq!(server.seen()[1].users(), ["a"]);
        assert_eq!((client.stats().requests, client.stats().failed_requests), (1, 0));
    }
}

#[tokio::test]
async fn a_circle_of_redirects_is_left_at_once() {
    let server = FakeServer::start(|_, _| {
        ResponseTemplate::new(307).insert_header("location", "/api/v1/logs/batch")
    })
    .await;
    let client = server.client().delivery_timeout(Duration::ZERO).build().unwrap();
    let sent = client.send(Event::new("a", "A")).await;
    let requests = server.server.received_requests().await.unwrap();
    assert!(requests.len() <= 2, "{requests:?}: {sent:?}");
    let message = client.stats().last_problem.unwrap().message;
    assert!(message.contains("a circle of redirects"), "{message}");
}

#[tokio::test]
async fn own_headers_are_sent_with_every_request() {
    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let client = server.client().header("X-Tenant", "a").header("user-agent", "mine");
    let client = client.build().unwrap();
    client.send(Event::new("a", "A")).await.unwrap();
    assert!(client.query().fetch().await.is_err(), "the simulated server has no stored events");
    for request in server.server.received_requests().await.unwrap() {
        assert_eq!(
            (&request.headers["x-tenant"], &request.headers["user-agent"]),
            (&"a".parse().unwrap(), &"mine".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn a_new_key_in_the_key_file_is_used_at_the_next_attempt() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "old").unwrap();
    let server = FakeServer::start({
        let path = path.clone();
        move |n, seen| {
            if n == 2 {
                std::fs::write(&path, "new-key").unwrap();
            }
            if n < 3 { refused(401) } else { accepted(seen) }
        }
    })
    .await;
    let client = server.client().api_key_file(&path).build().unwrap();
    client.send(Event::new("a", "A")).await.unwrap();
    let requests = server.server.received_requests().await.unwrap();
    let keys: Vec<_> =
        requests.iter().map(|r| r.headers["authorization"].to_str().unwrap()).collect();
    assert_eq!(keys, ["Bearer old", "Bearer old", "Bearer old", "Bearer new-key"]);
    assert_eq!(client.stats().failed_requests, 3);
}

#[tokio::test]
async fn a_reqwest_client_of_the_program_sends_all_requests() {
    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let own = reqwest::Client::builder().user_agent("my program").build().unwrap();
    let client = server.client().http_client(own).api_key("secret").build().unwrap();
    client.send(Event::new("a", "A")).await.unwrap();
    assert!(client.query().fetch().await.is_err(), "the simulated server has no stored events");
    let requests = server.server.received_requests().await.unwrap();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert_eq!(request.headers["user-agent"], "my program");
        assert_eq!(request.headers["authorization"], "Bearer secret");
    }
    assert_eq!(client.stats().delivered, 1);
}

#[tokio::test]
async fn a_key_file_that_becomes_invalid_is_reported_once_until_it_is_valid() {
    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "first").unwrap();
    let reports = Arc::new(Mutex::new(Vec::new()));
    let collected = Arc::clone(&reports);
    let hook = move |problem: &str| collected.lock().unwrap().push(problem.to_owned());
    let client = server.client().api_key_file(&path).on_problem(hook).build().unwrap();
    for key in ["", "a b"] {
        std::fs::write(&path, key).unwrap();
        client.send(Event::new("a", "A")).await.unwrap();
    }
    assert!(client.stats().last_problem.unwrap().message.contains("visible ASCII"));
    std::fs::write(&path, "second").unwrap();
    client.send(Event::new("a", "A")).await.unwrap();
    assert_eq!(client.stats().last_problem, None);
    let _ = client.shutdown().await;
    let reports = reports.lock().unwrap().clone();
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert!(report.starts_with("the previous API key is used: api_key_file "), "{report}");
    assert!(report.ends_with("the key is empty"), "{report}");
}
