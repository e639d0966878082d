//! The accept loop.
//!
//! Not `axum::serve`: that sets no timer on a request's head, so that a few
//! idle sockets could hold a server's connections for ever.

mod pace;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use eyego_log_core::LogIdGenerator;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use self::pace::{Pace, Paced, Verdict};
use super::router::answer;

/// After a failed `accept` (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a connection's pace is looked at.
const LOOK: Duration = Duration::from_secs(1);

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
    router: Router,
    request_ids: Arc<LogIdGenerator>,
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
        let service = Service { router, request_ids: Arc::default() };
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
                    let connection = serve_connection(stream, service.clone(), stop.clone());
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

async fn serve_connection(stream: TcpStream, service: Service, mut stop: watch::Receiver<bool>) {
    // An answer is one small write: waiting for more of it costs 40 ms.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let pace = Arc::new(Pace::start());
    let paced = Arc::clone(&pace);
    let answering = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        paced.head_is_here();
        let (service, pace) = (service.clone(), Arc::clone(&paced));
        Box::pin(async move {
            let answer = answer(service.router, &service.request_ids, request.map(Body::new)).await;
            pace.is_answered();
            Ok::<_, std::convert::Infallible>(answer)
        })
    });
    let mut connection = http1::Builder::new()
        // Ours is coarser, and costs a request nothing.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(Paced::new(stream, Arc::clone(&pace))), answering);

    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_stopping = false;
    let stop = stop.wait_for(|stop| *stop);
    tokio::pin!(stop);
    let is_too_slow = loop {
        tokio::select! {
            biased;
            _ = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)) => break false,
            _ = &mut stop, if !is_stopping => {
                is_stopping = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
            _ = look.tick() => match pace.verdict() {
                Verdict::Fine => {}
                // Who sends nothing is only idle; who sent half a head should
                // hear why.
                Verdict::Idle => break false,
                Verdict::HeadTooSlow => break true,
            },
        }
    };
    let mut stream = connection.into_parts().io.into_inner().into_inner();
    // The peer may be gone already.
    if is_too_slow {
        let _ = stream.write_all(HEAD_TOO_SLOW).await;
    }
    let _ = stream.shutdown().await;
}
