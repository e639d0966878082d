//! Finds or creates the topic, and monitors whether it is reachable.
//!
//! Nothing is produced or consumed before the topic is confirmed. Otherwise the
//! broker might create it with its default number of partitions, and changing
//! that number later would move keys between partitions.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::watch;

use super::{ClientKind, KafkaOptions, properties};
use crate::domain::subscription::QueueError;

/// Interval at which a reachable topic is checked.
const READY_INTERVAL: Duration = Duration::from_secs(3);

/// Interval at which an absent or unreachable topic is checked.
const ABSENT_INTERVAL: Duration = Duration::from_millis(500);

/// Timeout of a request to the brokers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Retention of the topic: 7 days. It is set explicitly, because the broker's
/// default could delete events before they are stored.
const RETENTION_MS: &str = "604800000";

/// Last observed state of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TopicState {
    /// The topic exists and is reachable.
    Ready {
        /// Configuration problem that an operator should fix.
        warning: Option<String>,
    },
    /// The topic is absent or unreachable, for this reason.
    Absent(String),
}

/// The topic, monitored by a background task.
pub(super) struct Topic {
    options: Arc<KafkaOptions>,
    state: Mutex<TopicState>,
    /// Retention of the topic; `None` if it is unlimited or unknown.
    retention: Mutex<Option<Duration>>,
    /// Whether the topic was found once, so that producing and consuming do not
    /// create it.
    is_confirmed: watch::Sender<bool>,
    is_stopped: watch::Sender<bool>,
}

/// Clients of the monitor.
struct Clients {
    /// A consumer, because a producer's metadata request can create the topic.
    metadata: Arc<BaseConsumer>,
    admin: AdminClient<DefaultClientContext>,
}

impl Topic {
    /// Starts to monitor the topic. Must be called within a tokio runtime.
    pub(super) fn start(options: Arc<KafkaOptions>) -> Result<Arc<Self>, QueueError> {
        let checked = Arc::clone(&options);
        let failed = |error| properties::creation_error(&checked, &error);
        let mut config = options.client("eyego-topic");
        config.set("allow.auto.create.topics", "false");
        let config = options.finish(config, ClientKind::Admin);
        let admin = options.finish(options.client("eyego-topic"), ClientKind::Admin);
        let clients = Clients {
            metadata: Arc::new(config.create().map_err(failed)?),
            admin: admin.create().map_err(failed)?,
        };
        let topic = Arc::new(Self {
            options,
            state: Mutex::new(TopicState::Absent("not connected to Kafka yet".to_owned())),
            retention: Mutex::default(),
            is_confirmed: watch::Sender::new(false),
            is_stopped: watch::Sender::new(false),
        });
        tokio::spawn(Arc::clone(&topic).monitor(clients));
        Ok(topic)
    }

    /// Returns the last observed state.
    pub(super) fn state(&self) -> TopicState {
        self.state.lock().clone()
    }

    /// Returns `true` once it is safe to produce and consume.
    pub(super) fn is_confirmed(&self) -> bool {
        *self.is_confirmed.borrow()
    }

    /// Returns how long the topic keeps records; `None` if unlimited or unknown.
    pub(super) fn retention(&self) -> Option<Duration> {
        *self.retention.lock()
    }

    /// Returns the reason the topic is not usable yet.
    pub(super) fn reason(&self) -> String {
        match self.state() {
            TopicState::Absent(reason) => reason,
            TopicState::Ready { .. } => "the topic was just found".to_owned(),
        }
    }

    /// Stops the monitor.
    pub(super) fn stop(&self) {
        self.is_stopped.send_replace(true);
    }

    async fn monitor(self: Arc<Self>, clients: Clients) {
        let mut warning = None;
        let mut is_described = false;
        let mut stopped = self.is_stopped.subscribe();
        loop {
            let state = match self.find_or_create(&clients).await {
                Ok(replicas) => {
                    if !is_described {
                        warning = self.describe(&clients.admin, replicas).await;
                        is_described = true;
                    }
                    TopicState::Ready { warning: warning.clone() }
                }
                Err(reason) => {
                    is_described = false;
                    TopicState::Absent(reason)
                }
            };
            let pause = match state {
                TopicState::Ready { .. } => READY_INTERVAL,
                TopicState::Absent(_) => ABSENT_INTERVAL,
            };
            self.set(state);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    fn set(&self, state: TopicState) {
        // Before the state is published, because readers act on it.
        if matches!(state, TopicState::Ready { .. }) {
            self.is_confirmed.send_replace(true);
        }
        let previous = std::mem::replace(&mut *self.state.lock(), state.clone());
        if previous == state {
            return;
        }
        let topic = self.options.topic.as_str();
        match state {
            TopicState::Ready { warning } => {
                tracing::info!(topic, "Kafka is ready");
                if let Some(warning) = warning {
                    tracing::warn!(topic, "{warning}");
                }
            }
            TopicState::Absent(reason) => tracing::warn!(topic, reason, "Kafka is not ready"),
        }
    }

    /// Finds the topic or creates it, and returns its number of replicas.
    async fn find_or_create(&self, clients: &Clients) -> Result<usize, String> {
        match self.find(&clients.metadata).await? {
            Some(replicas) => Ok(replicas),
            None => {
                self.create(&clients.admin).await?;
                let found = self.find(&clients.metadata).await?;
                found.ok_or_else(|| "the topic was created but is not visible yet".to_owned())
            }
        }
    }

    async fn find(&self, client: &Arc<BaseConsumer>) -> Result<Option<usize>, String> {
        let (client, name) = (Arc::clone(client), self.options.topic.clone());
        let request = tokio::task::spawn_blocking(move || {
            client.fetch_metadata(Some(&name), REQUEST_TIMEOUT).map(|metadata| {
                let topic = metadata.topics().iter().find(|topic| topic.name() == name)?;
                let absent = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
                if topic.error() == Some(absent) || topic.partitions().is_empty() {
                    return None;
                }
                let partitions = topic.partitions();
                let leaderless = partitions.iter().filter(|partition| partition.leader() < 0);
                let replicas = partitions.iter().map(|p| p.replicas().len()).min();
                Some((replicas.unwrap_or(0), leaderless.count(), partitions.len()))
            })
        });
        let found =
            request.await.map_err(|error| format!("the metadata request panicked: {error}"))?;
        match found {
            Ok(Some((_, leaderless, all))) if leaderless == all => {
                Err("no partition of the topic has a leader".to_owned())
            }
            Ok(found) => Ok(found.map(|(replicas, ..)| replicas)),
            Err(error) => {
                Err(format!("Kafka at {}: {}", self.options.brokers, short_message(&error)))
            }
        }
    }

    async fn create(&self, admin: &AdminClient<DefaultClientContext>) -> Result<(), String> {
        let KafkaOptions { topic, partitions, max_record_bytes, .. } = &*self.options;
        let replication = match self.options.replication {
            Some(replication) => replication,
            None => default_replication(admin).await?,
        };
        let min_in_sync = (replication - 1).max(1).to_string();
        let max_message_bytes = (max_record_bytes + (64 << 10)).max(1 << 20).to_string();
        let new_topic = NewTopic::new(topic, *partitions, TopicReplication::Fixed(replication))
            .set("min.insync.replicas", &min_in_sync)
            .set("unclean.leader.election.enable", "false")
            .set("max.message.bytes", &max_message_bytes)
            .set("retention.ms", RETENTION_MS);
        let failed = |error: &dyn std::fmt::Display| format!("cannot create the topic: {error}");
        let created = admin.create_topics([&new_topic], &admin_options()).await;
        for result in created.map_err(|error| failed(&error))? {
            match result {
                Ok(_) => tracing::info!(topic, partitions, replication, "topic created"),
                // Another process created it.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, error)) => return Err(failed(&error)),
            }
        }
        Ok(())
    }

    /// Reads the topic's configuration: stores its retention, and returns a
    /// warning if acknowledged records could be lost.
    async fn describe(
        &self,
        admin: &AdminClient<DefaultClientContext>,
        replicas: usize,
    ) -> Option<String> {
        let topic = ResourceSpecifier::Topic(&self.options.topic);
        let described = admin.describe_configs([&topic], &admin_options()).await.ok()?;
        let resource = described.into_iter().find_map(Result::ok)?;
        // -1 means unlimited and does not parse.
        let retention = value::<u64>(&resource, "retention.ms").map(Duration::from_millis);
        *self.retention.lock() = retention;
        let min_in_sync = value::<i32>(&resource, "min.insync.replicas")?;
        (replicas > 1 && min_in_sync == 1).then(|| {
            format!(
                "the topic has {replicas} replicas but min.insync.replicas is 1: an event \
                 acknowledged by only one broker is lost with it; set it to {}",
                replicas - 1
            )
        })
    }
}

async fn default_replication(admin: &AdminClient<DefaultClientContext>) -> Result<i32, String> {
    let failed = |error: KafkaError| format!("cannot read Kafka's defaults: {error}");
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

fn short_message(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown) => {
            "unreachable".to_owned()
        }
        Some(RDKafkaErrorCode::OperationTimedOut) => "request timed out".to_owned(),
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}
