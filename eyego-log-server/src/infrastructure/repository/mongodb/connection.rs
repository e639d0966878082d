//! The one client that the logs and the dead letters share: how it is set up,
//! how operations run on it, and what is known of it. What watches it is in
//! [`watch`](super::watch).

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bson::RawDocumentBuf;
use futures_util::FutureExt as _;
use mongodb::options::{
    Acknowledgment, ClientOptions, ConnectionString, ReadPreference, SelectionCriteria,
    WriteConcern,
};
use mongodb::{Client, Collection, Database};
use parking_lot::Mutex;
use tokio::sync::watch as signal;

use super::failure::{Class, Failure};
use super::watch;
use crate::domain::health::{PartHealth, PartState};

/// The collection of the dead letters, beside the logs'.
pub(super) const DEAD_LETTERS: &str = "dead-letters";

/// For a write to reach a majority.
pub(super) const WRITE_CONCERN_TIMEOUT: Duration = Duration::from_secs(10);

/// For the server to work on a read.
pub(super) const READ_TIME: Duration = Duration::from_secs(10);

/// For the server to work on a write, before it waits for a majority.
pub(super) const WRITE_TIME: Duration = Duration::from_secs(20);

/// For an answer of any kind: past it the server is silent, not slow.
const READ_PATIENCE: Duration = Duration::from_secs(15);
const WRITE_PATIENCE: Duration = Duration::from_secs(35);

/// An outage is answered within this time.
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A frozen server is noticed within this and the connect timeout.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Eight bulks, what they compare, and the readers.
const MAX_POOL_SIZE: u32 = 64;

/// How to reach MongoDB and what to do there.
#[derive(Clone)]
pub struct MongoOptions {
    /// Where it is, with credentials. Write concern and read preference in it
    /// are overruled.
    pub uri: String,
    /// The database.
    pub database: String,
    /// The collection of the logs.
    pub collection: String,
    /// Whether to create the indexes where they are absent.
    pub create_indexes: bool,
}

impl fmt::Debug for MongoOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URI: there may be a password in it.
        f.debug_struct("MongoOptions")
            .field("database", &self.database)
            .field("collection", &self.collection)
            .field("create_indexes", &self.create_indexes)
            .finish_non_exhaustive()
    }
}

/// The options cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the MongoDB URI is not valid: {0}")]
pub struct InvalidUri(String);

/// A client that connects by itself, now or when MongoDB is there.
pub struct MongoConnection {
    options: MongoOptions,
    /// Absent until the hosts of a `mongodb+srv` URI are known.
    client: OnceLock<Client>,
    state: Mutex<PartState>,
    /// Why the server must not be written to, although it would take it.
    unsupported: Mutex<Option<String>>,
    is_stopped: signal::Sender<bool>,
}

impl fmt::Debug for MongoConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoConnection").field("options", &self.options).finish_non_exhaustive()
    }
}

impl MongoConnection {
    /// Begins to connect; waits for nothing. To be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// The URI is not valid.
    pub fn start(options: MongoOptions) -> Result<Arc<Self>, InvalidUri> {
        let uri = ConnectionString::parse(&options.uri)
            .map_err(|error| InvalidUri(without_credentials(&options.uri, &error)))?;
        let connection = Arc::new(Self {
            options,
            client: OnceLock::new(),
            state: Mutex::new(PartState::Down("not connected to MongoDB yet".to_owned())),
            unsupported: Mutex::new(None),
            is_stopped: signal::Sender::new(false),
        });
        if !connection.options.uri.starts_with("mongodb+srv:") {
            // Without a look into the DNS nothing is waited for.
            let connected = create_client(uri.clone()).now_or_never();
            if let Some(Ok(client)) = connected {
                connection.set_client(client);
            }
        }
        tokio::spawn(watch::run(Arc::clone(&connection), uri));
        Ok(connection)
    }

    /// How MongoDB is, as last seen; never waits.
    #[must_use]
    pub fn health(&self) -> PartHealth {
        PartHealth { name: "mongodb", state: self.state.lock().clone() }
    }

    /// Closes the connections, waiting for what still runs until the deadline
    /// at most. What is called later is answered at once: unavailable.
    pub async fn shutdown(&self, deadline: Instant) {
        self.is_stopped.send_replace(true);
        if let Some(client) = self.client.get().cloned() {
            let closing = tokio::spawn(async move { client.shutdown().await });
            if tokio::time::timeout_at(deadline.into(), closing).await.is_err() {
                tracing::warn!("MongoDB's connections were not closed in time");
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

    /// Refuses writes to a server that would store something else than it is
    /// given.
    pub(super) fn check_writable(&self) -> Result<(), Failure> {
        match &*self.unsupported.lock() {
            Some(reason) => {
                Err(Failure::new(Class::Operator, "mongodb_unsupported", reason.clone()))
            }
            None => Ok(()),
        }
    }

    pub(super) fn set_client(&self, client: Client) {
        // Set once: at the start, or by the watch.
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

    pub(super) fn stopped(&self) -> signal::Receiver<bool> {
        self.is_stopped.subscribe()
    }
}

/// A client; connects by itself. The hosts of a `mongodb+srv` URI are asked of
/// the DNS here.
pub(super) async fn create_client(uri: ConnectionString) -> mongodb::error::Result<Client> {
    let mut options = ClientOptions::parse(uri).await?;
    configure(&mut options);
    Client::with_options(options)
}

/// What every client of ours is set to. The URI decides where nothing that we
/// promise depends on it.
fn configure(options: &mut ClientOptions) {
    let concern = WriteConcern::builder()
        .w(Acknowledgment::Majority)
        // A replica set's majority implies it; a standalone's does not.
        .journal(true)
        .w_timeout(WRITE_CONCERN_TIMEOUT)
        .build();
    options.write_concern = Some(concern);
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options.app_name.get_or_insert_with(|| "eyego-log-server".to_owned());
    options.server_selection_timeout.get_or_insert(SERVER_SELECTION_TIMEOUT);
    options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
    options.heartbeat_freq.get_or_insert(HEARTBEAT);
    options.max_pool_size.get_or_insert(MAX_POOL_SIZE);
}

/// Runs a read; see [`run`].
pub(super) async fn read<T: Send + 'static>(
    work: impl Future<Output = mongodb::error::Result<T>> + Send + 'static,
) -> Result<T, Failure> {
    run(READ_PATIENCE, work).await
}

/// Runs a write; see [`run`].
pub(super) async fn write<T: Send + 'static>(
    work: impl Future<Output = mongodb::error::Result<T>> + Send + 'static,
) -> Result<T, Failure> {
    run(WRITE_PATIENCE, work).await
}

/// Runs an operation as a task of its own. A future of the driver must not be
/// dropped half-way: that leaves a connection with an answer on it that nobody
/// awaits. So neither a caller who goes away nor the time that is up ends it.
async fn run<T: Send + 'static>(
    limit: Duration,
    work: impl Future<Output = mongodb::error::Result<T>> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, tokio::spawn(work)).await {
        Ok(Ok(answer)) => answer.map_err(|error| Failure::from(&error)),
        Ok(Err(error)) => Err(Failure::transient(format!("the MongoDB driver failed: {error}"))),
        Err(_) => Err(Failure::silence(limit)),
    }
}

/// Why a URI is not valid, unless the reason quotes its credentials.
fn without_credentials(uri: &str, error: &mongodb::error::Error) -> String {
    let reason = match error.kind.as_ref() {
        mongodb::error::ErrorKind::InvalidArgument { message, .. } => message.clone(),
        other => other.to_string(),
    };
    let secrets = uri.rsplit_once('@').map_or("", |(before, _)| before);
    let secrets = secrets.split_once("://").map_or(secrets, |(_, after)| after);
    let quotes_secret = secrets
        .split([':', '/', '@', ',', '?', '&', '='])
        .any(|part| part.len() > 2 && reason.contains(part));
    if quotes_secret {
        "it cannot be parsed (is the password percent-encoded?)".to_owned()
    } else {
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_shows_the_credentials() {
        let with = |uri: &str| MongoOptions {
            uri: uri.to_owned(),
            database: "d".to_owned(),
            collection: "c".to_owned(),
            create_indexes: true,
        };
        let options = with("mongodb://alice:s3cr3t@host/");
        assert!(!format!("{options:?}").contains("s3cr3t"));
        for uri in [
            "mongodb://alice:s3cr3t/word@host:27017/",
            "mongodb://alice:s3cr3t@host:port/",
            "mongodb://alice:s3cr3t%@host/",
            "http://alice:s3cr3t@host/",
            "mongodb://alice:s3cr3t@host/?w=-1",
        ] {
            let error = MongoConnection::start(with(uri)).unwrap_err().to_string();
            assert!(!error.contains("s3cr3t") && !error.contains("alice"), "{error}");
        }
    }
}
