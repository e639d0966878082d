//! Creates the topic and reads its settings.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::settings::{RECORD_MARGIN, Settings};
use crate::domain::subscription::QueueError;
use crate::infrastructure::queue::kafka::reports::{describe, describe_access};
use crate::infrastructure::queue::kafka::{ClientKind, KafkaOptions, properties};

/// Timeout of a request to the brokers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Retention of the topic: 7 days. It is set explicitly, because the broker's
/// default could delete events before they are stored.
const RETENTION_MS: &str = "604800000";

type Client = AdminClient<DefaultClientContext>;

/// Creates the topic and reads its settings.
pub(super) struct Admin {
    options: Arc<KafkaOptions>,
    config: ClientConfig,
    /// Connected while it is needed.
    client: Option<Client>,
}

impl Admin {
    pub(super) fn new(options: Arc<KafkaOptions>) -> Result<Self, QueueError> {
        let mut config = options.client("eyego-topic");
        config.set("allow.auto.create.topics", "false");
        let mut config = options.finish(config, ClientKind::Admin);
        // Nothing reads the log of this client.
        config.set_log_level(RDKafkaLogLevel::Emerg);
        let mut admin = Self { options, config, client: None };
        admin.client()?;
        Ok(admin)
    }

    /// Closes the connections until they are needed again.
    pub(super) fn disconnect(&mut self) {
        if let Some(client) = self.client.take() {
            // Dropping it waits for its thread.
            std::thread::spawn(move || drop(client));
        }
    }

    fn client(&mut self) -> Result<&Client, QueueError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => self
                .config
                .create()
                .map_err(|error| properties::creation_error(&self.options, &error))?,
        };
        Ok(self.client.insert(client))
    }

    /// Creates the topic. Succeeds if it exists.
    ///
    /// # Errors
    /// Returns the reason if it cannot be created.
    pub(super) async fn create_topic(&mut self) -> Result<(), String> {
        let options = Arc::clone(&self.options);
        let KafkaOptions { topic, partitions, max_record_bytes, .. } = &*options;
        let client = self.client().map_err(|error| error.to_string())?;
        let replication = match options.replication {
            Some(replication) => replication,
            None => default_replication(client).await?,
        };
        let min_in_sync = (replication - 1).max(1).to_string();
        let max_message_bytes = (max_record_bytes + RECORD_MARGIN).max(1 << 20).to_string();
        let new_topic = NewTopic::new(topic, *partitions, TopicReplication::Fixed(replication))
            .set("cleanup.policy", "delete")
            .set("min.insync.replicas", &min_in_sync)
            .set("unclean.leader.election.enable", "false")
            .set("max.message.bytes", &max_message_bytes)
            .set("retention.bytes", "-1")
            .set("retention.ms", RETENTION_MS);
        let failed = |error: &KafkaError| {
            let reason = describe_access(&options, error, "create");
            format!("cannot create the topic {topic}: {reason}")
        };
        let created = client.create_topics([&new_topic], &admin_options()).await;
        for result in created.map_err(|error| failed(&error))? {
            match result {
                Ok(_) => tracing::info!(topic, partitions, replication, "topic created"),
                // Another process created it.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, error)) => return Err(failed(&KafkaError::AdminOp(error))),
            }
        }
        Ok(())
    }

    /// Reads the topic's settings. Returns `None` if they are unknown for now
    /// because Kafka does not respond.
    pub(super) async fn read_settings(&mut self, replicas: usize) -> Option<Settings> {
        let options = Arc::clone(&self.options);
        let KafkaOptions { topic, max_record_bytes, .. } = &*options;
        let client = self.client().ok()?;
        let specifier = ResourceSpecifier::Topic(topic);
        let described = client.describe_configs([&specifier], &admin_options()).await;
        match described.ok()?.pop()? {
            Ok(resource) => Some(Settings::read(&resource, topic, replicas, *max_record_bytes)),
            Err(
                error @ (RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed),
            ) => Some(Settings::unreadable(topic, &error.to_string())),
            Err(error) => {
                tracing::debug!(%error, "cannot read the topic's settings");
                None
            }
        }
    }
}

async fn default_replication(admin: &Client) -> Result<i32, String> {
    let failed = |error: KafkaError| format!("cannot read Kafka's defaults: {}", describe(&error));
    let inner = admin.inner();
    let metadata = inner.fetch_metadata(None, REQUEST_TIMEOUT).map_err(failed)?;
    let broker = metadata.brokers().first().ok_or("Kafka's metadata contains no broker")?.id();
    let broker = ResourceSpecifier::Broker(broker);
    let described = admin.describe_configs([&broker], &admin_options()).await.map_err(failed)?;
    let resource = described.into_iter().find_map(Result::ok);
    Ok(resource.and_then(|resource| value(&resource, "default.replication.factor")).unwrap_or(1))
}

fn value<T: FromStr>(resource: &ConfigResource, name: &str) -> Option<T> {
    resource.get(name)?.value.as_deref()?.parse().ok()
}

fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST_TIMEOUT))
        .operation_timeout(Some(REQUEST_TIMEOUT))
}
