//! What the tests of a running server share: a deployment with unique names, and HTTP requests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use bson::Document;
use eyego_log_server::infrastructure::embedded::DataDir;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, TopicPartitionList};
use serde_json::Value;
use stack::chaos::{KafkaTarget, Target};
use stack::kafka::Kafka;
use stack::mongodb::Mongo;
use stack::openapi;
use stack::server::{Server, ServerBuilder};
use stack::{eventually, eventually_blocking};

/// The time in which something must happen on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) const JSON: &str = "application/json";
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// Servers on one Kafka and one MongoDB, with their own topic and database.
pub(crate) struct Deployment {
    pub(crate) brokers: String,
    pub(crate) uri: String,
    pub(crate) topic: String,
    pub(crate) database: String,
}

impl Deployment {
    /// Returns a deployment on the shared Kafka and MongoDB.
    pub(crate) async fn shared() -> Self {
        let kafka = Kafka::shared().await.unwrap();
        Self::on_shared_mongodb(kafka.bootstrap()).await
    }

    /// Returns a deployment on a private Kafka and the shared MongoDB.
    pub(crate) async fn on_shared_mongodb(brokers: &str) -> Self {
        Self::on(brokers, Mongo::shared().await.unwrap().uri())
    }

    pub(crate) fn on(brokers: &str, uri: &str) -> Self {
        Self {
            brokers: brokers.to_owned(),
            uri: uri.to_owned(),
            topic: stack::unique("topic"),
            database: stack::unique("db"),
        }
    }

    /// Returns a server of the only consumer group that most tests need.
    pub(crate) fn server(&self, role: &str) -> ServerBuilder {
        self.server_in_group(role, "g")
    }

    pub(crate) fn server_in_group(&self, role: &str, group: &str) -> ServerBuilder {
        Server::builder()
            .env("EYEGO_ROLE", role)
            .env("EYEGO_KAFKA_BROKERS", &self.brokers)
            .env("EYEGO_KAFKA_TOPIC", &self.topic)
            // Several workers can share the topic.
            .env("EYEGO_KAFKA_PARTITIONS", "6")
            .env("EYEGO_KAFKA_GROUP", self.group(group))
            .env("EYEGO_MONGODB_URI", &self.uri)
            .env("EYEGO_MONGODB_DATABASE", &self.database)
    }

    pub(crate) fn group(&self, group: &str) -> String {
        format!("{}-{group}", self.topic)
    }

    /// Returns the target of a scenario that sends to this API.
    pub(crate) fn target(&self, api: &Server) -> Target {
        Target {
            apis: vec![api.base_url()],
            kafka: Some(KafkaTarget {
                brokers: self.brokers.clone(),
                topic: self.topic.clone(),
                group: self.group("g"),
            }),
        }
    }

    pub(crate) fn producer(&self) -> FutureProducer {
        ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("partitioner", "murmur2_random")
            .create()
            .unwrap()
    }

    /// Sends a record to the topic.
    pub(crate) async fn produce(&self, key: &str, value: &[u8]) {
        let record = FutureRecord::to(&self.topic).key(key).payload(value);
        self.producer().send(record, TIMEOUT).await.unwrap();
    }

    /// Sends a record with a null value to the topic.
    pub(crate) async fn produce_null(&self, key: &str) {
        let record: FutureRecord<'_, str, [u8]> = FutureRecord::to(&self.topic).key(key);
        self.producer().send(record, TIMEOUT).await.unwrap();
    }

    /// Deletes the records before `offset` from each partition that has as many, as retention does.
    pub(crate) async fn delete_records_before(&self, offset: i64) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        let consumer: BaseConsumer = config.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(&self.topic), TIMEOUT).unwrap();
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            let (_, end) = consumer.fetch_watermarks(&self.topic, partition.id(), TIMEOUT).unwrap();
            if end >= offset {
                let before = rdkafka::Offset::Offset(offset);
                list.add_partition_offset(&self.topic, partition.id(), before).unwrap();
            }
        }
        assert!(list.count() > 0, "no partition has {offset} records");
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

/// Starts a server on the embedded queue and store, and waits until it is ready.
pub(crate) async fn embedded_server() -> Server {
    ready(Server::builder()).await
}

/// Starts a server and waits until it is ready.
pub(crate) async fn ready(builder: ServerBuilder) -> Server {
    let server = builder.start().await.unwrap();
    server.wait_ready(TIMEOUT * 2).await.unwrap();
    server
}

pub(crate) fn url(server: &Server, path: &str) -> String {
    format!("{}{path}", server.base_url())
}

/// Sends a request and returns the status and the JSON body of the response, which must conform to the
/// OpenAPI document.
pub(crate) async fn send(request: reqwest::RequestBuilder) -> (u16, Value) {
    let received = openapi::send(request).await.unwrap();
    (received.status, serde_json::from_slice(&received.body).unwrap())
}

pub(crate) async fn get(server: &Server, path: &str) -> (u16, Value) {
    send(reqwest::Client::new().get(url(server, path))).await
}

/// Posts JSON.
pub(crate) async fn post(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    send(reqwest::Client::new().post(url(server, path)).json(body)).await
}

/// Posts bytes with headers.
pub(crate) async fn post_bytes(
    server: &Server,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Vec<u8>>,
) -> (u16, Value) {
    let request = reqwest::Client::new().post(url(server, path)).body(body.into());
    send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

/// Posts one event.
pub(crate) async fn post_log(server: &Server, event: &Value) -> (u16, Value) {
    post(server, "/api/v1/logs", event).await
}

/// Waits until `query` finds this many logs, and returns them, newest first. It must not find more.
pub(crate) async fn logs(server: &Server, query: &str, count: usize) -> Vec<Value> {
    let path = format!("/api/v1/logs?limit=1000&{query}");
    let what = format!("{count} logs");
    let logs = eventually(&what, TIMEOUT * 2, async || {
        let (status, page) = get(server, &path).await;
        let logs = page["data"].as_array().cloned().unwrap_or_default();
        let found = logs.len();
        ensure!(status == 200 && found >= count, "{found}: {page}\n{}", server.log());
        Ok(logs)
    });
    let logs = logs.await.unwrap();
    assert_eq!(logs.len(), count, "{query}");
    logs
}

/// Waits until the log with this id can be read, and returns it.
pub(crate) async fn stored(server: &Server, id: &str) -> Value {
    let path = format!("/api/v1/logs/{id}");
    eventually(&format!("log {id}"), TIMEOUT, async || {
        let (status, body) = get(server, &path).await;
        ensure!(status == 200, "{body}");
        Ok(body["data"].clone())
    })
    .await
    .unwrap()
}

/// Opens a data directory. A child that another test has just started can hold the lock of a closed
/// directory until it executes its program.
/// Waits until the server has logged `text`, which a thread of its own writes, and returns the log.
pub(crate) async fn logged(server: &Server, text: &str) -> String {
    eventually("the log", TIMEOUT, async || {
        let log = server.log();
        ensure!(log.contains(text), "no {text} in\n{log}");
        Ok(log)
    })
    .await
    .unwrap()
}

pub(crate) fn open_data_dir(path: &Path) -> Arc<DataDir> {
    let what = "the lock of the data directory";
    eventually_blocking(what, TIMEOUT, || Ok(DataDir::open(path)?)).unwrap()
}
