//! `log` does not allocate once the buffer is warm.

use std::sync::Arc;

use eyego_log_client::transport::{BoxFuture, Request, Response, Transport, TransportError};
use eyego_log_client::{Client, Event, Report};
use futures_executor::block_on;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::eventually::TIMEOUT;
use crate::server::accept;

const EVENTS: usize = 10_000;

/// Accepts all events once its gate is open.
struct Gated(Arc<Semaphore>);

impl Transport for Gated {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(async move {
            // A closed semaphore is an open gate.
            let _ = self.0.acquire().await;
            Ok(accept(&request))
        })
    }
}

#[derive(Serialize)]
struct Click<'a> {
    page: &'a str,
    width: u32,
}

fn log_events(client: &Client) {
    let click = Click { page: "home", width: 1920 };
    for _ in 0..EVENTS {
        client.log(Event::new("user-123", "CLICK_BUTTON").metadata(&click)).unwrap();
    }
}

fn flush(client: &Client) -> Report {
    block_on(client.flush_within(TIMEOUT))
}

#[test]
fn log_does_not_allocate_once_the_buffer_is_warm() {
    let gate = Arc::new(Semaphore::new(0));
    let builder = Client::builder("http://gated").transport(Gated(Arc::clone(&gate)));
    let client = builder.compression(false).build().unwrap();
    // The first round is buffered as a whole.
    log_events(&client);
    gate.close();
    assert!(flush(&client).all_delivered());
    for _ in 0..5 {
        let allocations = allocation_counter::measure(|| log_events(&client));
        assert_eq!(allocations.count_total, 0);
        assert!(flush(&client).all_delivered());
    }
}
