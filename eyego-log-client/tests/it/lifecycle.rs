//! Overflow, flush, shutdown, drop and panics.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use eyego_log_client::transport::http::header::CONTENT_TYPE;
use eyego_log_client::transport::http::{HeaderValue, StatusCode};
use eyego_log_client::transport::{
    BoxFuture, Bytes, Request, Response, ResponseBody, StreamingResponse, Transport, TransportError,
};
use eyego_log_client::{Client, ClientBuilder, Event, LogError, LossReason, Overflow, TailItem};
use serde_json::json;

use crate::eventually::{TIMEOUT, eventually};
use crate::server::{FakeServer, accepted, quick};

/// Never responds.
struct Hung;

impl Transport for Hung {
    fn send(&self, _: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(std::future::pending())
    }
}

/// Creates a builder for a client that delivers nothing and has room for only a
/// few events.
fn hung() -> ClientBuilder {
    quick("http://hung")
        .transport(Hung)
        .max_event_bytes(1024)
        .max_batch_bytes(1024)
        .max_buffer_bytes(8192)
}

fn event(n: usize) -> Event<'static, serde_json::Value> {
    Event::new(format!("user-{n}"), "A").metadata(json!({"text": "x".repeat(300)}))
}

#[test]
fn drop_newest_is_the_default() {
    let reported = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reported);
    let hook = move |loss: &eyego_log_client::Loss<'_>| {
        counter.fetch_add(loss.count(), Ordering::Relaxed);
    };
    let client = hung().on_loss(hook).shutdown_timeout(Duration::ZERO).build().unwrap();
    let refused = (0..100).filter(|n| client.log(event(*n)) == Err(LogError::Full)).count();
    let stats = client.stats();
    assert!(refused > 70);
    assert_eq!(stats.accepted, 100);
    assert_eq!(stats.lost.get(LossReason::Overflow), refused as u64);
    eventually("every loss is reported", || reported.load(Ordering::Relaxed) == refused);
    assert!(stats.is_balanced() && stats.pending_bytes <= 8192, "{stats:?}");
}

#[test]
fn drop_oldest_accepts_every_event() {
    let client = hung().overflow(Overflow::DropOldest).shutdown_timeout(Duration::ZERO);
    let client = client.build().unwrap();
    assert!((0..100).all(|n| client.log(event(n)).is_ok()));
    let stats = client.stats();
    assert!(stats.lost.get(LossReason::Overflow) > 70, "{stats:?}");
    assert!(stats.is_balanced() && stats.pending_bytes <= 8192);
}

#[test]
fn block_gives_up_after_its_timeout() {
    let wait = Duration::from_millis(100);
    let client = hung().overflow(Overflow::Block(wait)).shutdown_timeout(Duration::ZERO);
    let client = client.build().unwrap();
    while client.stats().pending_bytes < 7600 {
        client.log(event(0)).unwrap();
    }
    let begin = Instant::now();
    assert_eq!(client.log(event(1)), Err(LogError::Full));
    assert!(begin.elapsed() >= wait && begin.elapsed() < TIMEOUT);
}

#[tokio::test(flavor = "multi_thread")]
async fn block_continues_when_there_is_room() {
    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let client = server
        .client()
        .max_event_bytes(1024)
        .max_batch_bytes(1024)
        .max_buffer_bytes(4096)
        .overflow(Overflow::Block(TIMEOUT))
        .build()
        .unwrap();
    let logging = client.clone();
    let all = tokio::task::spawn_blocking(move || (0..200).all(|n| logging.log(event(n)).is_ok()));
    assert!(all.await.unwrap());
    assert!(client.flush().await.is_settled());
    assert_eq!(client.stats().delivered, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_covers_events_that_any_thread_logged_before_it() {
    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let client = server.client().linger(Duration::from_secs(60)).build().unwrap();
    let logged = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (client, logged) = (client.clone(), Arc::clone(&logged));
            std::thread::spawn(move || {
                for n in 0..3000 {
                    client.log(Event::new(format!("user-{n}"), "A")).unwrap();
                    logged.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for _ in 0..20 {
        let before = logged.load(Ordering::SeqCst);
        let report = client.flush().await;
        assert!(report.is_settled() && report.stats.is_balanced());
        assert!(report.stats.delivered >= before);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(client.flush().await.is_settled());
    assert_eq!(client.stats().delivered, 12_000);
}

#[tokio::test]
async fn flush_and_shutdown_keep_their_deadlines_when_the_server_hangs() {
    let client = hung().request_timeout(2 * TIMEOUT).build().unwrap();
    for n in 0..5 {
        client.log(event(n)).unwrap();
    }
    let delivery = client.send(event(5));
    let begin = Instant::now();
    let report = client.flush_within(Duration::from_millis(100)).await;
    assert_eq!((report.unsettled, report.is_settled()), (6, false));
    let report = client.shutdown_within(Duration::from_millis(100)).await;
    assert!(begin.elapsed() < TIMEOUT);
    assert_eq!(report.unsettled, 6);
    assert!(!report.is_settled() && !report.all_delivered());
    assert_eq!(report.stats.lost.get(LossReason::Shutdown), 6);
    assert!(report.stats.is_balanced() && report.stats.pending == 0);
    assert!(delivery.await.is_err());
    assert_eq!(client.log(event(6)), Err(LogError::Closed));
    assert!(client.stats().is_balanced());
    assert!(client.flush().await.is_settled());
    let second = client.shutdown().await;
    assert!(second.is_settled() && !second.all_delivered(), "{second:?}");
    assert!(client.query().fetch().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_waits_for_delivery_outside_a_runtime_but_not_inside() {
    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let builder = server.client().linger(Duration::from_secs(60));
    let outside = builder.build().unwrap();
    let inside = hung().shutdown_timeout(2 * TIMEOUT).build().unwrap();
    std::thread::spawn(move || {
        outside.log(event(0)).unwrap();
        drop(outside);
    })
    .join()
    .unwrap();
    assert_eq!(server.seen().len(), 1);

    inside.log(event(0)).unwrap();
    let begin = Instant::now();
    drop(inside);
    assert!(begin.elapsed() < TIMEOUT);
}

/// Panics in the first call and in the future of the second, then works.
struct Panics(AtomicUsize);

impl Transport for Panics {
    fn send(&self, _: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => panic!("in the call"),
            1 => Box::pin(async { panic!("in the future") }),
            _ => Box::pin(async {
                let body = json!({"accepted": 1, "rejected": []}).to_string();
                let mut response = Response::new(body.into());
                *response.status_mut() = StatusCode::ACCEPTED;
                Ok(response)
            }),
        }
    }
}

#[tokio::test]
async fn a_transport_that_panics_loses_nothing() {
    let client = quick("http://p").transport(Panics(AtomicUsize::new(0))).build().unwrap();
    client.send(event(0)).await.unwrap();
    assert_eq!(client.stats().delivered, 1);
}

#[tokio::test]
async fn a_transport_that_panics_is_an_error_of_calls_that_read() {
    let client = quick("http://p").transport(Panics(AtomicUsize::new(0))).build().unwrap();
    for message in ["the transport panicked: in the call", "the transport panicked: in the future"]
    {
        let error = client.query().fetch().await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains(message), "{error}");
    }
}

/// Panics when a stream is opened, and then while its body is read.
struct PanicsInStream(AtomicUsize);

impl Transport for PanicsInStream {
    fn send(&self, _: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(std::future::pending())
    }

    fn send_streaming(
        &self,
        _: Request,
    ) -> BoxFuture<'_, Result<StreamingResponse, TransportError>> {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "in the call");
        let body: Box<dyn ResponseBody> = Box::new(PanickingBody);
        let mut response = StreamingResponse::new(body);
        let media_type = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(CONTENT_TYPE, media_type);
        Box::pin(async { Ok(response) })
    }
}

struct PanickingBody;

impl ResponseBody for PanickingBody {
    fn next_piece(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransportError>> {
        panic!("in the body")
    }
}

#[tokio::test]
async fn a_tail_survives_a_transport_that_panics() {
    let transport = PanicsInStream(AtomicUsize::new(0));
    let client = quick("http://p").transport(transport).build().unwrap();
    let mut tail = client.query().tail();
    for message in ["the transport panicked: in the call", "the transport panicked: in the body"] {
        match tail.next_item().await {
            Some(Ok(TailItem::Interrupted(error))) => {
                assert!(error.to_string().contains(message), "{error}");
            }
            item => panic!("{item:?}"),
        }
    }
}

/// Logs an event when it is dropped.
struct LogsAtEnd(Client);

impl Drop for LogsAtEnd {
    fn drop(&mut self) {
        self.0.log(event(1)).unwrap();
    }
}

#[tokio::test]
async fn a_destructor_that_runs_while_its_thread_ends_can_log() {
    thread_local! {
        static AT_END: RefCell<Option<LogsAtEnd>> = const { RefCell::new(None) };
    }
    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let client = server.client().build().unwrap();
    let other = client.clone();
    let thread = std::thread::spawn(move || {
        AT_END.set(Some(LogsAtEnd(other.clone())));
        // The memory that this call leaves for the thread is released before.
        other.log(event(0)).unwrap();
    });
    thread.join().unwrap();
    assert_eq!(client.shutdown().await.stats.delivered, 2);
}

#[tokio::test]
async fn clients_are_independent_and_clones_are_not() {
    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let (one, other) = (server.client().build().unwrap(), server.client().build().unwrap());
    let _ = one.shutdown().await;
    other.send(event(0)).await.unwrap();
    let copy: Client = other.clone();
    drop(other);
    copy.send(event(1)).await.unwrap();
}
