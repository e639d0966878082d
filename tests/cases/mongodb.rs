//! The store on MongoDB: the conformance suites of its ports, and what is specific to MongoDB.

mod filters;
mod foreign;
mod large;
mod limits;
mod outages;
mod refusals;
mod removal;
mod startup;
mod stats;
mod tail;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::mongodb::Client;
use ::mongodb::bson::{Document, doc};
use anyhow::ensure;
use async_trait::async_trait;
use eyego_log_core::LogEntry;
use eyego_log_server::domain::dead_letter::DeadLetters;
use eyego_log_server::domain::erasure::Erasures;
use eyego_log_server::domain::health::PartState;
use eyego_log_server::domain::removal::LogRemoval;
use eyego_log_server::domain::repository::LogRepository;
use eyego_log_server::domain::tail::LogTail;
use eyego_log_server::infrastructure::repository::mongodb::{
    MongoConnection, MongoDeadLetters, MongoErasures, MongoOptions, MongoRepository, MongoTail,
};
use stack::eventually;
use stack::mongodb::Mongo;

use crate::conformance::dead_letters::DeadLettersFixture;
use crate::conformance::removal::RemovalFixture;
use crate::conformance::repository::RepositoryFixture;
use crate::conformance::tail::TailFixture;
use crate::conformance::{self, entry, unlimited};
use crate::fixture::TIMEOUT;

#[tokio::test(flavor = "multi_thread")]
async fn repository_conforms_to_its_port() {
    conformance::repository::run(4, || async {
        Box::new(Store::shared().await) as Box<dyn RepositoryFixture>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_conform_to_their_port() {
    conformance::dead_letters::run(4, || async {
        Box::new(Store::shared().await) as Box<dyn DeadLettersFixture>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_conforms_to_its_port() {
    conformance::removal::run(4, || async {
        Box::new(Store::shared().await) as Box<dyn RemovalFixture>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn erasures_conform_to_their_port() {
    conformance::erasures::run(4, || async {
        Box::new(Store::shared().await) as Box<dyn RemovalFixture>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_conforms_to_its_port() {
    conformance::tail::run(4, || async { Box::new(Store::shared().await) as Box<dyn TailFixture> })
        .await;
}

/// A new database, and the server's connection to it.
struct Store {
    uri: String,
    database: String,
    connection: Arc<MongoConnection>,
}

impl Store {
    /// Returns a store on the shared MongoDB.
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

    fn erasures(&self) -> MongoErasures {
        MongoErasures::new(Arc::clone(&self.connection))
    }

    /// Returns the database through an independent client.
    async fn raw_database(&self) -> ::mongodb::Database {
        Client::with_uri_str(&self.uri).await.unwrap().database(&self.database)
    }

    async fn logs(&self) -> ::mongodb::Collection<Document> {
        self.raw_database().await.collection("logs")
    }

    async fn reopen(&mut self) {
        self.connection.shutdown(Instant::now() + TIMEOUT).await;
        self.connection = connect(&self.uri, &self.database, true);
        self.wait_for(PartState::is_up).await;
    }

    /// Waits until the health is as expected, and returns it.
    async fn wait_for(&self, is_expected: impl Fn(&PartState) -> bool) -> PartState {
        eventually("the health of the connection", 2 * TIMEOUT, async || {
            let state = self.connection.health().state;
            ensure!(is_expected(&state), "{state:?}");
            Ok(state)
        })
        .await
        .unwrap()
    }
}

pub(crate) fn connect(uri: &str, database: &str, create_indexes: bool) -> Arc<MongoConnection> {
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

    fn unstorable(&self, n: u32) -> LogEntry {
        let metadata = format!(r#"{{"a": "{}"}}"#, "x".repeat(16 << 20));
        entry(n, "ada", "LOGIN", 5, &metadata)
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

#[async_trait]
impl RemovalFixture for Store {
    fn repository(&self) -> Arc<dyn LogRepository> {
        Arc::new(self.repository())
    }

    fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        Arc::new(self.dead_letters())
    }

    fn removal(&self) -> Arc<dyn LogRemoval> {
        Arc::new(self.repository())
    }

    fn erasures(&self) -> Arc<dyn Erasures> {
        Arc::new(self.erasures())
    }

    async fn restart(&mut self) {
        self.reopen().await;
    }
}

#[async_trait]
impl TailFixture for Store {
    fn repository(&self) -> Arc<dyn LogRepository> {
        Arc::new(self.repository())
    }

    fn removal(&self) -> Arc<dyn LogRemoval> {
        Arc::new(self.repository())
    }

    async fn tail(&self) -> Arc<dyn LogTail> {
        self.wait_for(PartState::is_up).await;
        Arc::new(MongoTail::new(Arc::clone(&self.connection)))
    }

    async fn restart(&mut self) {
        self.reopen().await;
    }
}

/// Returns logs of one user, one per millisecond.
fn entries(range: std::ops::Range<u32>) -> Vec<LogEntry> {
    range.map(|n| entry(n, "ada", "LOGIN", i64::from(n), r#"{"page": "home", "n": 1}"#)).collect()
}

async fn count(store: &Store) -> u64 {
    store.logs().await.count_documents(doc! {}).await.unwrap()
}
