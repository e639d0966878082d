//! Options of MongoDB.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::value::{Secret, non_empty};
use super::{ConfigError, secret_file};

/// Options of a URI that would weaken the meaning of an acknowledgement.
const RESERVED_URI_OPTIONS: [&str; 5] = ["w", "j", "journal", "wtimeoutms", "readpreference"];

/// Collections that hold something else than events.
const RESERVED_COLLECTIONS: [&str; 3] = ["dead-letters", "erasures", "leases"];

/// MongoDB as the store. The server uses MongoDB if `uri` is set.
#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "MongoDB")]
pub struct MongoDbConfig {
    /// MongoDB connection string; it must not set `w`, `journal` or
    /// `readPreference` [default: none, the embedded store is used]
    #[arg(
        id = "mongodb_uri",
        long = "mongodb-uri",
        env = "EYEGO_MONGODB_URI",
        hide_env_values = true,
        value_name = "URI",
        value_parser = parse_uri
    )]
    pub uri: Option<Secret>,

    /// File that contains the connection string, instead of `mongodb-uri`
    /// [default: none]
    #[arg(
        id = "mongodb_uri_file",
        long = "mongodb-uri-file",
        env = "EYEGO_MONGODB_URI_FILE",
        value_name = "FILE"
    )]
    uri_file: Option<PathBuf>,

    /// Database that holds the stored events.
    #[arg(
        id = "mongodb_database",
        long = "mongodb-database",
        env = "EYEGO_MONGODB_DATABASE",
        default_value = "eyego-logs",
        value_name = "NAME",
        value_parser = parse_database
    )]
    pub database: String,

    /// Collection that holds the stored events.
    #[arg(
        id = "mongodb_collection",
        long = "mongodb-collection",
        env = "EYEGO_MONGODB_COLLECTION",
        default_value = "logs",
        value_name = "NAME",
        value_parser = parse_collection
    )]
    pub collection: String,

    /// Create missing indexes at startup.
    #[arg(
        id = "mongodb_create_indexes",
        long = "mongodb-create-indexes",
        env = "EYEGO_MONGODB_CREATE_INDEXES",
        default_value = "true",
        value_name = "BOOL",
        action = ArgAction::Set
    )]
    pub create_indexes: bool,
}

impl MongoDbConfig {
    pub(super) fn read_secrets(&mut self) -> Result<(), ConfigError> {
        let (given, file) = (self.uri.take(), self.uri_file.as_deref());
        self.uri = secret_file::read("EYEGO_MONGODB_URI", given, file, parse_uri)?;
        Ok(())
    }
}

fn parse_uri(text: &str) -> Result<Secret, String> {
    let uri = non_empty(text)?;
    let options = uri.split_once('?').map_or("", |(_, options)| options);
    for option in options.split('&').filter_map(|option| option.split('=').next()) {
        let name = option.to_ascii_lowercase();
        if let Some(option) = RESERVED_URI_OPTIONS.iter().find(|reserved| **reserved == name) {
            return Err(format!(
                "must not set {option}: the server writes to a majority and reads from the primary"
            ));
        }
    }
    Ok(Secret::new(uri))
}

/// Accepts what MongoDB accepts as the name of a database.
fn parse_database(text: &str) -> Result<String, String> {
    let is_valid = !text.contains(['/', '\\', '.', ' ', '"', '$', '\0']);
    if is_valid && (1..=63).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("expected 1 to 63 bytes without space or any of `/\\.\"$`".to_owned())
}

fn parse_collection(text: &str) -> Result<String, String> {
    if RESERVED_COLLECTIONS.contains(&text) {
        return Err(format!("the server keeps something else in the collection {text}"));
    }
    let is_valid = !text.contains(['$', '\0']) && !text.starts_with('.') && !text.ends_with('.');
    if is_valid && !text.starts_with("system.") && (1..=120).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("expected 1 to 120 bytes without `$`, not starting with \
         `system.` and not starting or ending with `.`"
        .to_owned())
}
