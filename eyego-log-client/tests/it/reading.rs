//! Queries: their URLs, and the handling of responses.

use eyego_log_client::{Client, ExportFormat, Order, RequestError};
use futures_util::StreamExt;
use serde_json::{Value, json};
use wiremock::matchers::{method, path, query_param, query_param_is_missing};
use wiremock::{Mock, MockServer, ResponseTemplate};

fn entry(n: u32) -> Value {
    json!({"id": format!("{n:024x}"), "userId": "ada", "action": "A",
        "timestamp": "2026-01-14T12:00:00.000Z", "metadata": {"n": n}})
}

fn cursor(n: u32) -> String {
    let log = serde_json::from_value(entry(n)).unwrap();
    eyego_log_client::Cursor::from(&log).to_string()
}

fn page(data: &[Value], next: Option<&str>) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({"status": "success", "results": data.len(),
        "page": 1, "data": data, "nextCursor": next}))
}

async fn client_and_server() -> (Client, MockServer) {
    let server = MockServer::start().await;
    (Client::builder(server.uri()).build().unwrap(), server)
}

#[tokio::test]
async fn every_filter_reaches_the_server() {
    let (client, server) = client_and_server().await;
    let time: eyego_log_client::Timestamp = "2026-01-14T12:00:00Z".parse().unwrap();
    Mock::given(method("GET"))
        .and(path("/api/v1/logs"))
        .and(query_param("userId", "ada & co/ü+"))
        .and(query_param("action", "A"))
        .and(query_param("from", "2026-01-14T12:00:00.000Z"))
        .and(query_param("to", "2026-01-14T12:00:00.000Z"))
        .and(query_param("metadata.cart.items", "2"))
        .and(query_param("limit", "7"))
        .and(query_param("page", "3"))
        .and(query_param("order", "asc"))
        .respond_with(page(&[entry(1)], None))
        .mount(&server)
        .await;
    let query = client.query().user("ada & co/ü+").action("A").since(time).until(time);
    let query = query.metadata("cart.items", 2).limit(7).page(3).order(Order::Ascending);
    let page = query.fetch().await.unwrap();
    assert_eq!(page.data[0].metadata.as_json(), r#"{"n":1}"#);
    assert!(page.next_cursor.is_none());
}

#[tokio::test]
async fn a_stream_reads_all_pages() {
    let (client, server) = client_and_server().await;
    let mounted = [
        (None, page(&[entry(1), entry(2)], Some(&cursor(2)))),
        (Some(cursor(2)), page(&[entry(3)], Some(&cursor(3)))),
        (Some(cursor(3)), page(&[], None)),
    ];
    for (cursor, response) in mounted {
        let mock = Mock::given(path("/api/v1/logs"));
        let mock = match cursor {
            Some(cursor) => mock.and(query_param("cursor", cursor)),
            None => mock.and(query_param_is_missing("cursor")),
        };
        mock.respond_with(response).mount(&server).await;
    }
    let events: Vec<_> = client.query().stream().collect().await;
    assert_eq!(events.len(), 3);
    let mut stream = client.query().stream();
    let mut count = 0;
    while let Some(entry) = stream.next_event().await {
        assert!(entry.is_ok());
        count += 1;
    }
    assert_eq!(count, 3);
}

#[tokio::test]
async fn errors_contain_everything_that_the_server_sent() {
    let (client, server) = client_and_server().await;
    let body = json!({"status": "fail", "message": "limit must be …",
        "errors": [{"path": "limit", "message": "limit must be …"}]});
    let response =
        ResponseTemplate::new(400).set_body_json(body).insert_header("x-request-id", "r-1");
    Mock::given(path("/api/v1/logs")).respond_with(response).mount(&server).await;
    let error = client.query().limit(5000).fetch().await.unwrap_err();
    let status = error.status().unwrap();
    assert_eq!((status.status, status.request_id.as_deref()), (400, Some("r-1")));
    assert_eq!(status.errors.iter().next().unwrap().path, "limit");
    assert!(!error.is_retryable());
    assert_eq!(
        error.to_string(),
        "the server responded with status 400: limit must be … (request r-1)"
    );

    let invalid = client.query().metadata("", "x").fetch().await.unwrap_err();
    assert_eq!(invalid.status().unwrap().status, 400);
}

#[tokio::test]
async fn missing_events_and_unexpected_responses_are_distinguished() {
    let (client, server) = client_and_server().await;
    let id = format!("{:024x}", 7).parse().unwrap();
    // A proxy does not know whether the event exists.
    let error = client.query().get(id).await.unwrap_err();
    assert!(matches!(error, RequestError::UnexpectedResponse(_)), "{error}");
    let missing = json!({"status": "fail", "message": "no event has this id"});
    let missing = ResponseTemplate::new(404).set_body_json(missing);
    let matching = || path(format!("/api/v1/logs/{id}"));
    Mock::given(matching()).respond_with(missing).up_to_n_times(1).mount(&server).await;
    assert!(client.query().get(id).await.unwrap().is_none());
    Mock::given(matching())
        .respond_with(ResponseTemplate::new(200).set_body_string("<html>"))
        .mount(&server)
        .await;
    let error = client.query().get(id).await.unwrap_err();
    assert!(
        matches!(&error, RequestError::UnexpectedResponse(text) if text.contains("<html>")),
        "{error}"
    );
    assert!(error.is_retryable());

    let long = client.query().user("x".repeat(100_000)).fetch().await.unwrap_err();
    assert_eq!((long.status().unwrap().status, long.is_retryable()), (414, false));

    let unreachable = Client::builder("http://127.0.0.1:1").build().unwrap();
    assert!(matches!(unreachable.query().fetch().await, Err(RequestError::NoResponse(_))));
}

#[tokio::test]
async fn a_503_of_a_proxy_is_described_once() {
    let (client, server) = client_and_server().await;
    Mock::given(path("/api/v1/logs")).respond_with(ResponseTemplate::new(503)).mount(&server).await;
    let error = client.query().fetch().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server responded with status 503: no body, not from an eyego-log server"
    );
}

#[tokio::test]
async fn an_invalid_filter_or_column_is_refused_without_a_server() {
    let client = Client::disabled();
    let filtered = client.query().metadata("a.b.c.d.e.f.g.h.i", 1);
    let error = filtered.fetch().await.unwrap_err();
    assert_eq!(error.status().unwrap().status, 400);
    let export = client.query().export(ExportFormat::Csv).columns(["page", "i,s"]);
    let error = export.start().await.unwrap_err();
    let message = "columns must be paths without a comma, not \"i,s\"";
    assert_eq!(error.status().unwrap().message, message);
}

#[test]
fn a_client_can_be_used_after_a_panic_was_caught() {
    fn assert_unwind_safe<T: std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
    assert_unwind_safe::<Client>();
    #[cfg(feature = "blocking")]
    assert_unwind_safe::<eyego_log_client::blocking::Client>();
}
