//! Accepts connections and serves HTTP/1.1 on them.
//!
//! `axum::serve` has no timeouts: idle or slow clients could hold connections
//! for ever. Here each connection has three:
//!
//! | timeout | on expiry |
//! |---|---|
//! | [`HEAD_TIMEOUT`]: a request's head must be complete | 408, then close |
//! | [`IDLE_TIMEOUT`]: the next request must begin | close |
//! | [`WRITE_TIMEOUT`]: the client must read some of a response | close |
//!
//! The timeouts of a request's body are in `body`.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use eyego_log_core::LogIdGenerator;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_io_timeout::TimeoutWriter;
use tokio_util::task::TaskTracker;

use super::router::{Routes, respond};
use super::tls::Tls;

/// Pause after a failed `accept`, for example when the process is out of file
/// descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes that a connection buffers in addition to the bodies' budget. The head
/// of a request must fit.
const MAX_BUFFER: usize = 64 << 10;

/// Maximum time for the head of a request. hyper measures it from the end of
/// the previous response, see [`serve_connection`].
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time between two requests, a multiple of [`HEAD_TIMEOUT`]. Longer
/// than the 60 s to 75 s of common proxies: if the server closes first, a
/// request can be lost on its way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(80);

/// Maximum time in which a client reads nothing of a pending response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(75);

/// A listening socket that does not accept connections yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
}

/// Listens on `address`.
///
/// # Errors
/// Returns an error if the address is in use or does not belong to this host.
pub async fn bind(address: &str) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok(Bound { listener, address, tls: None })
}

/// Shared by all connections.
#[derive(Clone)]
struct Service {
    routes: Routes,
    request_ids: Arc<LogIdGenerator>,
    tls: Option<Tls>,
}

impl Bound {
    /// Returns the address. Its port is the one the system chose if port 0 was
    /// requested.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Expects TLS on all connections.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// Serves until `stop` becomes true. Then stops accepting connections,
    /// closes idle ones and returns once all requests in flight have ended.
    ///
    /// Each connection is served by the runtime with the fewest connections.
    pub async fn serve(self, routes: Routes, runtimes: &[Handle], mut stop: watch::Receiver<bool>) {
        let service = Service { routes, request_ids: Arc::default(), tls: self.tls };
        let runtimes: Vec<_> = runtimes.iter().map(|handle| (handle, TaskTracker::new())).collect();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                accepted = self.listener.accept() => accepted,
            };
            // Converted, because it is registered with this runtime, not with
            // the one that serves it.
            match accepted.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => {
                    let least_loaded = runtimes.iter().min_by_key(|(_, tasks)| tasks.len());
                    if let Some((runtime, tasks)) = least_loaded {
                        let serving = serve_stream(stream, service.clone(), stop.clone());
                        tasks.spawn_on(serving, runtime);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        for (_, tasks) in &runtimes {
            tasks.close();
            tasks.wait().await;
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn serve_stream(
    stream: std::net::TcpStream,
    service: Service,
    mut stop: watch::Receiver<bool>,
) {
    let opened = TcpStream::from_std(stream).and_then(|stream| Ok((stream.peer_addr()?, stream)));
    let (peer, stream) = match opened {
        Ok((peer, stream)) => (peer.ip(), stream),
        Err(error) => {
            tracing::warn!(%error, "cannot serve a connection");
            return;
        }
    };
    // A response is one small write, which Nagle's algorithm would delay.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let Some(tls) = &service.tls else {
        return serve_connection(stream, peer, service, stop).await;
    };
    let accepted = tokio::select! {
        biased;
        accepted = tls.accept(stream) => accepted,
        () = stopped(&mut stop) => return,
    };
    match accepted {
        Ok(stream) => serve_connection(stream, peer, service, stop).await,
        // Everybody who reaches the port can cause these; the metrics count them.
        Err(error) => tracing::debug!(%error, address = %peer, "the TLS handshake failed"),
    }
}

/// Serves one connection.
///
/// hyper's timeout covers both the wait for a request and the reading of its
/// head, and ends the connection without a response. So an idle connection is
/// served anew until [`IDLE_TIMEOUT`], and one with a partial head gets a 408.
async fn serve_connection<S>(
    stream: S,
    peer: IpAddr,
    service: Service,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(WRITE_TIMEOUT));
    let mut stream = Box::pin(stream);

    let was_requested = AtomicBool::new(false);
    let mut idle = Duration::ZERO;
    loop {
        let handler = service_fn(|request: http::Request<Incoming>| {
            was_requested.store(true, Ordering::Relaxed);
            let (routes, service) = (service.routes.clone(), &service);
            async move {
                let request = request.map(Body::new);
                Ok::<_, Infallible>(respond(routes, &service.request_ids, peer, request).await)
            }
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(stream), handler);
        let ended = tokio::select! {
            biased;
            result = &mut connection => Some(result),
            () = stopped(&mut stop) => None,
        };
        let result = match ended {
            Some(result) => result,
            None => {
                Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        };
        if !result.is_err_and(|error| error.is_timeout()) {
            return;
        }
        let parts = connection.into_parts();
        stream = parts.io.into_inner();
        let is_idle = parts.read_buf.is_empty();
        if !is_idle {
            // Fails if the client is gone.
            let _ = stream.write_all(head_too_slow().as_bytes()).await;
        }
        let since_request = was_requested.swap(false, Ordering::Relaxed);
        idle = if since_request { HEAD_TIMEOUT } else { idle + HEAD_TIMEOUT };
        if !is_idle || idle >= IDLE_TIMEOUT {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

fn head_too_slow() -> String {
    let seconds = HEAD_TIMEOUT.as_secs();
    let message = format!("the request headers were not received completely within {seconds} s");
    let body = format!("{{\"status\":\"fail\",\"message\":\"{message}\"}}");
    format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use serde_json::Value;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::sync::watch::Sender;
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, sleep};

    use super::*;

    const SLOW: Duration = Duration::from_secs(200);
    const LARGE: usize = 1 << 20;
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
            .route("/large", get(async || vec![0; LARGE]));
        let (client, server) = duplex(1024);
        let (stop, stopped) = watch::channel(false);
        let service = Service { routes: router.into(), request_ids: Arc::default(), tls: None };
        let serving =
            tokio::spawn(serve_connection(server, [127, 0, 0, 1].into(), service, stopped));
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

    #[tokio::test(start_paused = true)]
    async fn client_that_reads_slowly_gets_the_whole_response() {
        let mut connection = connect();
        connection.send(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut received = 0;
        while received < LARGE {
            sleep(WRITE_TIMEOUT / 2).await;
            let length = connection.receive().await.len();
            assert!(length > 0, "closed after {received} bytes");
            received += length;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_stops_reading_is_disconnected() {
        let mut connection = connect();
        connection.send(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let start = Instant::now();
        connection.serving.await.unwrap();
        assert_eq!(start.elapsed().as_secs(), WRITE_TIMEOUT.as_secs());
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
}
