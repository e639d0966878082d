//! The options of the MongoDB client: the URI, and the settings that this program's
//! promises need.

use std::fmt;
use std::time::Duration;

use mongodb::Client;
use mongodb::error::ErrorKind;
use mongodb::options::{
    Acknowledgment, ClientOptions, ConnectionString, ReadPreference, SelectionCriteria,
    WriteConcern,
};

use super::operation::WRITE_CONCERN_TIMEOUT;

/// Maximum time to find a primary. An outage is reported within this time.
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval of the driver's health checks. A frozen server is detected within
/// this interval plus the connect timeout.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Enough for eight bulks, their reads of duplicates, and dead letters.
const MAX_POOL_SIZE: u32 = 64;

/// How long a connection is kept that nothing uses. The driver's default is forever,
/// so a process would keep the connections of its busiest moment.
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);

/// How to reach MongoDB, and what to use there.
#[derive(Clone)]
pub struct MongoOptions {
    /// URI, including credentials. Its write concern and read preference are
    /// ignored.
    pub uri: String,
    /// Name of the database.
    pub database: String,
    /// Name of the collection of log entries.
    pub collection: String,
    /// Whether to create missing indexes.
    pub create_indexes: bool,
}

impl fmt::Debug for MongoOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URI is omitted because it can contain a password.
        f.debug_struct("MongoOptions")
            .field("database", &self.database)
            .field("collection", &self.collection)
            .field("create_indexes", &self.create_indexes)
            .finish_non_exhaustive()
    }
}

impl MongoOptions {
    pub(super) fn parse_uri(&self) -> Result<ConnectionString, InvalidUri> {
        let uri = ConnectionString::parse(&self.uri)
            .map_err(|error| InvalidUri(without_credentials(&self.uri, &error)))?;
        // The driver checks it only when it creates a client, which we retry.
        let max_pool_size = uri.max_pool_size.unwrap_or(MAX_POOL_SIZE);
        if max_pool_size == 0 || uri.min_pool_size.is_some_and(|min| min > max_pool_size) {
            return Err(InvalidUri(format!(
                "maxPoolSize must be at least 1 and at least minPoolSize; it is {max_pool_size}"
            )));
        }
        Ok(uri)
    }
}

/// The error of a MongoDB URI that is not valid. Its message contains no
/// credentials.
#[derive(Debug, thiserror::Error)]
#[error("EYEGO_MONGODB_URI: {0}")]
pub struct InvalidUri(String);

/// Creates a client for writes and one for reads, which connect in the background.
/// For a `mongodb+srv` URI, this looks up the hosts in the DNS. `maxPoolSize` of
/// the URI applies to writes.
pub(super) async fn create_clients(
    uri: ConnectionString,
    read_connections: u32,
) -> mongodb::error::Result<(Client, Client)> {
    let mut options = ClientOptions::parse(uri).await?;
    configure(&mut options);
    let mut for_reads = options.clone();
    for_reads.max_pool_size = Some(read_connections);
    for_reads.min_pool_size = None;
    Ok((Client::with_options(options)?, Client::with_options(for_reads)?))
}

/// Applies our settings. The URI can override those that no promise depends on.
fn configure(options: &mut ClientOptions) {
    let concern = WriteConcern::builder()
        .w(Acknowledgment::Majority)
        // The majority of a replica set implies it, a standalone does not.
        .journal(true)
        .w_timeout(WRITE_CONCERN_TIMEOUT)
        .build();
    options.write_concern = Some(concern);
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options.app_name.get_or_insert_with(|| "eyego-log-server".to_owned());
    options.server_selection_timeout.get_or_insert(SERVER_SELECTION_TIMEOUT);
    options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
    options.heartbeat_freq.get_or_insert(HEARTBEAT);
    options.max_pool_size.get_or_insert(MAX_POOL_SIZE);
    options.max_idle_time.get_or_insert(MAX_IDLE_TIME);
}

/// Returns the reason a URI is not valid, without its credentials.
fn without_credentials(uri: &str, error: &mongodb::error::Error) -> String {
    let reason = match error.kind.as_ref() {
        ErrorKind::InvalidArgument { message, .. } => message.clone(),
        other => other.to_string(),
    };
    let secrets = uri.rsplit_once('@').map_or("", |(before, _)| before);
    let secrets = secrets.split_once("://").map_or(secrets, |(_, after)| after);
    let quotes_secret = secrets
        .split([':', '/', '@', ',', '?', '&', '='])
        .any(|part| part.len() > 2 && reason.contains(part));
    if quotes_secret {
        "it cannot be parsed (is the password percent-encoded?)".to_owned()
    } else {
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_and_errors_contain_no_credentials() {
        let with = |uri: &str| MongoOptions {
            uri: uri.to_owned(),
            database: "d".to_owned(),
            collection: "c".to_owned(),
            create_indexes: true,
        };
        let options = with("mongodb://alice:s3cr3t@host/");
        assert!(!format!("{options:?}").contains("s3cr3t"));
        for uri in [
            "mongodb://alice:s3cr3t/word@host:27017/",
            "mongodb://alice:s3cr3t@host:port/",
            "mongodb://alice:s3cr3t%@host/",
            "http://alice:s3cr3t@host/",
            "mongodb://alice:s3cr3t@host/?w=-1",
        ] {
            let error = with(uri).parse_uri().unwrap_err().to_string();
            assert!(!error.contains("s3cr3t") && !error.contains("alice"), "{error}");
            assert!(error.starts_with("EYEGO_MONGODB_URI: "), "{error}");
        }
    }

    #[test]
    fn pool_sizes_that_the_driver_refuses_are_refused_at_the_start() {
        for (pool, is_valid) in [
            ("maxPoolSize=0", false),
            ("minPoolSize=5&maxPoolSize=4", false),
            ("minPoolSize=1000", false),
            ("minPoolSize=4&maxPoolSize=4", true),
        ] {
            let options = MongoOptions {
                uri: format!("mongodb://host/?{pool}"),
                database: "d".to_owned(),
                collection: "c".to_owned(),
                create_indexes: true,
            };
            assert_eq!(options.parse_uri().is_ok(), is_valid, "{pool}");
        }
    }
}
