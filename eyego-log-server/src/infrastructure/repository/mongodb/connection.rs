//! The client that log entries and dead letters share, and its state.

use std::fmt;
use std::sync::OnceLock;
use std::time::Instant;

use bson::RawDocumentBuf;
use bson::raw::RawDocument;
use futures_util::FutureExt as _;
use mongodb::options::ConnectionString;
use mongodb::{Client, Collection, Database};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::failure::{Class, Failure};
use super::options::{MongoOptions, create_clients};
use crate::domain::health::{PartHealth, PartState};
use crate::domain::repeated::Repeated;
use crate::infrastructure::repository::limits::ReadLimits;

/// Collection of the dead letters, in the same database as the log entries.
pub(super) const DEAD_LETTERS: &str = "dead-letters";

/// Maximum number of concurrent reads: by id, of ranges, and scans.
const READS_BY_ID: usize = 16;
const RANGE_READS: usize = 16;
const SCANS: usize = 8;

/// Connections of the client for reads: those above, a second one for the scans that are
/// statistics, one for all tails, one for each of the 8 tails that resume. Cancelled reads
/// close their cursors with the spare ones.
const READ_CONNECTIONS: u32 = 65;

/// The clients. Each has connections of its own, so that no number of readers
/// delays the worker.
#[derive(Clone)]
pub(super) struct Clients {
    pub(super) writes: Client,
    pub(super) reads: Client,
}

impl Clients {
    pub(super) async fn create(uri: ConnectionString) -> mongodb::error::Result<Self> {
        let (writes, reads) = create_clients(uri, READ_CONNECTIONS).await?;
        Ok(Self { writes, reads })
    }
}

/// A MongoDB client that connects in the background and reconnects by itself.
pub struct MongoConnection {
    options: MongoOptions,
    /// Empty until the hosts of a `mongodb+srv` URI are known.
    clients: OnceLock<Clients>,
    limits: ReadLimits,
    state: Mutex<PartState>,
    repeated: Mutex<Repeated>,
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
            clients: OnceLock::new(),
            limits: ReadLimits::new(READS_BY_ID, RANGE_READS, SCANS),
            repeated: Mutex::default(),
            state: Mutex::new(PartState::Down("not connected to MongoDB yet".to_owned())),
            unsupported: Mutex::new(None),
            is_stopped: watch::Sender::new(false),
        };
        // Without a DNS lookup, creating a client waits for nothing.
        if !connection.options.uri.starts_with("mongodb+srv:")
            && let Some(Ok(clients)) = Clients::create(uri).now_or_never()
        {
            connection.set_clients(clients);
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
        self.limits.close();
        if let Some(Clients { writes, reads }) = self.clients.get().cloned() {
            let closing =
                tokio::spawn(async move { tokio::join!(writes.shutdown(), reads.shutdown()) });
            if tokio::time::timeout_at(deadline.into(), closing).await.is_err() {
                tracing::warn!("the connections to MongoDB were not closed in time");
            }
        }
    }

    pub(super) fn options(&self) -> &MongoOptions {
        &self.options
    }

    pub(super) fn clients(&self) -> Result<&Clients, Failure> {
        self.clients.get().ok_or_else(|| {
            let reason = match &*self.state.lock() {
                PartState::Down(reason) => reason.clone(),
                PartState::Up | PartState::Warning(_) => "not connected to MongoDB yet".to_owned(),
            };
            Failure::transient(reason)
        })
    }

    /// Returns the database, for the worker and for administration.
    pub(super) fn database(&self) -> Result<Database, Failure> {
        Ok(self.clients()?.writes.database(&self.options.database))
    }

    /// Returns a collection, for the worker.
    pub(super) fn collection(&self, name: &str) -> Result<Collection<RawDocumentBuf>, Failure> {
        Ok(self.database()?.collection(name))
    }

    /// Returns a collection, for reads that hold a permit of
    /// [`limits`](Self::limits).
    pub(super) fn read_from(&self, name: &str) -> Result<Collection<RawDocumentBuf>, Failure> {
        Ok(self.clients()?.reads.database(&self.options.database).collection(name))
    }

    pub(super) fn limits(&self) -> &ReadLimits {
        &self.limits
    }

    /// Logs that a document was skipped, at most once in 10 s for each reason.
    pub(super) fn warn_skipped(&self, document: &RawDocument, reason: &str) {
        if let Some(count) = self.repeated.lock().note(reason, 1, Instant::now()) {
            let id = document.get("_id").ok().flatten();
            tracing::warn!(?id, reason, count, "skipped a document");
        }
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

    /// Sets the clients, once.
    pub(super) fn set_clients(&self, clients: Clients) {
        let _ = self.clients.set(clients);
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
            PartState::Down(reason) => {
                if let Some(count) = self.repeated.lock().note(&reason, 1, Instant::now()) {
                    tracing::warn!(reason, count, "MongoDB is not ready");
                }
            }
        }
    }

    pub(super) fn stopped(&self) -> watch::Receiver<bool> {
        self.is_stopped.subscribe()
    }
}
