//! Tests of one connection over a pipe in memory, with a paused clock.

use axum::Router;
use axum::routing::get;
use serde_json::Value;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::sync::watch::Sender;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::super::stream::{MIN_WINDOW_BYTES, READ_WINDOW};
use super::*;
use crate::interface::http::connections::Connections;

const SLOW: Duration = Duration::from_secs(200);
const LARGE: usize = 8 << 20;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

struct Connection {
    client: DuplexStream,
    stop: Sender<bool>,
    serving: JoinHandle<()>,
}

fn connect() -> Connection {
    let router = Router::new()
        .route("/", get(async || "ok"))
        .route("/slow", get(async || sleep(SLOW).await))
        .route("/large", get(async || vec![0; LARGE]).post(async || vec![0; LARGE]));
    let (client, server) = duplex(1024);
    let (stop, stopped) = watch::channel(false);
    let service = Service { routes: router.into(), requests: Arc::default(), tls: None };
    let connections = Arc::new(Connections::new(1, 0));
    let slot = connections.admit().unwrap();
    let serving =
        tokio::spawn(serve_connection(server, [127, 0, 0, 1].into(), slot, service, stopped));
    Connection { client, stop, serving }
}

impl Connection {
    async fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.unwrap();
    }

    async fn receive(&mut self) -> String {
        let mut buffer = [0; 1024];
        let length = self.client.read(&mut buffer).await.unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    async fn assert_closed(mut self) {
        assert_eq!(self.receive().await, "");
        self.serving.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connection_is_closed_after_the_idle_timeout() {
    let start = Instant::now();
    connect().assert_closed().await;
    assert_eq!(start.elapsed().as_secs(), IDLE_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn request_restarts_the_idle_timeout() {
    let mut connection = connect();
    for pause in [5, 15, 79, 79] {
        sleep(Duration::from_secs(pause)).await;
        connection.send(REQUEST).await;
        assert!(connection.receive().await.starts_with("HTTP/1.1 200 "));
    }
    let start = Instant::now();
    connection.assert_closed().await;
    assert_eq!(start.elapsed().as_secs(), IDLE_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn slow_head_gets_a_408_even_if_it_keeps_trickling() {
    let mut connection = connect();
    let start = Instant::now();
    connection.send(b"GET / HTTP/1.1\r\nx-slow: ").await;
    let mut buffer = [0; 1024];
    let length = loop {
        tokio::select! {
            length = connection.client.read(&mut buffer) => break length.unwrap(),
            () = sleep(Duration::from_secs(1)) => connection.client.write_all(b"x").await.unwrap(),
        }
    };
    assert_eq!(start.elapsed().as_secs(), HEAD_TIMEOUT.as_secs());
    let response = String::from_utf8_lossy(&buffer[..length]);
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{response}");
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["status"], "fail");
    connection.assert_closed().await;
}

#[tokio::test(start_paused = true)]
async fn request_in_flight_has_no_timeout_here() {
    let mut connection = connect();
    connection.send(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let start = Instant::now();
    assert!(connection.receive().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(start.elapsed().as_secs(), SLOW.as_secs());
}

/// Reads the response to `/large`, 1 KiB per `pause`. Returns the number of bytes until the end.
async fn read_slowly(connection: &mut Connection, pause: Duration) -> usize {
    connection.send(b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let mut received = 0;
    loop {
        sleep(pause).await;
        match connection.receive().await.len() {
            0 => return received,
            length => received += length,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn client_that_reads_at_the_minimum_rate_gets_the_whole_response() {
    let pause = READ_WINDOW * 1024 / u32::try_from(MIN_WINDOW_BYTES).unwrap();
    let received = read_slowly(&mut connect(), pause.mul_f32(0.9)).await;
    assert!(received > LARGE, "{received}");
}

#[tokio::test(start_paused = true)]
async fn client_that_reads_below_the_minimum_rate_is_disconnected() {
    let pause = READ_WINDOW * 1024 / u32::try_from(MIN_WINDOW_BYTES).unwrap();
    let mut connection = connect();
    let start = Instant::now();
    let received = read_slowly(&mut connection, pause.mul_f32(1.2)).await;
    assert!(received < MIN_WINDOW_BYTES, "{received}");
    assert!((30..32).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn client_that_stops_reading_is_disconnected() {
    let mut connection = connect();
    connection.send(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let start = Instant::now();
    connection.serving.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), READ_WINDOW.as_secs());
}

/// Reads slowly until the end and checks that nothing but the body of `/large` follows the first head.
async fn assert_only_the_response(mut client: DuplexStream, case: &str) {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = client.read(&mut buffer).await {
        all.extend_from_slice(&buffer[..length]);
        sleep(Duration::from_millis(25)).await;
    }
    let head_end = all.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let body = &all[head_end..all.len().min(head_end + LARGE)];
    assert!(body.iter().all(|byte| *byte == 0), "{case}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_into_a_response_that_is_not_read() {
    // The handler of POST ignores the body, that of GET gets none. The timeout of a head passes long
    // before the client has read the response.
    for method in ["GET", "POST"] {
        let head = format!("{method} /large HTTP/1.1\r\nhost: x\r\n");
        for body in ["\r\n", "content-length: 1\r\n\r\nx", "content-length: 1\r\n\r\n"] {
            for next in ["", "x", "GET / HTTP/1.1\r\n", &format!("{head}\r\n"), "BAD\r\n\r\n"] {
                let mut connection = connect();
                connection.send(format!("{head}{body}").as_bytes()).await;
                sleep(Duration::from_secs(1)).await;
                connection.send(next.as_bytes()).await;
                assert_only_the_response(connection.client, &format!("{head}{body}{next}")).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stop_writes_nothing_into_a_response_that_is_not_read() {
    for next in ["", "x", "GET / HTTP/1.1\r\nhost", "GET / HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut connection = connect();
        // Both are sent in one piece, so that hyper has the beginning of the next head when the
        // process stops.
        connection.send(format!("GET /large HTTP/1.1\r\nhost: x\r\n\r\n{next}").as_bytes()).await;
        sleep(Duration::from_secs(1)).await;
        connection.stop.send_replace(true);
        assert_only_the_response(connection.client, next).await;
    }
}

#[tokio::test(start_paused = true)]
async fn malformed_head_gets_the_envelope() {
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}", "y".repeat(MAX_BUFFER));
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(101));
    for (head, status) in [
        ("BAD\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nx y: z\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (long.as_str(), 431),
        (many.as_str(), 431),
    ] {
        for first in [&b""[..], REQUEST] {
            let Connection { client, serving, .. } = &mut connect();
            if !first.is_empty() {
                client.write_all(first).await.unwrap();
                let mut buffer = [0; 1024];
                assert!(client.read(&mut buffer).await.unwrap() > 0);
            }
            let (mut reader, mut writer) = tokio::io::split(client);
            let mut response = String::new();
            let (_, read) = tokio::join!(
                writer.write_all(head.as_bytes()),
                reader.read_to_string(&mut response),
            );
            read.unwrap();
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {response}");
            let (_, body) = response.split_once("\r\n\r\n").unwrap();
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["status"], "fail");
            drop((reader, writer));
            serving.abort();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stop_closes_an_idle_connection_at_once() {
    let start = Instant::now();
    let mut connection = connect();
    connection.send(REQUEST).await;
    assert!(connection.receive().await.starts_with("HTTP/1.1 200 "));
    connection.stop.send_replace(true);
    connection.assert_closed().await;
    assert_eq!(start.elapsed().as_secs(), 0);

    let connection = connect();
    connection.stop.send_replace(true);
    connection.assert_closed().await;
    assert_eq!(start.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn stop_lets_a_request_in_flight_finish() {
    let mut connection = connect();
    connection.send(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    sleep(Duration::from_secs(1)).await;
    connection.stop.send_replace(true);
    let response = connection.receive().await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    connection.assert_closed().await;
}

#[tokio::test(start_paused = true)]
async fn stop_waits_only_briefly_for_clients_that_do_not_read_or_send() {
    for request in [&b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n"[..], b"GET / HTTP/1.1\r\nhost"] {
        let mut connection = connect();
        connection.send(request).await;
        sleep(Duration::from_secs(1)).await;
        connection.stop.send_replace(true);
        let start = Instant::now();
        connection.serving.await.unwrap();
        assert!(start.elapsed() <= 2 * STOP_GRACE, "{:?}", start.elapsed());
    }
}

#[test]
fn dates_past_the_year_9999_are_out_of_range() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    assert!(!is_out_of_range(SystemTime::now()));
    assert!(!is_out_of_range(at(253_402_300_799)));
    assert!(is_out_of_range(at(253_402_300_800)));
    assert!(is_out_of_range(at(1 << 40)));
}
