//! The MongoDB that a test process shares.

use anyhow::{Context, Result};
use tokio::sync::OnceCell;

use super::{Mongo, MongoOptions, admin};
use crate::{Purpose, compose};

/// The MongoDB that all tests of a process share. It cannot be killed or paused.
#[derive(Debug, Clone)]
pub struct SharedMongo {
    uri: String,
}

impl SharedMongo {
    /// Returns the connection string.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }
}

/// Never dropped: the watchdog kills mongod when the process ends.
static SHARED: OnceCell<(SharedMongo, Option<Mongo>)> = OnceCell::const_new();

pub(super) async fn get(purpose: Purpose) -> Result<SharedMongo> {
    let (shared, _) = SHARED.get_or_try_init(|| find_or_start(purpose)).await?;
    Ok(shared.clone())
}

async fn find_or_start(purpose: Purpose) -> Result<(SharedMongo, Option<Mongo>)> {
    if let Ok(uri) = std::env::var("EYEGO_TEST_MONGODB_URI") {
        // The message does not show the URI, which may hold a password.
        admin::majority_write(&uri)
            .await
            .context("EYEGO_TEST_MONGODB_URI: a majority write fails")?;
        return Ok((SharedMongo { uri }, None));
    }
    let local = Mongo::start(MongoOptions::default().purpose(purpose));
    let mongo = compose::service_or_local("mongo", local).await?;
    let uri = mongo.as_ref().map_or(compose::MONGODB, Mongo::uri).to_owned();
    Ok((SharedMongo { uri }, mongo))
}
