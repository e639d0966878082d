//! The client that log entries and dead letters share, and its state.

use std::fmt;
use std::sync::OnceLock;
use std::time::Instant;

use bson::RawDocumentBuf;
use futures_util::FutureExt as _;
use mongodb::options::ConnectionString;
use mongodb::{Client, Collection, Database};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::failure::{Class, Failure};
use super::options::{MongoOptions, create_client};
use crate::domain::health::{PartHealth, PartState};

/// Collection of the dead letters, in the same database as the log entries.
pub(super) const DEAD_LETTERS: &str = "dead-letters";

/// A MongoDB client that connects in the background and reconnects by itself.
pub struct MongoConnection {
    options: MongoOptions,
    /// Empty until the hosts of a `mongodb+srv` URI are known.
    client: OnceLock<Client>,
    state: Mutex<PartState>,
    /// The reason not to write to the server although it would accept writes.
    unsupported: Mutex<Option<String>>,
    is_stopped: watch::Sender<bool>,
}

impl fmt::Debug for MongoConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoConnection").field("options", &self.options).finish_non_exhaustive()
    }
}

impl MongoConnection {
    pub(super) fn new(options: MongoOptions, uri: ConnectionString) -> Self {
        let connection = Self {
            options,
            client: OnceLock::new(),
            state: Mutex::new(PartState::Down("not connected to MongoDB yet".to_owned())),
            unsupported: Mutex::new(None),
            is_stopped: watch::Sender::new(false),
        };
        // Without a DNS lookup, creating a client waits for nothing.
        if !connection.options.uri.starts_with("mongodb+srv:")
            && let Some(Ok(client)) = create_client(uri).now_or_never()
        {
            connection.set_client(client);
        }
        connection
    }

    /// Returns the last observed health. Never blocks.
    #[must_use]
    pub fn health(&self) -> PartHealth {
        PartHealth { name: "mongodb", state: self.state.lock().clone() }
    }

    /// Closes the client. Waits until running operations have finished or
    /// `deadline` passes. Later operations return an error at once.
    pub async fn shutdown(&self, deadline: Instant) {
        self.is_stopped.send_replace(true);
        if let Some(client) = self.client.get().cloned() {
            let closing = tokio::spawn(async move { client.shutdown().await });
            if tokio::time::timeout_at(deadline.into(), closing).await.is_err() {
                tracing::warn!("the connections to MongoDB were not closed in time");
            }
        }
    }

    pub(super) fn options(&self) -> &MongoOptions {
        &self.options
    }

    pub(super) fn client(&self) -> Result<&Client, Failure> {
        self.client.get().ok_or_else(|| {
            let reason = match &*self.state.lock() {
                PartState::Down(reason) => reason.clone(),
                PartState::Up | PartState::Warning(_) => "not connected to MongoDB yet".to_owned(),
            };
            Failure::transient(reason)
        })
    }

    pub(super) fn database(&self) -> Result<Database, Failure> {
        Ok(self.client()?.database(&self.options.database))
    }

    pub(super) fn collection(&self, name: &str) -> Result<Collection<RawDocumentBuf>, Failure> {
        Ok(self.database()?.collection(name))
    }

    /// Returns an error if the server would store something other than what it
    /// is sent.
    pub(super) fn check_writable(&self) -> Result<(), Failure> {
        match &*self.unsupported.lock() {
            Some(reason) => {
                Err(Failure::new(Class::Operator, "mongodb_unsupported", reason.clone()))
            }
            None => Ok(()),
        }
    }

    /// Sets the client, once.
    pub(super) fn set_client(&self, client: Client) {
        let _ = self.client.set(client);
    }

    pub(super) fn set_unsupported(&self, reason: Option<String>) {
        *self.unsupported.lock() = reason;
    }

    pub(super) fn set_state(&self, state: PartState) {
        let previous = std::mem::replace(&mut *self.state.lock(), state.clone());
        if previous == state {
            return;
        }
        match state {
            PartState::Up => tracing::info!("MongoDB is ready"),
            PartState::Warning(warning) => tracing::warn!(warning, "MongoDB is ready"),
            PartState::Down(reason) => tracing::warn!(reason, "MongoDB is not ready"),
        }
    }

    pub(super) fn stopped(&self) -> watch::Receiver<bool> {
        self.is_stopped.subscribe()
    }
}
