//! The accept loop.
//!
//! Not `axum::serve`: that sets no timer on a request's head, so that a few
//! idle sockets could hold a server's connections for ever.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

/// For a request's head to arrive; also how long a connection may idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// After a failed `accept` (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const HEAD_TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    content-type: application/json\r\ncontent-length: 66\r\nconnection: close\r\n\r\n\
    {\"status\":\"fail\",\"message\":\"the head came too slowly: within 10 s\"}";

/// A socket that listens; nothing is accepted yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Listens.
///
/// # Errors
/// The address is taken, or not ours.
pub async fn bind(address: &str) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok(Bound { listener, address })
}

impl Bound {
    /// The address, with the port that was given if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` turns true; then accepts no more, and returns when
    /// the open requests have ended.
    pub async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) {
        // Each connection holds a sender: when the last is gone, all have ended.
        let (alive, mut all_ended) = mpsc::channel::<()>(1);
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connection = serve_connection(stream, router.clone(), stop.clone());
                    let alive = alive.clone();
                    tokio::spawn(async move {
                        connection.await;
                        drop(alive);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        drop(alive);
        // Nothing is ever sent: this ends when the last sender is dropped.
        let _ = all_ended.recv().await;
    }
}

async fn serve_connection(stream: TcpStream, router: Router, mut stop: watch::Receiver<bool>) {
    // An answer is one small write: waiting for more of it costs 40 ms.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        Box::pin(router.clone().oneshot(request.map(Body::new)))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);

    let mut is_stopping = false;
    let stop = stop.wait_for(|stop| *stop);
    tokio::pin!(stop);
    let result = loop {
        tokio::select! {
            biased;
            result = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)) => break result,
            _ = &mut stop, if !is_stopping => {
                is_stopping = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    if let Err(error) = result
        && error.is_timeout()
        && !parts.read_buf.is_empty()
    {
        // hyper closes without a word; who sent half a head should hear why.
        // Who sent nothing is only idle.
        let _ = stream.write_all(HEAD_TOO_SLOW).await;
    }
    // The peer may be gone already.
    let _ = stream.shutdown().await;
}
