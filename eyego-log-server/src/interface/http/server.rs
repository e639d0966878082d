//! The accept loop.
//!
//! Not `axum::serve`: that sets no timer on a request's head, so that a few
//! idle sockets could hold a server's connections for ever.

mod pace;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use axum::body::Body;
use eyego_log_core::LogIdGenerator;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use self::pace::{Call, Pace, Paced, Watchman};
use super::router::{Routes, answer};

/// After a failed `accept` (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection buffers beside the bodies' budget. The head of a request
/// must fit. hyper's default is 400 KiB, which a thousand connections feel.
const MAX_BUFFER: usize = 64 << 10;

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

/// What each connection needs.
#[derive(Clone)]
struct Service {
    routes: Routes,
    request_ids: Arc<LogIdGenerator>,
}

impl Bound {
    /// The address, with the port that was given if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` turns true; then accepts no more, and returns when
    /// the open requests have ended. Each connection lives in one of these
    /// runtimes.
    pub async fn serve(self, routes: Routes, lanes: &[Handle], mut stop: watch::Receiver<bool>) {
        let service = Service { routes, request_ids: Arc::default() };
        let lanes: Vec<_> = lanes.iter().map(|lane| Lane::start(lane, &stop)).collect();
        // Each connection holds a sender: when the last is gone, all have ended.
        let (alive, mut all_ended) = mpsc::channel::<()>(1);
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = self.listener.accept() => accepted,
            };
            // It moves to another runtime, which it is to be registered with.
            match accepted.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => {
                    let lane = lanes.iter().min_by_key(|lane| lane.watchman.connections());
                    if let Some(lane) = lane {
                        lane.serve(stream, service.clone(), alive.clone());
                    }
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

/// A runtime with connections.
struct Lane {
    runtime: Handle,
    watchman: Arc<Watchman>,
}

impl Lane {
    fn start(runtime: &Handle, stop: &watch::Receiver<bool>) -> Self {
        let lane = Self { runtime: runtime.clone(), watchman: Arc::default() };
        let (watchman, stop) = (Arc::clone(&lane.watchman), stop.clone());
        runtime.spawn(async move { watchman.watch(stop).await });
        lane
    }

    fn serve(&self, stream: std::net::TcpStream, service: Service, alive: mpsc::Sender<()>) {
        let pace = self.watchman.admit();
        self.runtime.spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => serve_connection(stream, service, pace).await,
                Err(error) => tracing::warn!(%error, "cannot serve a connection"),
            }
            drop(alive);
        });
    }
}

async fn serve_connection(stream: TcpStream, service: Service, pace: Arc<Pace>) {
    // An answer is one small write: waiting for more of it costs 40 ms.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let paced = Arc::clone(&pace);
    let answering = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        paced.head_is_here();
        let (service, pace) = (service.clone(), Arc::clone(&paced));
        Box::pin(async move {
            let answer = answer(service.routes, &service.request_ids, request.map(Body::new)).await;
            pace.is_answered();
            Ok::<_, std::convert::Infallible>(answer)
        })
    });
    let mut connection = http1::Builder::new()
        // Ours is coarser, and costs a request next to nothing.
        .header_read_timeout(None)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(Paced::new(stream, Arc::clone(&pace))), answering);

    let is_too_slow = poll_fn(|cx| {
        loop {
            if connection.poll_without_shutdown(cx).is_ready() {
                return Poll::Ready(false);
            }
            match ready!(pace.poll_call(cx)) {
                Call::Stop => Pin::new(&mut connection).graceful_shutdown(),
                // Who sends nothing is only idle; who sent half a head should
                // hear why.
                Call::Idle => return Poll::Ready(false),
                Call::HeadTooSlow => return Poll::Ready(true),
            }
        }
    })
    .await;
    let mut stream = connection.into_parts().io.into_inner().into_inner();
    // The peer may be gone already.
    if is_too_slow {
        let _ = stream.write_all(HEAD_TOO_SLOW).await;
    }
    let _ = stream.shutdown().await;
}
