//! The tail with a server that breaks off, hangs, refuses and restarts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eyego_log_client::{Client, LogEntry, RequestError, Tail, TailItem};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::server::quick;

/// What a server does with one connection: it writes this, and then closes the connection or keeps
/// it open.
struct Script {
    text: String,
    keeps_open: bool,
}

fn closing(text: impl Into<String>) -> Script {
    Script { text: text.into(), keeps_open: false }
}

fn open(text: impl Into<String>) -> Script {
    Script { text: text.into(), keeps_open: true }
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

fn event(n: u32) -> Value {
    json!({"id": format!("{n:024x}"), "userId": "ada", "action": "A",
        "timestamp": "2026-01-14T12:00:00.000Z", "metadata": {"n": n}})
}

fn log(n: u32) -> String {
    format!("event: log\nid: t{n}\ndata: {}\n\n", event(n))
}

/// A page of the list, newest first.
fn page(numbers: impl IntoIterator<Item = u32>) -> String {
    let data: Vec<_> = numbers.into_iter().map(event).collect();
    let body = json!({"status": "success", "results": data.len(), "page": 1, "data": data,
        "nextCursor": null});
    let body = body.to_string();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn refusal(status: u16) -> String {
    let kind = if status < 500 { "fail" } else { "error" };
    let body = json!({"status": kind, "message": format!("refused with {status}")}).to_string();
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nretry-after: 0\r\n\r\n{body}", body.len())
}

/// Runs one script for each connection. Returns the targets of the requests.
async fn scripted(scripts: impl IntoIterator<Item = Script>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut scripts: VecDeque<Script> = scripts.into_iter().collect();
    let targets = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&targets);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Some(script) = scripts.pop_front() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            let head = String::from_utf8_lossy(&request[..read]).into_owned();
            let target = head.split(' ').nth(1).unwrap_or_default();
            seen.lock().unwrap().push(target.to_owned());
            stream.write_all(script.text.as_bytes()).await.unwrap();
            if script.keeps_open {
                open.push(stream);
            } else {
                let _ = stream.shutdown().await;
            }
        }
        std::future::pending::<()>().await;
    });
    (quick(&url).build().unwrap(), targets)
}

fn number(entry: &LogEntry) -> u64 {
    entry.metadata.to_map()["n"].as_u64().unwrap()
}

async fn next(tail: &mut Tail) -> Option<Result<TailItem, RequestError>> {
    tokio::time::timeout(Duration::from_secs(20), tail.next_item())
        .await
        .unwrap_or_else(|_| panic!("{tail:?}"))
}

/// Takes events until there are `count`, and counts the interruptions.
async fn events(tail: &mut Tail, count: usize) -> (Vec<u64>, usize) {
    let (mut numbers, mut interruptions) = (Vec::new(), 0);
    while numbers.len() < count {
        match next(tail).await.unwrap().unwrap() {
            TailItem::Event(entry) => numbers.push(number(&entry)),
            TailItem::Interrupted(_) => interruptions += 1,
            item => panic!("{item:?}"),
        }
    }
    (numbers, interruptions)
}

#[tokio::test]
async fn a_tail_resumes_after_the_last_event_that_it_yielded() {
    let torn = log(3);
    let scripts = [
        closing(format!("{STREAM}: hello\n\n{}{}{}", log(1), log(2), &torn[..torn.len() / 2])),
        closing(refusal(503)),
        closing("HTTP/1.1 502 X\r\ncontent-length: 3\r\n\r\n???"),
        closing(""),
        open(format!("{STREAM}{}{}", log(3), log(4))),
    ];
    let (client, targets) = scripted(scripts).await;
    let mut tail = client.query().user("ada & co").tail();
    let (numbers, interruptions) = events(&mut tail, 4).await;
    assert_eq!((numbers, interruptions), (vec![1, 2, 3, 4], 4));
    assert_eq!(tail.token(), Some("t4"));
    let targets = targets.lock().unwrap().clone();
    assert_eq!(targets[0], "/api/v1/logs/tail?userId=ada%20%26%20co");
    for target in &targets[1..] {
        assert_eq!(target, "/api/v1/logs/tail?userId=ada%20%26%20co&after=t2");
    }
}

#[tokio::test]
async fn stored_events_come_first_and_nothing_that_is_stored_meanwhile_is_missed_or_repeated() {
    let scripts = [
        closing(format!("{STREAM}id: t0\n\n")),
        // Instead of the page.
        closing(refusal(503)),
        // The page contains event 2, too.
        closing(format!("{STREAM}{}{}", log(2), log(3))),
        closing(page([2, 1])),
        open(format!("{STREAM}{}", log(4))),
    ];
    let (client, targets) = scripted(scripts).await;
    let mut tail = client.query().tail().last(2);
    assert_eq!(events(&mut tail, 1).await, (vec![1], 1));
    assert_eq!(tail.token(), None);
    assert_eq!(events(&mut tail, 1).await, (vec![2], 0));
    assert_eq!(tail.token(), Some("t0"));
    assert_eq!(events(&mut tail, 2).await, (vec![3, 4], 1));
    let targets = targets.lock().unwrap().clone();
    let (tail, list) = ("/api/v1/logs/tail", "/api/v1/logs?limit=2");
    let (first, second) = (format!("{tail}?after=t0"), format!("{tail}?after=t3"));
    assert_eq!(targets, [tail, list, &first, list, &second]);
}

#[tokio::test]
async fn too_many_stored_events_are_refused() {
    let (client, targets) = scripted([]).await;
    let mut tail = client.query().tail().last(1001);
    let error = next(&mut tail).await.unwrap().unwrap_err();
    let message = &error.status().unwrap().message;
    assert_eq!(message, "last must be a whole number from 0 to 1000");
    assert!(next(&mut tail).await.is_none() && targets.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_tail_continues_where_an_earlier_one_was() {
    let (client, targets) = scripted([open(format!("{STREAM}{}", log(8)))]).await;
    let mut tail = client.query().tail().last(5).after("t7");
    assert_eq!(events(&mut tail, 1).await.0, [8]);
    assert_eq!(*targets.lock().unwrap(), ["/api/v1/logs/tail?after=t7"]);
}

#[tokio::test]
async fn a_position_without_an_event_is_resumed_too() {
    let scripts = [closing(format!("{STREAM}id: t0\n\n")), open(format!("{STREAM}{}", log(1)))];
    let (client, targets) = scripted(scripts).await;
    let mut tail = client.query().tail();
    assert_eq!(events(&mut tail, 1).await, (vec![1], 1));
    assert_eq!(targets.lock().unwrap()[1], "/api/v1/logs/tail?after=t0");
}

#[tokio::test]
async fn skipped_events_are_counted() {
    let text = format!("{STREAM}{}event: skipped\ndata: {{\"count\": 41}}\n\n", log(1));
    let later = "event: later\ndata: ?\n\n";
    let (client, _) = scripted([open(format!("{text}{later}{}", log(43)))]).await;
    let items: Vec<_> = client.query().tail().take(3).map(Result::unwrap).collect().await;
    assert!(matches!(items[0], TailItem::Event(_)));
    assert_eq!(items[1], TailItem::Skipped(41));
    assert!(matches!(&items[2], TailItem::Event(entry) if number(entry) == 43));
}

#[tokio::test]
async fn a_refusal_that_no_attempt_resolves_ends_the_tail() {
    for status in [400, 401, 403, 404, 410, 501] {
        let scripts = [closing(format!("{STREAM}{}", log(1))), closing(refusal(status))];
        let (client, targets) = scripted(scripts).await;
        let mut tail = client.query().tail();
        assert_eq!(events(&mut tail, 1).await.0, [1]);
        assert!(matches!(next(&mut tail).await, Some(Ok(TailItem::Interrupted(_)))));
        let error = next(&mut tail).await.unwrap().unwrap_err();
        let found = error.status().unwrap();
        assert_eq!(
            (found.status, found.message.clone()),
            (status, format!("refused with {status}"))
        );
        assert!(next(&mut tail).await.is_none());
        assert_eq!(targets.lock().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_filter_that_is_invalid_ends_the_tail() {
    let (client, targets) = scripted([]).await;
    let mut tail = client.query().metadata("a.b.c.d.e.f.g.h.i", 1).tail();
    assert_eq!(next(&mut tail).await.unwrap().unwrap_err().status().unwrap().status, 400);
    assert!(next(&mut tail).await.is_none() && targets.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_shutdown_ends_the_tail() {
    let (client, _) = scripted([open(format!("{STREAM}{}", log(1)))]).await;
    let mut tail = client.query().tail();
    assert_eq!(events(&mut tail, 1).await.0, [1]);
    assert!(client.shutdown().await.is_settled());
    assert_eq!(next(&mut tail).await, Some(Err(RequestError::Closed)));
    assert!(next(&mut tail).await.is_none());
}

#[tokio::test]
async fn dropping_a_tail_closes_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = quick(&format!("http://{}", listener.local_addr().unwrap())).build().unwrap();
    let mut tail = client.query().tail();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(format!("{STREAM}{}", log(1)).as_bytes()).await.unwrap();
        stream
    };
    let (mut stream, first) = tokio::join!(server, next(&mut tail));
    assert!(matches!(first, Some(Ok(TailItem::Event(_)))));
    drop(tail);
    let closed = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut [0; 16])).await;
    assert!(matches!(closed.unwrap(), Ok(0) | Err(_)));
}
