//! The one Kafka of a test process.

use anyhow::{Context, Result, anyhow};
use tokio::sync::OnceCell;

use super::{Kafka, KafkaOptions, metadata};
use crate::{Purpose, compose};

/// The Kafka that all cases share: there is nothing on it to kill.
#[derive(Debug, Clone)]
pub struct SharedKafka {
    bootstrap: String,
}

impl SharedKafka {
    /// The value for `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }
}

/// Never dropped: its watchdog ends it with the process.
static SHARED: OnceCell<(SharedKafka, Option<Kafka>)> = OnceCell::const_new();

pub(super) async fn get(purpose: Purpose) -> Result<SharedKafka> {
    let (shared, _) = SHARED.get_or_try_init(|| start_shared(purpose)).await?;
    Ok(shared.clone())
}

async fn start_shared(purpose: Purpose) -> Result<(SharedKafka, Option<Kafka>)> {
    if let Ok(bootstrap) = std::env::var("EYEGO_TEST_KAFKA_BROKERS") {
        metadata::answers(bootstrap.clone()).await.with_context(|| {
            format!("no Kafka answers at EYEGO_TEST_KAFKA_BROKERS ({bootstrap})")
        })?;
        return Ok((SharedKafka { bootstrap }, None));
    }
    let docker =
        tokio::task::spawn_blocking(|| compose::available().then(|| compose::up("kafka"))).await?;
    let docker_error = match docker {
        Some(Ok(())) => {
            return Ok((SharedKafka { bootstrap: compose::KAFKA.to_owned() }, None));
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    let kafka = Kafka::start(KafkaOptions::default().purpose(purpose)).await.map_err(|error| {
        match docker_error {
            Some(docker_error) => anyhow!("{error:#}; and before that: {docker_error:#}"),
            None => error,
        }
    })?;
    Ok((SharedKafka { bootstrap: kafka.bootstrap.clone() }, Some(kafka)))
}
