//! The store on MongoDB: put to its ports' tests, and what only it promises.

mod figures;
mod filters;
mod foreign;
mod outages;
mod refusals;
mod startup;

use std::sync::Arc;
use std::time::Duration;

use ::mongodb::Client;
use ::mongodb::bson::{Document, doc};
use async_trait::async_trait;
use eyego_log_core::LogEntry;
use eyego_log_server::domain::dead_letter::DeadLetters;
use eyego_log_server::domain::health::PartState;
use eyego_log_server::domain::repository::LogRepository;
use eyego_log_server::infrastructure::repository::mongodb::{
    MongoConnection, MongoDeadLetters, MongoOptions, MongoRepository,
};
use stack::mongodb::Mongo;
use std::time::Instant;

use crate::conformance::dead_letters::DeadLettersFixture;
use crate::conformance::repository::RepositoryFixture;
use crate::conformance::{self, PATIENCE, entry};

#[tokio::test(flavor = "multi_thread")]
async fn the_repository_keeps_its_promises() {
    conformance::repository::run(4, || async {
        Box::new(Store::shared().await) as Box<dyn RepositoryFixture>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_letters_keep_their_promises() {
    conformance::dead_letters::run(4, || async {
        Box::new(Store::shared().await) as Box<dyn DeadLettersFixture>
    })
    .await;
}

/// A database of its own, and a connection of ours to it.
struct Store {
    uri: String,
    database: String,
    connection: Arc<MongoConnection>,
}

impl Store {
    /// On the MongoDB that all cases share.
    async fn shared() -> Self {
        Self::at(Mongo::shared().await.unwrap().uri())
    }

    fn at(uri: &str) -> Self {
        Self::with(uri, true)
    }

    fn with(uri: &str, create_indexes: bool) -> Self {
        let database = stack::unique("db");
        let connection = connect(uri, &database, create_indexes);
        Self { uri: uri.to_owned(), database, connection }
    }

    fn repository(&self) -> MongoRepository {
        MongoRepository::new(Arc::clone(&self.connection))
    }

    fn dead_letters(&self) -> MongoDeadLetters {
        MongoDeadLetters::new(Arc::clone(&self.connection))
    }

    /// A client that is not ours.
    async fn foreign(&self) -> ::mongodb::Database {
        Client::with_uri_str(&self.uri).await.unwrap().database(&self.database)
    }

    async fn logs(&self) -> ::mongodb::Collection<Document> {
        self.foreign().await.collection("logs")
    }

    async fn reopen(&mut self) {
        self.connection.shutdown(Instant::now() + PATIENCE).await;
        self.connection = connect(&self.uri, &self.database, true);
        self.wait_for(PartState::is_up).await;
    }

    /// Waits until the health is like this; answers it.
    async fn wait_for(&self, is_right: impl Fn(&PartState) -> bool) -> PartState {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            let state = self.connection.health().state;
            if is_right(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "the health stays {state:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn connect(uri: &str, database: &str, create_indexes: bool) -> Arc<MongoConnection> {
    let (uri, database, collection) = (uri.to_owned(), database.to_owned(), "logs".to_owned());
    MongoConnection::start(MongoOptions { uri, database, collection, create_indexes }).unwrap()
}

#[async_trait]
impl RepositoryFixture for Store {
    fn repository(&self) -> Arc<dyn LogRepository> {
        Arc::new(self.repository())
    }

    async fn restart(&mut self) {
        self.reopen().await;
    }

    fn unstorable(&self, n: u32) -> Option<LogEntry> {
        let metadata = format!(r#"{{"a": "{}"}}"#, "x".repeat(16 << 20));
        Some(entry(n, "ada", "LOGIN", 5, &metadata))
    }
}

#[async_trait]
impl DeadLettersFixture for Store {
    fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        Arc::new(self.dead_letters())
    }

    async fn restart(&mut self) {
        self.reopen().await;
    }
}

/// Logs of one user, one a millisecond.
fn entries(range: std::ops::Range<u32>) -> Vec<LogEntry> {
    range.map(|n| entry(n, "ada", "LOGIN", i64::from(n), r#"{"page": "home", "n": 1}"#)).collect()
}

async fn count(store: &Store) -> u64 {
    store.logs().await.count_documents(doc! {}).await.unwrap()
}
