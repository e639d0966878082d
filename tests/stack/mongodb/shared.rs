//! The one MongoDB of a test process.

use anyhow::{Context, Result, anyhow};
use tokio::sync::OnceCell;

use super::{Mongo, MongoOptions, admin};
use crate::{Purpose, compose};

/// The MongoDB that all cases share: there is nothing on it to kill.
#[derive(Debug, Clone)]
pub struct SharedMongo {
    uri: String,
}

impl SharedMongo {
    /// The connection string.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }
}

/// Never dropped: its watchdog ends it with the process.
static SHARED: OnceCell<(SharedMongo, Option<Mongo>)> = OnceCell::const_new();

pub(super) async fn get(purpose: Purpose) -> Result<SharedMongo> {
    let (shared, _) = SHARED.get_or_try_init(|| start_shared(purpose)).await?;
    Ok(shared.clone())
}

async fn start_shared(purpose: Purpose) -> Result<(SharedMongo, Option<Mongo>)> {
    if let Ok(uri) = std::env::var("EYEGO_TEST_MONGODB_URI") {
        // The URI itself may hold a password.
        admin::majority_write(&uri)
            .await
            .context("no MongoDB takes a write at EYEGO_TEST_MONGODB_URI")?;
        return Ok((SharedMongo { uri }, None));
    }
    let docker =
        tokio::task::spawn_blocking(|| compose::available().then(|| compose::up("mongo"))).await?;
    let docker_error = match docker {
        Some(Ok(())) => {
            return Ok((SharedMongo { uri: compose::MONGODB.to_owned() }, None));
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    let mongo = Mongo::start(MongoOptions::default().purpose(purpose)).await.map_err(|error| {
        match docker_error {
            Some(docker_error) => anyhow!("{error:#}; and before that: {docker_error:#}"),
            None => error,
        }
    })?;
    Ok((SharedMongo { uri: mongo.uri.clone() }, Some(mongo)))
}
