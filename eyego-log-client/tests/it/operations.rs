//! Statistics, readiness, dead letters, erasures and waiting for storage: what the client sends,
//! and what it makes of the responses.

use std::time::{Duration, Instant};

use eyego_log_client::{
    Client, ErasureState, Event, Interval, PartState, Replay, RequestError, SendError,
    StoreOutcome, blocking,
};
use serde_json::{Value, json};
use wiremock::matchers::{body_json, method, path, query_param};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use crate::server::quick;

const ID: &str = "69682d8d81847b87ab93264b";

async fn client_and_server() -> (Client, MockServer) {
    let server = MockServer::builder().start().await;
    (quick(&server.uri()).build().unwrap(), server)
}

fn fail(status: u16, message: &str) -> ResponseTemplate {
    let kind = if status < 500 { "fail" } else { "error" };
    ResponseTemplate::new(status).set_body_json(json!({"status": kind, "message": message}))
}

fn ok(body: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

fn erasure(state: &str) -> Value {
    json!({"id": ID, "userId": "a/b ü", "requestedAt": "2026-01-14T23:58:05.443Z", "state": state,
        "removed": {"store": 7, "deadLetters": 1}, "completedAt": null})
}

#[tokio::test]
async fn statistics_are_typed() {
    let (client, server) = client_and_server().await;
    let data = json!({"total": 47, "users": 3, "approximate": true, "interval": "1d",
        "buckets": [{"start": "2026-03-28T23:00:00.000Z", "count": 23, "by": {"CLICK": 20}, "other": 3}],
        "top": [{"value": "CLICK", "count": 42, "users": 3}], "other": 5, "a later field": 1});
    Mock::given(method("GET"))
        .and(path("/api/v1/stats"))
        .and(query_param("userId", "ada"))
        .and(query_param("from", "2026-03-28T00:00:00.000Z"))
        .and(query_param("to", "2026-03-30T00:00:00.000Z"))
        .and(query_param("interval", "1d"))
        .and(query_param("tz", "Europe/Berlin"))
        .and(query_param("by", "metadata.cart.plan"))
        .and(query_param("top", "5"))
        .respond_with(ok(json!({"status": "success", "data": data})))
        .expect(2)
        .mount(&server)
        .await;
    let time = |text: &str| text.parse::<eyego_log_client::Timestamp>().unwrap();
    let (from, to) = (time("2026-03-28T00:00:00Z"), time("2026-03-30T00:00:00Z"));
    let query = client.query().user("ada").since(from).until(to).stats().interval(Interval::Day);
    let query = query.time_zone("Europe/Berlin").by_action().by_metadata("cart.plan").top(5);
    let stats = query.fetch().await.unwrap();
    assert_eq!((stats.total, stats.users, stats.approximate, stats.other), (47, 3, true, 5));
    assert_eq!((stats.interval.as_str(), stats.top[0].count), ("1d", 42));
    let bucket = &stats.buckets[0];
    assert_eq!((bucket.start.to_string(), bucket.count), ("2026-03-28T23:00:00.000Z".into(), 23));
    assert_eq!((bucket.by["CLICK"], bucket.other), (20, 3));

    let blocked = tokio::task::spawn_blocking(move || {
        let client = blocking::Client::from(client);
        let query = client.query().user("ada").since(from).until(to);
        let query = query.stats().interval(Interval::Day).time_zone("Europe/Berlin").top(5);
        query.by_metadata("cart.plan").fetch()
    });
    assert_eq!(blocked.await.unwrap().unwrap(), stats);
    // The server says which parameters a route does not have.
    let requests = server.received_requests().await.unwrap();
    assert!(requests.iter().all(|request| !request.url.query().unwrap().contains("limit")));
}

#[tokio::test]
async fn a_server_that_is_not_ready_says_why() {
    let (client, server) = client_and_server().await;
    let body = json!({"status": "error", "message": "not ready: kafka: no broker",
        "parts": {"kafka": {"state": "down", "reason": "no broker at b:9092"},
            "mongodb": {"state": "up"}, "spool": {"state": "melting"}}});
    let response = ResponseTemplate::new(503).set_body_json(body);
    Mock::given(path("/health/ready")).respond_with(response).up_to_n_times(1).mount(&server).await;
    let readiness = client.readiness().await.unwrap();
    assert!(!readiness.is_ready && readiness.message.contains("no broker"), "{readiness:?}");
    let kafka = &readiness.parts["kafka"];
    assert_eq!(kafka.state, PartState::Down);
    assert_eq!(kafka.reason.as_deref(), Some("no broker at b:9092"));
    assert_eq!(readiness.parts["mongodb"].state, PartState::Up);
    assert_eq!(readiness.parts["spool"].state, PartState::Unknown);

    let proxy = ResponseTemplate::new(503).set_body_string("<html>no backend</html>");
    Mock::given(path("/health/ready")).respond_with(proxy).up_to_n_times(1).mount(&server).await;
    let error = client.readiness().await.unwrap_err();
    assert_eq!((error.status().unwrap().status, error.is_retryable()), (503, true));

    let body = json!({"status": "success", "message": "ready", "parts": {}});
    Mock::given(path("/health/ready")).respond_with(ok(body)).mount(&server).await;
    let client = blocking::Client::from(client);
    let readiness = tokio::task::spawn_blocking(move || client.readiness()).await.unwrap();
    assert!(readiness.unwrap().is_ready);
}

#[tokio::test]
async fn dead_letters_are_listed_read_and_replayed() {
    let (client, server) = client_and_server().await;
    let summary = json!({"id": ID, "code": "id_conflict", "message": "another event", "attempts": 2,
        "userId": null, "topic": "logs-topic", "partition": 3, "offset": 99,
        "queuedAt": "2026-01-14T12:00:00.000Z", "failedAt": "2026-01-14T12:00:01.000Z",
        "cutFrom": 70_000_000});
    let cursor = {
        let entry = json!({"id": ID, "userId": "u", "action": "A",
            "timestamp": "2026-01-14T12:00:01.000Z", "metadata": {}});
        eyego_log_client::Cursor::from(&serde_json::from_value(entry).unwrap())
    };
    let page = |next: Option<String>| {
        ok(json!({"status": "success", "results": 1, "data": [summary], "nextCursor": next}))
    };
    Mock::given(path("/api/v1/dead-letters"))
        .and(query_param("code", "id_conflict"))
        .and(query_param("from", "2026-01-14T00:00:00.000Z"))
        .and(query_param("to", "2026-01-15T00:00:00.000Z"))
        .and(query_param("limit", "1"))
        .and(query_param("cursor", cursor.to_string()))
        .respond_with(page(None))
        .mount(&server)
        .await;
    Mock::given(path("/api/v1/dead-letters"))
        .respond_with(page(Some(cursor.to_string())))
        .mount(&server)
        .await;
    let mut whole = summary.clone();
    whole["raw"] = json!("{oops");
    whole["nextOffset"] = json!(5);
    let mut rest = summary.clone();
    rest["rawBase64"] = json!("/wA=");
    let part = ok(json!({"status": "success", "data": rest}));
    let path_of_one = || Mock::given(path(format!("/api/v1/dead-letters/{ID}")));
    path_of_one().and(query_param("offset", "5")).respond_with(part).mount(&server).await;
    let found = ok(json!({"status": "success", "data": whole}));
    path_of_one().respond_with(found).mount(&server).await;
    for (body, response) in [
        (json!({"id": ID}), fail(409, "only the beginning of the record was kept")),
        (json!({"code": "not_json"}), ok(json!({"replayed": 3, "failed": 1, "remaining": 1}))),
        (json!({"all": true}), ok(json!({"replayed": 10_000, "failed": 0, "remaining": 5}))),
    ] {
        Mock::given(method("POST"))
            .and(path("/api/v1/dead-letters/replay"))
            .and(wiremock::matchers::header("content-type", "application/json"))
            .and(body_json(body))
            .respond_with(response)
            .mount(&server)
            .await;
    }

    let time = |text: &str| text.parse::<eyego_log_client::Timestamp>().unwrap();
    let query = client.dead_letters().code("id_conflict").since(time("2026-01-14T00:00:00Z"));
    let query = query.until(time("2026-01-15T00:00:00Z")).limit(1);
    let first = query.fetch().await.unwrap();
    assert_eq!(first.next_cursor, Some(cursor));
    let last = query.cursor(first.next_cursor.unwrap()).fetch().await.unwrap();
    assert!(last.next_cursor.is_none());
    let dead_letter = &last.data[0];
    assert_eq!((dead_letter.id.to_string().as_str(), dead_letter.attempts), (ID, 2));
    assert_eq!((dead_letter.partition, dead_letter.offset), (3, 99));
    assert_eq!((dead_letter.cut_from, dead_letter.raw.as_deref()), (Some(70_000_000), None));

    let id = ID.parse().unwrap();
    let whole = client.dead_letter(id).await.unwrap().unwrap();
    assert_eq!(whole.raw.as_deref(), Some(&b"{oops\xff\0"[..]));
    let error = client.replay_dead_letters(Replay::Id(id)).await.unwrap_err();
    assert_eq!((error.status().unwrap().status, error.is_retryable()), (409, false));
    let replayed = client.replay_dead_letters(Replay::Code("not_json".to_owned())).await.unwrap();
    assert_eq!((replayed.replayed, replayed.failed, replayed.remaining), (3, 1, 1));

    let client = blocking::Client::from(client);
    let blocked = tokio::task::spawn_blocking(move || {
        let page = client.dead_letters().limit(1).fetch()?;
        assert_eq!((page.data.len(), client.dead_letter(id)?.is_some()), (1, true));
        client.replay_dead_letters(Replay::All)
    });
    assert_eq!(blocked.await.unwrap().unwrap().remaining, 5);
}

#[tokio::test]
async fn an_erasure_is_requested_and_awaited() {
    let (client, server) = client_and_server().await;
    let data = |state: &str| json!({"status": "success", "data": erasure(state)});
    // wiremock decodes nothing: the path is as it was sent.
    Mock::given(method("DELETE"))
        .and(path("/api/v1/users/a%2Fb%20%C3%BC/logs"))
        .respond_with(ResponseTemplate::new(202).set_body_json(data("running")))
        .mount(&server)
        .await;
    let read = || Mock::given(method("GET")).and(path(format!("/api/v1/erasures/{ID}")));
    read().respond_with(ok(data("running"))).up_to_n_times(2).mount(&server).await;
    read().respond_with(fail(503, "busy")).up_to_n_times(1).mount(&server).await;
    read().respond_with(ok(data("done"))).mount(&server).await;
    let list =
        json!({"status": "success", "results": 1, "data": [erasure("done")], "nextCursor": null});
    Mock::given(path("/api/v1/erasures"))
        .and(query_param("limit", "7"))
        .respond_with(ok(list))
        .mount(&server)
        .await;

    let receipt = client.erase_user("a/b ü").await.unwrap();
    assert_eq!((receipt.user_id.as_str(), receipt.state), ("a/b ü", ErasureState::Running));
    let first = client.wait_for_erasure(receipt.id, Duration::ZERO).await.unwrap();
    assert_eq!(first.state, ErasureState::Running, "the timeout has passed");
    let done = client.wait_for_erasure(receipt.id, Duration::from_secs(30)).await.unwrap();
    assert_eq!(
        (done.state, done.removed.store, done.removed.dead_letters),
        (ErasureState::Done, 7, 1)
    );
    let listed = client.erasures().limit(7).fetch().await.unwrap();
    assert_eq!(listed.data, std::slice::from_ref(&done));
    assert_eq!(client.erasure(receipt.id).await.unwrap(), Some(done));
    let error =
        client.wait_for_erasure(format!("{:024}", 1).parse().unwrap(), Duration::from_secs(9));
    assert!(error.await.is_err());
}

#[tokio::test]
async fn a_user_that_no_url_can_name_is_not_erased() {
    let (client, server) = client_and_server().await;
    for user in ["", ".", ".."] {
        let error = client.erase_user(user).await.unwrap_err();
        let status = error.status().unwrap();
        assert_eq!(
            (status.status, status.errors.iter().next().unwrap().path.as_str()),
            (400, "userId")
        );
    }
    assert_eq!(server.received_requests().await.unwrap().len(), 0);
    assert_eq!(Client::disabled().erase_user("ada").await, Err(RequestError::Disabled));
}

/// Accepts batches, and responds to `wait=stored` with `responses` in turn.
async fn storing(responses: Vec<ResponseTemplate>) -> (Client, MockServer) {
    let (client, server) = client_and_server().await;
    let accepted = json!({"status": "success", "message": "", "accepted": 1, "rejected": []});
    Mock::given(path("/api/v1/logs/batch"))
        .respond_with(ResponseTemplate::new(202).set_body_json(accepted))
        .mount(&server)
        .await;
    for response in responses {
        Mock::given(method("POST"))
            .and(path("/api/v1/logs"))
            .and(query_param("wait", "stored"))
            .respond_with(response)
            .up_to_n_times(1)
            .mount(&server)
            .await;
    }
    (client, server)
}

fn queued() -> ResponseTemplate {
    let body = json!({"status": "success", "message": "Log queued successfully", "id": ID});
    ResponseTemplate::new(202).set_body_json(body)
}

#[tokio::test]
async fn an_event_is_awaited_until_it_is_stored() {
    let stored = ok(json!({"status": "success", "message": "Log stored", "id": ID}));
    let (client, server) = storing(vec![queued(), fail(503, "busy"), stored]).await;
    let event = Event::new("ada", "PAID").field("amount", 20);
    let outcome = client.send_stored(event, Duration::from_secs(30)).await.unwrap();
    assert_eq!(outcome, StoreOutcome::Stored(outcome.id()));
    let requests = server.received_requests().await.unwrap();
    let asked: Vec<&Request> =
        requests.iter().filter(|request| request.url.path() == "/api/v1/logs").collect();
    assert_eq!((requests.len(), asked.len()), (4, 3));
    let body: Value = serde_json::from_slice(&asked[2].body).unwrap();
    assert_eq!((&body["id"], &body["userId"]), (&json!(outcome.id()), &json!("ada")));
    assert_eq!(body["metadata"], json!({"amount": 20}));
    let stats = client.stats();
    assert_eq!((stats.accepted, stats.delivered), (1, 1), "the event is counted once");
}

#[tokio::test]
async fn an_event_that_is_not_stored_in_time_is_queued() {
    let (client, _server) = storing(vec![queued(), queued(), queued()]).await;
    let sent = client.send_stored(Event::new("ada", "PAID"), Duration::from_millis(50));
    let outcome = sent.await.unwrap();
    assert_eq!(outcome, StoreOutcome::Queued(outcome.id()));
    let sent = Client::disabled().send_stored(Event::new("ada", "PAID"), Duration::ZERO);
    assert!(matches!(sent.await, Ok(StoreOutcome::Excluded(_))));
}

#[tokio::test]
async fn a_response_of_another_server_does_not_confirm_that_an_event_is_stored() {
    let portal = ResponseTemplate::new(200).set_body_raw("<html>log in", "text/html");
    let (client, _server) = storing(vec![portal]).await;
    let outcome = client.send_stored(Event::new("ada", "PAID"), Duration::from_millis(80)).await;
    assert!(matches!(outcome, Ok(StoreOutcome::Queued(_))), "{outcome:?}");
}

#[tokio::test]
async fn waits_end_at_their_timeout_although_the_server_hangs() {
    let slow = queued().set_delay(Duration::from_secs(60));
    let (client, server) = storing(vec![slow.clone()]).await;
    Mock::given(method("GET")).respond_with(slow).mount(&server).await;
    let (begin, timeout) = (Instant::now(), Duration::from_millis(200));
    let outcome = client.send_stored(Event::new("ada", "PAID"), timeout).await;
    assert!(matches!(outcome, Ok(StoreOutcome::Queued(_))), "{outcome:?}");
    let error = client.wait_for_erasure(ID.parse().unwrap(), timeout).await.unwrap_err();
    assert!(matches!(&error, RequestError::NoResponse(_)), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10), "the request timeout is 15 s");
}

#[tokio::test]
async fn a_url_that_the_server_does_not_know_is_an_error() {
    let (client, server) = client_and_server().await;
    let id = ID.parse().unwrap();
    Mock::given(method("GET"))
        .respond_with(fail(404, "no such route: /x/api/v1/logs"))
        .mount(&server)
        .await;
    let errors = [
        client.query().get(id).await.err(),
        client.dead_letter(id).await.err(),
        client.erasure(id).await.err(),
    ];
    for error in errors {
        assert_eq!(error.unwrap().status().unwrap().status, 404);
    }
}

#[tokio::test]
async fn an_event_whose_id_is_taken_is_a_conflict() {
    let (client, _server) = storing(vec![fail(409, "another event"), fail(403, "ingest")]).await;
    let id = ID.parse().unwrap();
    let event = move || Event::new("ada", "PAID").id(id);
    let error = client.send_stored(event(), Duration::from_secs(9)).await.unwrap_err();
    assert_eq!(error, SendError::Conflict { id, message: "another event".to_owned() });
    let client = blocking::Client::from(client);
    let sent = move || client.send_stored(event(), Duration::from_secs(9));
    let error = tokio::task::spawn_blocking(sent).await.unwrap().unwrap_err();
    assert!(matches!(&error, SendError::Unconfirmed { .. }), "{error}");
    assert!(error.to_string().contains("status 403"), "{error}");
}
