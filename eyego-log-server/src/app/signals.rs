//! Signals: SIGTERM and SIGINT stop the process, SIGHUP is ignored.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listener for SIGTERM and SIGINT. Signals that arrive before [`Signals::next`] is
/// called are kept.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts listening. Also handles SIGHUP, which would end the process
    /// otherwise, until the runtime stops.
    ///
    /// # Errors
    /// Returns an error if a signal handler cannot be installed.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        tokio::spawn(ignore(listen(SignalKind::hangup())?));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal and returns its name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

async fn ignore(mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        tracing::info!("received SIGHUP: changed files are read again without it");
    }
}
