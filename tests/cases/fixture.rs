//! What cases on the real stack begin with: a server with names of its own, and how to talk to it.

use std::time::{Duration, Instant};

use bson::Document;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, TopicPartitionList};
use serde_json::Value;
use stack::kafka::Kafka;
use stack::mongodb::Mongo;
use stack::server::{Server, ServerBuilder};

use crate::conformance::PATIENCE;

/// A server on the shared Kafka and MongoDB, with names of its own.
pub(crate) struct Names {
    pub(crate) brokers: String,
    pub(crate) uri: String,
    pub(crate) topic: String,
    pub(crate) database: String,
}

impl Names {
    pub(crate) async fn new() -> Self {
        Self {
            brokers: Kafka::shared().await.unwrap().bootstrap().to_owned(),
            uri: Mongo::shared().await.unwrap().uri().to_owned(),
            topic: stack::unique("topic"),
            database: stack::unique("db"),
        }
    }

    pub(crate) fn server(&self, role: &str, group: &str) -> ServerBuilder {
        Server::builder()
            .env("EYEGO_ROLE", role)
            .env("EYEGO_KAFKA_BROKERS", &self.brokers)
            .env("EYEGO_KAFKA_TOPIC", &self.topic)
            .env("EYEGO_KAFKA_GROUP", format!("{}-{group}", self.topic))
            .env("EYEGO_MONGODB_URI", &self.uri)
            .env("EYEGO_MONGODB_DATABASE", &self.database)
    }

    pub(crate) fn producer(&self) -> FutureProducer {
        ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("partitioner", "murmur2_random")
            .create()
            .unwrap()
    }

    pub(crate) async fn produce(&self, key: &str, value: &[u8]) {
        let record = FutureRecord::to(&self.topic).key(key).payload(value);
        self.producer().send(record, PATIENCE).await.unwrap();
    }

    /// Deletes the records of each partition that has so many, as retention would.
    pub(crate) async fn delete_records_before(&self, offset: i64) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        let consumer: BaseConsumer = config.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(&self.topic), PATIENCE).unwrap();
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            let (_, end) =
                consumer.fetch_watermarks(&self.topic, partition.id(), PATIENCE).unwrap();
            if end >= offset {
                let before = rdkafka::Offset::Offset(offset);
                list.add_partition_offset(&self.topic, partition.id(), before).unwrap();
            }
        }
        assert!(list.count() > 0, "no partition has so many records");
        let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
        admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
    }

    pub(crate) async fn database(&self) -> mongodb::Database {
        mongodb::Client::with_uri_str(&self.uri).await.unwrap().database(&self.database)
    }

    pub(crate) async fn collection(&self, name: &str) -> mongodb::Collection<Document> {
        self.database().await.collection(name)
    }
}

pub(crate) async fn get(server: &Server, path: &str) -> (u16, Value) {
    let url = format!("{}{path}", server.base_url());
    let answer = reqwest::get(url).await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

pub(crate) async fn post(server: &Server, body: &Value) -> (u16, Value) {
    send(server, "/api/v1/logs", body).await
}

pub(crate) async fn send(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let url = format!("{}{path}", server.base_url());
    let answer = reqwest::Client::new().post(url).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Waits until the store shows this many logs to `query`, and answers them, newest first.
pub(crate) async fn logs(server: &Server, query: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE * 2;
    loop {
        let (status, page) = get(server, &format!("/api/v1/logs?limit=1000&{query}")).await;
        let logs = page["data"].as_array().cloned().unwrap_or_default();
        if status == 200 && logs.len() >= count {
            assert_eq!(logs.len(), count, "{query}");
            return logs;
        }
        assert!(Instant::now() < deadline, "{} of {count}: {page}\n{}", logs.len(), server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
