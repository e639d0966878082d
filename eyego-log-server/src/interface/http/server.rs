//! Accepts connections and serves HTTP/1.1 on them.
//!
//! | file | contents |
//! |---|---|
//! | `connection` | one connection: timeouts, stop |
//! | `stream` | the bytes of a connection; the rate at which its client reads |
//! | `notice` | responses outside of hyper |

mod connection;
mod notice;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use self::connection::{Service, serve_connection};
use self::notice::Notice;
use super::connections::{Connections, Slot};
use super::router::Routes;
use super::tls::Tls;

/// Pause after a failed `accept`, for example when the process is out of file
/// descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Refused connections that get a response at the same time. Others are closed
/// without one.
const MAX_REFUSING: usize = 16;

/// Limit of connections without [`Bound::with_limit`].
const DEFAULT_CONNECTIONS: usize = 64;

/// A listening socket that does not accept connections yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    connections: Arc<Connections>,
}

/// Listens on `address`.
///
/// # Errors
/// Returns an error if the address is in use or does not belong to this host.
pub async fn bind(address: &str) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let connections = Arc::new(Connections::new(DEFAULT_CONNECTIONS, 0));
    Ok(Bound { listener, address, tls: None, connections })
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

    /// Replaces the limit of connections, by default 64.
    #[must_use]
    pub fn with_limit(self, connections: Arc<Connections>) -> Self {
        Self { connections, ..self }
    }

    /// Serves until `stop` becomes true. Then stops accepting connections,
    /// closes idle ones and returns once all requests in flight have ended.
    ///
    /// Each connection is served by the runtime with the fewest connections.
    pub async fn serve(self, routes: Routes, runtimes: &[Handle], mut stop: watch::Receiver<bool>) {
        let connections = self.connections;
        let service = Service { routes, requests: Arc::default(), tls: self.tls };
        let runtimes: Vec<_> = runtimes.iter().map(|handle| (handle, TaskTracker::new())).collect();
        let refusing = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    connections.accept_failed(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(slot) = connections.admit() else {
                if refusing.len() < MAX_REFUSING {
                    refusing.spawn(refuse(stream, connections.max()));
                }
                continue;
            };
            // The stream is registered with this runtime, but another one will
            // serve it.
            let least_loaded = runtimes.iter().min_by_key(|(_, tasks)| tasks.len());
            if let (Ok(stream), Some((runtime, tasks))) = (stream.into_std(), least_loaded) {
                let serving = serve_stream(stream, slot, service.clone(), stop.clone());
                tasks.spawn_on(serving, runtime);
            }
            connections.settled().await;
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

async fn refuse(stream: TcpStream, max: usize) {
    let message = format!("the limit of {max} connections is reached; retry later");
    Notice::new(StatusCode::SERVICE_UNAVAILABLE, message).send(stream).await;
}

async fn serve_stream(
    stream: std::net::TcpStream,
    slot: Slot,
    service: Service,
    mut stop: watch::Receiver<bool>,
) {
    let opened = TcpStream::from_std(stream).and_then(|stream| Ok((stream.peer_addr()?, stream)));
    let (peer, stream) = match opened {
        Ok((peer, stream)) => (peer.ip(), stream),
        Err(error) => {
            tracing::debug!(%error, "cannot serve a connection");
            return;
        }
    };
    // A response is one small write, which Nagle's algorithm would delay.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let Some(tls) = &service.tls else {
        return serve_connection(stream, peer, slot, service, stop).await;
    };
    let accepted = tokio::select! {
        biased;
        accepted = tls.accept(stream) => accepted,
        () = stopped(&mut stop) => return,
        () = slot.activity.evicted() => return,
    };
    match accepted {
        Ok(stream) => serve_connection(stream, peer, slot, service, stop).await,
        // Everybody who reaches the port can cause these; the metrics count them.
        Err(error) => tracing::debug!(%error, address = %peer, "the TLS handshake failed"),
    }
}
