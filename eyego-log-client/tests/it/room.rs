//! A full buffer: who keeps the event, who waits for room, and events that are
//! logged again after they were lost.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use eyego_log_client::testing::Recorder;
use eyego_log_client::transport::{BoxFuture, Request, Response, Transport, TransportError};
use eyego_log_client::{Client, ClientBuilder, Event, LogError, LossReason};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::server::quick;

/// Accepts everything once its gate is open.
#[derive(Clone)]
struct Gated {
    gate: Arc<Semaphore>,
    recorder: Recorder,
}

impl Transport for Gated {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(async move {
            // A closed semaphore is an open gate.
            let _ = self.gate.acquire().await;
            self.recorder.send(request).await
        })
    }
}

fn gated() -> (Gated, ClientBuilder) {
    let transport = Gated { gate: Arc::new(Semaphore::new(0)), recorder: Recorder::new() };
    let builder = quick("http://gated")
        .transport(transport.clone())
        .compression(false)
        .max_event_bytes(1024)
        .max_batch_bytes(1024)
        .max_buffer_bytes(8192);
    (transport, builder)
}

fn event(n: usize) -> Event<'static, serde_json::Value> {
    Event::new(format!("user-{n}"), "A").metadata(json!({"text": "x".repeat(300)}))
}

fn fill(client: &Client) -> u64 {
    while client.try_log(&event(0)).is_ok() {}
    client.stats().accepted
}

#[tokio::test]
async fn try_log_leaves_the_event_to_its_caller() {
    let (transport, builder) = gated();
    let client = builder.build().unwrap();
    let filled = fill(&client);
    let kept = event(1);
    assert_eq!(client.try_log(&kept), Err(LogError::Full));
    let stats = client.stats();
    assert_eq!((stats.accepted, stats.lost.total()), (filled, 0));
    transport.gate.close();
    assert!(client.flush().await.all_delivered());
    client.try_log(&kept).unwrap();
    let report = client.shutdown().await;
    assert!(report.all_delivered() && report.stats.delivered == filled + 1, "{report:?}");
    assert_eq!(client.try_log(&kept), Err(LogError::Closed));
    assert_eq!(client.stats().lost.total(), 0);
}

#[tokio::test]
async fn log_async_waits_for_room_without_blocking_its_runtime() {
    let (transport, builder) = gated();
    let client = builder.shutdown_timeout(Duration::from_secs(30)).build().unwrap();
    let filled = fill(&client);
    let waiting: Vec<_> = (0..200)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.log_async(event(n)).await })
        })
        .collect();
    // The runtime has one thread, which runs the tasks before it comes back here.
    tokio::task::yield_now().await;
    assert!(waiting.iter().all(|task| !task.is_finished()));
    transport.gate.close();
    for task in waiting {
        task.await.unwrap().unwrap();
    }
    let report = client.shutdown().await;
    assert!(report.all_delivered(), "{report:?}");
    assert_eq!(report.stats.delivered, filled + 200);
}

#[tokio::test]
async fn waiting_for_room_ends_at_its_timeout_and_at_shutdown() {
    let (_transport, builder) = gated();
    let client = builder.shutdown_timeout(Duration::ZERO).build().unwrap();
    let filled = fill(&client);
    let timeout = Duration::from_millis(50);
    let begin = Instant::now();
    assert_eq!(client.log_async_within(event(1), timeout).await, Err(LogError::Full));
    assert!(begin.elapsed() >= timeout);
    assert_eq!(client.stats().lost.get(LossReason::Overflow), 1);
    drop(client.log_async_within(event(2), Duration::from_secs(60)));
    assert_eq!(client.stats().lost.get(LossReason::Overflow), 2, "a dropped future is counted");
    let stopped = client.log_async_within(event(3), Duration::from_secs(60));
    let _ = client.shutdown().await;
    assert_eq!(stopped.await, Err(LogError::Closed));
    let stats = client.stats();
    assert_eq!((stats.accepted, stats.delivered), (filled + 3, 0));
    assert!(stats.is_balanced() && stats.pending == 0, "{stats:?}");
}

#[tokio::test]
async fn a_lost_event_can_be_logged_again_under_its_id() {
    let recorder = Recorder::new();
    let second = quick("http://second").transport(recorder.clone()).build().unwrap();
    let (again, texts) = (second.clone(), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&texts);
    let (_transport, builder) = gated();
    let first = builder
        .shutdown_timeout(Duration::ZERO)
        .on_loss(move |loss| {
            for event in loss.events() {
                kept.lock().unwrap().push(event.json().to_owned());
                again.log(event.to_event().unwrap()).unwrap();
            }
        })
        .build()
        .unwrap();
    let id = first.log(event(7)).unwrap();
    // The hook is called before the shutdown ends, or soon afterwards.
    let _ = first.shutdown_within(Duration::ZERO).await;
    crate::eventually::eventually("the event is logged again", || second.stats().accepted == 1);
    let text = texts.lock().unwrap()[0].clone();
    let read_back = Event::from_json(&text).unwrap();
    second.log(read_back).unwrap();
    assert!(second.flush().await.all_delivered());
    // The recorder, like the server, stores one event of each id.
    let logged = recorder.single("A");
    assert_eq!((logged.id, logged.user_id.as_str()), (id, "user-7"));
    assert_eq!(logged.metadata.to_map()["text"], "x".repeat(300));
    assert!(Event::from_json("[]").is_err());
}
