//! Watches MongoDB in the background: connects, asks how it is, and creates the
//! indexes when it can. Nothing waits for it: it only writes what readiness
//! shows.

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::options::ConnectionString;
use mongodb::{Client, Database};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::connection::{self, DEAD_LETTERS, MongoConnection, MongoOptions};
use super::failure::{Failure, NAMESPACE_NOT_FOUND, code_word};
use super::indexes;
use crate::domain::health::PartState;

/// Between two looks at a MongoDB that is there.
const LOOK_WHEN_UP: Duration = Duration::from_secs(2);

/// Between two looks at one that is not: doubled up to a bound. Each look waits
/// for the driver's server selection as well.
const FIRST_LOOK_WHEN_DOWN: Duration = Duration::from_millis(200);
const LAST_LOOK_WHEN_DOWN: Duration = Duration::from_secs(2);

/// Between two looks at the indexes, or two attempts to create them.
const LOOK_AT_INDEXES: Duration = Duration::from_secs(60);
const RETRY_INDEXES: Duration = Duration::from_secs(10);

/// A build of this length is not worth a word.
const QUICK_BUILD: Duration = Duration::from_secs(2);

/// MongoDB 5.0, the first to store keys with dots and `$` as they are.
const WIRE_VERSION: i32 = 13;

/// Runs until the connection is shut down.
pub(super) async fn run(connection: Arc<MongoConnection>, uri: ConnectionString) {
    let mut stopped = connection.stopped();
    let mut watch = Watch { connection, uri, build: None, warning: None, look_at: None };
    let mut pause = FIRST_LOOK_WHEN_DOWN;
    loop {
        let state = watch.look().await;
        pause = match state {
            PartState::Up | PartState::Warning(_) if watch.build.is_some() => FIRST_LOOK_WHEN_DOWN,
            PartState::Up | PartState::Warning(_) => LOOK_WHEN_UP,
            PartState::Down(_) => (pause * 2).min(LAST_LOOK_WHEN_DOWN),
        };
        watch.connection.set_state(state);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {
                watch.connection.set_state(PartState::Down("MongoDB is closed".to_owned()));
                return;
            }
        }
    }
}

struct Watch {
    connection: Arc<MongoConnection>,
    uri: ConnectionString,
    build: Option<Build>,
    /// What an operator should know about the indexes.
    warning: Option<String>,
    /// When to look at the indexes next; `None`: now.
    look_at: Option<Instant>,
}

/// Indexes that are being created: on a large collection for hours.
struct Build {
    task: JoinHandle<Result<(), Failure>>,
    since: Instant,
    names: String,
}

impl Watch {
    async fn look(&mut self) -> PartState {
        match self.ask().await {
            Ok(None) => {}
            Ok(Some(unsupported)) => {
                self.connection.set_unsupported(Some(unsupported.clone()));
                return PartState::Down(unsupported);
            }
            Err(failure) => {
                // What comes back may be another server.
                self.look_at = None;
                return PartState::Down(failure.message);
            }
        }
        self.connection.set_unsupported(None);
        if let Err(failure) = self.care_for_indexes().await {
            self.warning = Some(format!("cannot look at the indexes: {}", failure.message));
        }
        match (&self.build, &self.warning) {
            (Some(build), _) if build.since.elapsed() > QUICK_BUILD => {
                PartState::Warning(format!("indexes are being created: {}", build.names))
            }
            (_, Some(warning)) => PartState::Warning(warning.clone()),
            (_, None) => PartState::Up,
        }
    }

    /// Asks the primary; answers why it is none that we can use.
    async fn ask(&self) -> Result<Option<String>, Failure> {
        let client = match self.connection.client() {
            Ok(client) => client.clone(),
            Err(_) => self.connect().await?,
        };
        let admin = client.database("admin");
        let hello =
            connection::read(async move { admin.run_command(doc! { "hello": 1 }).await }).await?;
        Ok(unsupported(&hello))
    }

    async fn connect(&self) -> Result<Client, Failure> {
        let client = connection::read(connection::create_client(self.uri.clone())).await?;
        self.connection.set_client(client.clone());
        Ok(client)
    }

    /// Creates what is absent, in the background, or says that it is absent.
    async fn care_for_indexes(&mut self) -> Result<(), Failure> {
        if let Some(build) = self.build.take() {
            if !build.task.is_finished() {
                self.build = Some(build);
                return Ok(());
            }
            self.note_end_of(build).await;
        }
        if self.look_at.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        let absent = self.absent().await?;
        self.look_at = Some(Instant::now() + LOOK_AT_INDEXES);
        if absent.is_empty() {
            self.warning = None;
            return Ok(());
        }
        let names: Vec<String> = absent.iter().map(indexes::Wanted::to_string).collect();
        let names = names.join(", ");
        if self.connection.options().create_indexes {
            tracing::info!(indexes = names, "creating indexes");
            let task = tokio::spawn(create(self.connection.database()?, absent));
            self.build = Some(Build { task, since: Instant::now(), names });
        } else {
            self.warning = Some(format!("indexes are missing, so reads may be slow: {names}"));
        }
        Ok(())
    }

    async fn note_end_of(&mut self, build: Build) {
        let failure = match build.task.await {
            Ok(Ok(())) => {
                // Whether all is there now.
                self.look_at = None;
                return;
            }
            Ok(Err(failure)) => failure.message,
            Err(error) => error.to_string(),
        };
        self.warning = Some(format!("an index cannot be created: {failure}"));
        self.look_at = Some(Instant::now() + RETRY_INDEXES);
    }

    async fn absent(&self) -> Result<Vec<indexes::Wanted>, Failure> {
        let MongoOptions { collection, .. } = self.connection.options();
        let mut absent = Vec::new();
        for name in [collection.as_str(), DEAD_LETTERS] {
            let present = self.present(name).await?;
            let wanted = indexes::wanted(name, name == DEAD_LETTERS);
            absent.extend(wanted.into_iter().filter(|wanted| !wanted.is_among(&present)));
        }
        Ok(absent)
    }

    async fn present(&self, collection: &str) -> Result<Vec<Document>, Failure> {
        let database = self.connection.database()?;
        let command = doc! { "listIndexes": collection, "cursor": { "batchSize": 1000 } };
        let answer = connection::read(async move { database.run_command(command).await }).await;
        match answer {
            Ok(answer) => {
                let batch = answer.get_document("cursor").and_then(|c| c.get_array("firstBatch"));
                let batch = batch.map(Vec::as_slice).unwrap_or_default();
                Ok(batch.iter().filter_map(|index| index.as_document().cloned()).collect())
            }
            Err(failure) if failure.code == code_word(NAMESPACE_NOT_FOUND) => Ok(Vec::new()),
            Err(failure) => Err(failure),
        }
    }
}

/// Why this is no server that we can use.
fn unsupported(hello: &Document) -> Option<String> {
    let version = hello.get_i32("maxWireVersion").unwrap_or_default();
    (version < WIRE_VERSION).then(|| {
        format!(
            "MongoDB is too old (wire version {version}): 5.0 or later is needed, which stores \
             keys with dots and $ as they are"
        )
    })
}

/// Creates indexes, one collection after the other; those of one collection in
/// one pass over it.
async fn create(database: Database, absent: Vec<indexes::Wanted>) -> Result<(), Failure> {
    for command in indexes::commands(&absent) {
        // In the task that this already is, and without a deadline: a build
        // takes as long as it takes.
        database.run_command(command).await.map_err(|error| Failure::from(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_before_5_0_is_not_used() {
        assert!(unsupported(&doc! { "maxWireVersion": 9 }).unwrap().contains("5.0"));
        assert!(unsupported(&doc! {}).is_some());
        assert_eq!(unsupported(&doc! { "maxWireVersion": 13 }), None);
        assert_eq!(unsupported(&doc! { "maxWireVersion": 17 }), None);
    }
}
