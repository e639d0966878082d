//! Queries as they go out, and answers as they come in.

use eyego_log_client::{Client, Order, ReadError};
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
    let logs = client.query().user("ada & co/ü+").action("A").since(time).until(time);
    let logs = logs.metadata("cart.items", 2).limit(7).page(3).order(Order::Ascending);
    let page = logs.fetch().await.unwrap();
    assert_eq!(page.data[0].metadata.as_json(), r#"{"n":1}"#);
    assert!(page.next_cursor.is_none());
}

#[tokio::test]
async fn a_stream_goes_through_all_pages() {
    let (client, server) = client_and_server().await;
    let mounted = [
        (None, page(&[entry(1), entry(2)], Some(&cursor(2)))),
        (Some(cursor(2)), page(&[entry(3)], Some(&cursor(3)))),
        (Some(cursor(3)), page(&[], None)),
    ];
    for (cursor, answer) in mounted {
        let mock = Mock::given(path("/api/v1/logs"));
        let mock = match cursor {
            Some(cursor) => mock.and(query_param("cursor", cursor)),
            None => mock.and(query_param_is_missing("cursor")),
        };
        mock.respond_with(answer).mount(&server).await;
    }
    let logs: Vec<_> = client.query().stream().collect().await;
    assert_eq!(logs.len(), 3);
    let mut stream = client.query().stream();
    let mut count = 0;
    while let Some(log) = stream.next().await {
        assert!(log.is_ok());
        count += 1;
    }
    assert_eq!(count, 3);
}

#[tokio::test]
async fn errors_say_all_that_the_server_said() {
    let (client, server) = client_and_server().await;
    let body = json!({"status": "fail", "message": "limit must be …",
        "errors": [{"path": "limit", "message": "limit must be …"}]});
    let answer =
        ResponseTemplate::new(400).set_body_json(body).insert_header("x-request-id", "r-1");
    Mock::given(path("/api/v1/logs")).respond_with(answer).mount(&server).await;
    let error = client.query().limit(5000).fetch().await.unwrap_err();
    let status = error.status().unwrap();
    assert_eq!((status.status, status.request_id.as_deref()), (400, Some("r-1")));
    assert_eq!(status.errors.iter().next().unwrap().path, "limit");
    assert!(!error.is_retryable());
    assert_eq!(error.to_string(), "the server answered 400: limit must be … (request r-1)");

    let fault = client.query().metadata("", "x").fetch().await.unwrap_err();
    assert_eq!(fault.status().unwrap().status, 400);
}

#[tokio::test]
async fn what_is_not_there_is_none_and_what_makes_no_sense_is_shown() {
    let (client, server) = client_and_server().await;
    let id = format!("{:024x}", 7).parse().unwrap();
    assert!(client.query().get(id).await.unwrap().is_none());
    Mock::given(path(format!("/api/v1/logs/{id}")))
        .respond_with(ResponseTemplate::new(200).set_body_string("<html>"))
        .mount(&server)
        .await;
    let error = client.query().get(id).await.unwrap_err();
    assert!(
        matches!(&error, ReadError::UnexpectedResponse(text) if text.contains("<html>")),
        "{error}"
    );
    assert!(error.is_retryable());

    let nobody = Client::builder("http://127.0.0.1:1").build().unwrap();
    assert!(matches!(nobody.query().fetch().await, Err(ReadError::NoResponse(_))));
}
