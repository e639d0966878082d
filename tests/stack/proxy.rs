//! A TCP proxy that injects network faults: it cuts connections, refuses new ones, delays each
//! direction, or accepts bytes and forwards none.
//!
//! [`Kafka`](crate::kafka::Kafka) and [`Mongo`](crate::mongodb::Mongo) put one in front of each
//! node if asked to. A test can put one in front of any other port.

mod pipe;

use std::net::{Ipv4Addr, SocketAddr, TcpListener as Bound};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::port;

/// The pause between attempts to bind the port again after a refusal.
const REBIND_PAUSE: Duration = Duration::from_millis(20);

/// How the proxy treats its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Conduct {
    /// The number of cuts. Each connection ends when it changes.
    cuts: u64,
    is_refusing: bool,
    is_stalled: bool,
    /// The delay from the client to the target.
    forward: Duration,
    /// The delay from the target to the client.
    backward: Duration,
}

/// A proxy on a port of 127.0.0.1. Dropping it closes its connections and its port.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    conduct: watch::Sender<Conduct>,
    open: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy from a free port to the port `target` of 127.0.0.1, which need not be open
    /// yet. The proxy runs on the current runtime.
    ///
    /// # Errors
    /// Returns an error if no port is free.
    pub fn start(target: u16) -> Result<Self> {
        let port = port::free()?;
        let bound = Bound::bind((Ipv4Addr::LOCALHOST, port)).context("cannot bind a proxy")?;
        bound.set_nonblocking(true)?;
        let listener = TcpListener::from_std(bound)?;
        let (conduct, watched) = watch::channel(Conduct::default());
        let open = Arc::new(AtomicUsize::new(0));
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target));
        let accepting = tokio::spawn(accept(listener, port, target, watched, Arc::clone(&open)));
        Ok(Self { port, conduct, open, accepting })
    }

    /// Returns the port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the number of open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Closes all connections, whatever is in flight on them. New ones are accepted.
    pub fn cut(&self) {
        self.conduct.send_modify(|conduct| conduct.cuts += 1);
    }

    /// Closes all connections and the port, so that new connections are refused.
    pub fn refuse(&self) {
        self.conduct.send_modify(|conduct| {
            conduct.cuts += 1;
            conduct.is_refusing = true;
        });
    }

    /// Delays each byte that arrives from now on. The throughput stays the same.
    pub fn delay(&self, forward: Duration, backward: Duration) {
        self.conduct.send_modify(|conduct| {
            conduct.forward = forward;
            conduct.backward = backward;
        });
    }

    /// Accepts connections and bytes, and forwards nothing, like a link that drops packets.
    pub fn stall(&self) {
        self.conduct.send_modify(|conduct| conduct.is_stalled = true);
    }

    /// Ends all faults. Bytes that a stall held back are delivered.
    pub fn heal(&self) {
        self.conduct.send_modify(|conduct| {
            *conduct = Conduct { cuts: conduct.cuts, ..Conduct::default() };
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections end as well, because the sender of their watch channel is gone.
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    port: u16,
    target: SocketAddr,
    mut conduct: watch::Receiver<Conduct>,
    open: Arc<AtomicUsize>,
) {
    let mut listener = Some(listener);
    loop {
        if conduct.borrow_and_update().is_refusing {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.ok();
        }
        let Some(listening) = &listener else {
            if conduct.borrow().is_refusing {
                if conduct.changed().await.is_err() {
                    return;
                }
            } else {
                tokio::time::sleep(REBIND_PAUSE).await;
            }
            continue;
        };
        tokio::select! {
            accepted = listening.accept() => {
                if let Ok((stream, _)) = accepted {
                    let guard = Open::new(&open);
                    let mut watched = conduct.clone();
                    watched.mark_unchanged();
                    tokio::spawn(async move {
                        let _guard = guard;
                        connection(stream, target, watched).await;
                    });
                }
            }
            changed = conduct.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Forwards one connection until either side closes it or it is cut.
async fn connection(stream: TcpStream, target: SocketAddr, conduct: watch::Receiver<Conduct>) {
    let Conduct { cuts, is_refusing, .. } = *conduct.borrow();
    if is_refusing {
        // It was accepted just before the refusal.
        return;
    }
    let mut cutting = conduct.clone();
    let is_cut = cutting.wait_for(|conduct| conduct.cuts != cuts);
    let forwarding = async {
        // During a stall no connection reaches the target.
        let mut starting = conduct.clone();
        if starting.wait_for(|conduct| !conduct.is_stalled).await.is_err() {
            return;
        }
        if let Ok(onward) = TcpStream::connect(target).await {
            pipe::both_ways(stream, onward, conduct.clone()).await;
        }
    };
    tokio::select! {
        () = forwarding => {}
        _ = is_cut => {}
    }
}

/// Counts a connection while it is open.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
