//! The Kafka that a test process shares.

use anyhow::{Context, Result};
use tokio::sync::OnceCell;

use super::{Kafka, KafkaOptions, metadata};
use crate::{Purpose, compose};

/// The Kafka that all tests of a process share. It cannot be killed or paused.
#[derive(Debug, Clone)]
pub struct SharedKafka {
    bootstrap: String,
}

impl SharedKafka {
    /// Returns the value for `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }
}

/// Never dropped: the watchdog kills the broker when the process ends.
static SHARED: OnceCell<(SharedKafka, Option<Kafka>)> = OnceCell::const_new();

pub(super) async fn get(purpose: Purpose) -> Result<SharedKafka> {
    let (shared, _) = SHARED.get_or_try_init(|| find_or_start(purpose)).await?;
    Ok(shared.clone())
}

async fn find_or_start(purpose: Purpose) -> Result<(SharedKafka, Option<Kafka>)> {
    if let Ok(bootstrap) = std::env::var("EYEGO_TEST_KAFKA_BROKERS") {
        metadata::responds(bootstrap.clone()).await.with_context(|| {
            format!("EYEGO_TEST_KAFKA_BROKERS ({bootstrap}): no broker responds")
        })?;
        return Ok((SharedKafka { bootstrap }, None));
    }
    let local = Kafka::start(KafkaOptions::default().purpose(purpose));
    let kafka = compose::service_or_local("kafka", local).await?;
    let bootstrap = kafka.as_ref().map_or(compose::KAFKA, Kafka::bootstrap).to_owned();
    Ok((SharedKafka { bootstrap }, kafka))
}
