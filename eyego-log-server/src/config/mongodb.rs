//! MongoDB.

use clap::Args;
use serde::Deserialize;

use super::ConfigError;
use super::value::{Secret, non_empty};

/// Options of a URI that would weaken what an acknowledgement means.
const OURS: [&str; 5] = ["w", "j", "journal", "wtimeoutms", "readpreference"];

#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[group(skip)]
pub(super) struct Layer {
    /// MongoDB's URI; unset: the embedded store
    #[arg(
        id = "mongodb_uri",
        long = "mongodb-uri",
        env = "EYEGO_MONGODB_URI",
        hide_env_values = true,
        global = true,
        value_name = "URI"
    )]
    uri: Option<String>,

    /// The database [default: eyego-logs]
    #[arg(
        id = "mongodb_database",
        long = "mongodb-database",
        env = "EYEGO_MONGODB_DATABASE",
        global = true,
        value_name = "NAME"
    )]
    database: Option<String>,

    /// The collection of the logs [default: logs]
    #[arg(
        id = "mongodb_collection",
        long = "mongodb-collection",
        env = "EYEGO_MONGODB_COLLECTION",
        global = true,
        value_name = "NAME"
    )]
    collection: Option<String>,

    /// Whether to create the indexes where they are absent [default: true]
    #[arg(
        id = "mongodb_create_indexes",
        long = "mongodb-create-indexes",
        env = "EYEGO_MONGODB_CREATE_INDEXES",
        global = true,
        value_name = "BOOL"
    )]
    create_indexes: Option<bool>,
}

/// MongoDB.
#[derive(Debug, Clone)]
pub struct MongoDbConfig {
    /// Where it is, with credentials. `EYEGO_MONGODB_URI`.
    pub uri: Secret,
    /// The database. `EYEGO_MONGODB_DATABASE`, default `eyego-logs`.
    pub database: String,
    /// The collection of the logs. `EYEGO_MONGODB_COLLECTION`, default `logs`.
    pub collection: String,
    /// Whether to create absent indexes. `EYEGO_MONGODB_CREATE_INDEXES`,
    /// default `true`.
    pub create_indexes: bool,
}

impl Layer {
    pub(super) fn over(self, below: Self) -> Self {
        Self {
            uri: self.uri.or(below.uri),
            database: self.database.or(below.database),
            collection: self.collection.or(below.collection),
            create_indexes: self.create_indexes.or(below.create_indexes),
        }
    }

    pub(super) fn resolve(self) -> Result<Option<MongoDbConfig>, ConfigError> {
        let Some(uri) = non_empty(self.uri) else { return Ok(None) };
        let options = uri.split_once('?').map_or("", |(_, options)| options);
        for option in options.split('&').filter_map(|option| option.split('=').next()) {
            if OURS.contains(&option.to_ascii_lowercase().as_str()) {
                return Err(ConfigError::Invalid(format!(
                    "EYEGO_MONGODB_URI must not set {option}: an acknowledged log is written by \
                     a majority and read from the primary"
                )));
            }
        }
        Ok(Some(MongoDbConfig {
            uri: Secret::new(uri),
            database: non_empty(self.database).unwrap_or_else(|| "eyego-logs".to_owned()),
            collection: non_empty(self.collection).unwrap_or_else(|| "logs".to_owned()),
            create_indexes: self.create_indexes.unwrap_or(true),
        }))
    }
}
