//! A TCP proxy that stands between two parts and can be told to misbehave: it cuts connections,
//! refuses new ones, delays each direction, or takes everything and forwards nothing.
//!
//! [`Kafka`](crate::kafka::Kafka) and [`Mongo`](crate::mongodb::Mongo) put one before each of
//! their members when they are asked to; anything else is put behind one by its port.

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

/// How soon a port is tried again that could not be bound after a refusal.
const REBIND_PAUSE: Duration = Duration::from_millis(20);

/// What the proxy does to its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Conduct {
    /// Counts the cuts: a connection ends when it changes.
    cuts: u64,
    is_refusing: bool,
    is_stalled: bool,
    /// From the one who connects to the target.
    forth: Duration,
    /// From the target to the one who connects.
    back: Duration,
}

/// A proxy on a port of 127.0.0.1. Dropping it cuts its connections and frees the port.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    conduct: watch::Sender<Conduct>,
    open: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Forwards from a free port to this port of 127.0.0.1, whether somebody listens there yet or
    /// not. It lives on the runtime that this is called in.
    ///
    /// # Errors
    /// When no port is free.
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

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections that are open at this moment.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Ends all connections, whatever is under way on them. New ones are taken.
    pub fn cut(&self) {
        self.conduct.send_modify(|conduct| conduct.cuts += 1);
    }

    /// Ends all connections, and refuses new ones: nobody listens on the port.
    pub fn refuse(&self) {
        self.conduct.send_modify(|conduct| {
            conduct.cuts += 1;
            conduct.is_refusing = true;
        });
    }

    /// Forwards what comes from now on this much later: a link with latency, not with less room.
    pub fn delay(&self, forth: Duration, back: Duration) {
        self.conduct.send_modify(|conduct| {
            conduct.forth = forth;
            conduct.back = back;
        });
    }

    /// Takes connections and bytes, and forwards nothing: a link that swallows packets.
    pub fn stall(&self) {
        self.conduct.send_modify(|conduct| conduct.is_stalled = true);
    }

    /// Forwards again as if nothing had been. What a stall held back is delivered.
    pub fn heal(&self) {
        self.conduct.send_modify(|conduct| {
            *conduct = Conduct { cuts: conduct.cuts, ..Conduct::default() };
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections end as well: they see that nobody can tell them anything any more.
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
                    let mut told = conduct.clone();
                    told.mark_unchanged();
                    tokio::spawn(async move {
                        let _guard = guard;
                        connection(stream, target, told).await;
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

/// Serves one connection until an end closes it or it is cut.
async fn connection(stream: TcpStream, target: SocketAddr, conduct: watch::Receiver<Conduct>) {
    let Conduct { cuts, is_refusing, .. } = *conduct.borrow();
    if is_refusing {
        // It came in the moment of the refusal.
        return;
    }
    let mut cutting = conduct.clone();
    let is_cut = cutting.wait_for(|conduct| conduct.cuts != cuts);
    let forwarding = async {
        // In a stall the target does not hear of us: its side of the link is silent too.
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

/// Counts a connection for as long as it lives.
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
