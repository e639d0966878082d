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

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_io_timeout::TimeoutWriter;
use tokio_util::task::TaskTracker;
use tower::Service;

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
}

/// Listens on `address`.
///
/// # Errors
/// Returns an error if the address is in use or does not belong to this host.
pub async fn bind(address: &str) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok(Bound { listener, address })
}

impl Bound {
    /// Returns the address. Its port is the one the system chose if port 0 was
    /// requested.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` becomes true. Then stops accepting connections,
    /// closes idle ones and returns once all requests in flight have ended.
    ///
    /// Each connection is served by the runtime with the fewest connections.
    pub async fn serve(self, router: Router, runtimes: &[Handle], mut stop: watch::Receiver<bool>) {
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
                        let serving = serve_stream(stream, router.clone(), stop.clone());
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

async fn serve_stream(stream: std::net::TcpStream, router: Router, stop: watch::Receiver<bool>) {
    match TcpStream::from_std(stream) {
        Ok(stream) => serve_connection(stream, router, stop).await,
        Err(error) => tracing::warn!(%error, "cannot serve a connection"),
    }
}

/// Serves one connection.
///
/// hyper's timeout covers both the wait for a request and the reading of its
/// head, and ends the connection without a response. So an idle connection is
/// served anew until [`IDLE_TIMEOUT`], and one with a partial head gets a 408.
async fn serve_connection(stream: TcpStream, router: Router, mut stop: watch::Receiver<bool>) {
    // A response is one small write, which Nagle's algorithm would delay.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(WRITE_TIMEOUT));
    let mut stream = Box::pin(stream);

    let was_requested = AtomicBool::new(false);
    let mut idle = Duration::ZERO;
    loop {
        let respond = service_fn(|request: http::Request<Incoming>| {
            was_requested.store(true, Ordering::Relaxed);
            router.clone().call(request)
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(stream), respond);
        let result = tokio::select! {
            biased;
            result = &mut connection => result,
            () = stopped(&mut stop) => {
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
