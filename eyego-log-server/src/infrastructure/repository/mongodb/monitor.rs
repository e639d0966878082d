//! Monitors MongoDB in the background: connects, checks the server, and creates
//! missing indexes. Nothing waits for the monitor. It only sets the state that
//! readiness reports.

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Database;
use mongodb::options::{ConnectionString, HostInfo};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::connection::{Clients, DEAD_LETTERS, MongoConnection};
use super::failure::{Failure, NAMESPACE_NOT_FOUND, code_of};
use super::indexes::{self, RequiredIndex};
use super::operation;
use super::options::MongoOptions;
use crate::domain::health::PartState;

/// Interval between checks while MongoDB is reachable.
const INTERVAL_WHEN_UP: Duration = Duration::from_secs(2);

/// Interval between checks while MongoDB is not reachable. It doubles up to the
/// maximum. Each check also waits for the driver's server selection.
const MIN_INTERVAL_WHEN_DOWN: Duration = Duration::from_millis(200);
const MAX_INTERVAL_WHEN_DOWN: Duration = Duration::from_secs(2);

/// Interval between checks of the indexes, and between attempts to create them.
const INDEX_CHECK_INTERVAL: Duration = Duration::from_secs(60);
const INDEX_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Index builds that take longer are reported.
const UNREPORTED_BUILD_TIME: Duration = Duration::from_secs(2);

/// Wire version of MongoDB 5.0, the first to store keys with dots and `$`
/// unchanged.
const MIN_WIRE_VERSION: i32 = 13;

/// Runs until the connection is shut down.
pub(super) async fn run(connection: Arc<MongoConnection>, uri: ConnectionString) {
    let mut stopped = connection.stopped();
    let mut monitor =
        Monitor { connection, uri, build: None, warning: None, next_index_check: None };
    let mut interval = MIN_INTERVAL_WHEN_DOWN;
    loop {
        let state = monitor.check().await;
        interval = match state {
            PartState::Up | PartState::Warning(_) if monitor.build.is_some() => {
                MIN_INTERVAL_WHEN_DOWN
            }
            PartState::Up | PartState::Warning(_) => INTERVAL_WHEN_UP,
            PartState::Down(_) => (interval * 2).min(MAX_INTERVAL_WHEN_DOWN),
        };
        monitor.connection.set_state(state);
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {
                monitor.connection.set_state(PartState::Down("MongoDB is closed".to_owned()));
                return;
            }
        }
    }
}

struct Monitor {
    connection: Arc<MongoConnection>,
    uri: ConnectionString,
    build: Option<IndexBuild>,
    /// Problem with the indexes that an operator should act on.
    warning: Option<String>,
    /// When to check the indexes next. `None` means now.
    next_index_check: Option<Instant>,
}

/// Indexes that are being created. On a large collection this can take hours.
struct IndexBuild {
    task: JoinHandle<Result<(), Failure>>,
    since: Instant,
    names: String,
}

impl Monitor {
    async fn check(&mut self) -> PartState {
        match self.check_server().await {
            Ok(None) => {}
            Ok(Some(unsupported)) => {
                self.connection.set_unsupported(Some(unsupported.clone()));
                return PartState::Down(unsupported);
            }
            Err(failure) => {
                // The next primary may be another server.
                self.next_index_check = None;
                return PartState::Down(format!("{} ({})", failure.message, self.hosts()));
            }
        }
        self.connection.set_unsupported(None);
        if let Err(failure) = self.check_indexes().await {
            self.warning = Some(format!("cannot check the indexes: {}", failure.message));
        }
        match (&self.build, &self.warning) {
            (Some(build), _) if build.since.elapsed() > UNREPORTED_BUILD_TIME => {
                PartState::Warning(format!("indexes are being created: {}", build.names))
            }
            (_, Some(warning)) => PartState::Warning(warning.clone()),
            (_, None) => PartState::Up,
        }
    }

    /// Returns the hosts of the connection string.
    fn hosts(&self) -> String {
        match &self.uri.host_info {
            HostInfo::HostIdentifiers(hosts) => {
                hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            }
            HostInfo::DnsRecord(name) => name.clone(),
            _ => "unknown hosts".to_owned(),
        }
    }

    /// Checks the primary. Returns the reason it is not supported, if any.
    async fn check_server(&self) -> Result<Option<String>, Failure> {
        let clients = match self.connection.clients() {
            Ok(clients) => clients.clone(),
            Err(_) => self.connect().await?,
        };
        let admin = clients.writes.database("admin");
        let hello =
            operation::read(async move { admin.run_command(doc! { "hello": 1 }).await }).await?;
        Ok(unsupported(&hello))
    }

    async fn connect(&self) -> Result<Clients, Failure> {
        let clients = operation::read(Clients::create(self.uri.clone())).await?;
        self.connection.set_clients(clients.clone());
        Ok(clients)
    }

    /// Starts to create missing indexes, or sets the warning that they are missing.
    async fn check_indexes(&mut self) -> Result<(), Failure> {
        if let Some(build) = self.build.take() {
            if !build.task.is_finished() {
                self.build = Some(build);
                return Ok(());
            }
            self.finish_build(build).await;
        }
        if self.next_index_check.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        let missing = self.missing_indexes().await?;
        self.next_index_check = Some(Instant::now() + INDEX_CHECK_INTERVAL);
        if missing.is_empty() {
            self.warning = None;
            return self.drop_replaced_indexes().await;
        }
        let names: Vec<String> = missing.iter().map(RequiredIndex::to_string).collect();
        let names = names.join(", ");
        if self.connection.options().create_indexes {
            tracing::info!(indexes = names, "creating indexes");
            let task = tokio::spawn(create(self.connection.database()?, missing));
            self.build = Some(IndexBuild { task, since: Instant::now(), names });
        } else {
            self.warning = Some(format!("indexes are missing, so reads may be slow: {names}"));
        }
        Ok(())
    }

    async fn finish_build(&mut self, build: IndexBuild) {
        let failure = match build.task.await {
            Ok(Ok(())) => {
                // Check whether all indexes exist now.
                self.next_index_check = None;
                return;
            }
            Ok(Err(failure)) => failure.message,
            Err(error) => error.to_string(),
        };
        self.warning = Some(format!("an index cannot be created: {failure}"));
        self.next_index_check = Some(Instant::now() + INDEX_RETRY_INTERVAL);
    }

    async fn missing_indexes(&self) -> Result<Vec<RequiredIndex>, Failure> {
        let MongoOptions { collection, .. } = self.connection.options();
        let mut missing = Vec::new();
        for name in [collection.as_str(), DEAD_LETTERS] {
            let existing = self.existing_indexes(name).await?;
            let required = indexes::required(name, name == DEAD_LETTERS);
            missing.extend(required.into_iter().filter(|index| !index.is_served_by(&existing)));
        }
        Ok(missing)
    }

    /// Drops the indexes of earlier versions, once their successors exist.
    async fn drop_replaced_indexes(&self) -> Result<(), Failure> {
        let MongoOptions { collection, create_indexes, .. } = self.connection.options();
        if !create_indexes {
            return Ok(());
        }
        let replaced = indexes::replaced(&self.existing_indexes(collection).await?);
        if replaced.is_empty() {
            return Ok(());
        }
        tracing::info!(indexes = replaced.join(", "), "dropping indexes that others have replaced");
        let database = self.connection.database()?;
        let command = doc! { "dropIndexes": collection, "index": replaced };
        operation::write(async move { database.run_command(command).await }).await?;
        Ok(())
    }

    async fn existing_indexes(&self, collection: &str) -> Result<Vec<Document>, Failure> {
        let database = self.connection.database()?;
        let command = doc! { "listIndexes": collection, "cursor": { "batchSize": 1000 } };
        let response = operation::read(async move { database.run_command(command).await }).await;
        match response {
            Ok(response) => {
                let batch = response.get_document("cursor").and_then(|c| c.get_array("firstBatch"));
                let batch = batch.map(Vec::as_slice).unwrap_or_default();
                Ok(batch.iter().filter_map(|index| index.as_document().cloned()).collect())
            }
            Err(failure) if failure.code == code_of(NAMESPACE_NOT_FOUND) => Ok(Vec::new()),
            Err(failure) => Err(failure),
        }
    }
}

/// Returns the reason the server is not supported, if any.
fn unsupported(hello: &Document) -> Option<String> {
    let version = hello.get_i32("maxWireVersion").unwrap_or_default();
    (version < MIN_WIRE_VERSION).then(|| {
        format!(
            "MongoDB is too old (wire version {version}): use 5.0 or later, which stores keys \
             with dots and $ unchanged"
        )
    })
}

/// Creates indexes, one collection after another. All indexes of a collection are
/// built in one pass.
async fn create(database: Database, missing: Vec<RequiredIndex>) -> Result<(), Failure> {
    for command in indexes::commands(&missing) {
        // No time limit: a build can take hours.
        database.run_command(command).await.map_err(|error| Failure::from(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_before_5_0_are_not_supported() {
        assert!(unsupported(&doc! { "maxWireVersion": 9 }).unwrap().contains("5.0"));
        assert!(unsupported(&doc! {}).is_some());
        assert_eq!(unsupported(&doc! { "maxWireVersion": 13 }), None);
        assert_eq!(unsupported(&doc! { "maxWireVersion": 17 }), None);
    }
}
