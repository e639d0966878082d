//! The MongoDB store: log entries and dead letters, over one client.
//!
//! | file | contents |
//! |---|---|
//! | `options` | the URI, the options and the settings of the client |
//! | `connection`, `operation` | the client and its state, running operations on it |
//! | `monitor`, `indexes` | health checks and index builds in the background |
//! | `repository` | the log entries: the port |
//! | `insert`, `encode`, `duplicates` | storing |
//! | `find`, `filter`, `metadata_filter`, `decode`, `json` | reading |
//! | `stats` | statistics |
//! | `tail` | tails, from change streams |
//! | `dead_letters` | the dead letters |
//! | `removal`, `erasures` | deleting, and the erasures of users |
//! | `failure` | what each error means: one table |

mod connection;
mod dead_letters;
mod decode;
mod duplicates;
mod encode;
mod erasures;
mod failure;
mod filter;
mod find;
mod indexes;
mod insert;
mod json;
mod large;
mod metadata_filter;
mod monitor;
mod operation;
mod options;
mod removal;
mod repository;
mod stats;
mod tail;

use std::sync::Arc;

pub use self::connection::MongoConnection;
pub use self::dead_letters::MongoDeadLetters;
pub use self::erasures::MongoErasures;
pub use self::options::{InvalidUri, MongoOptions};
pub use self::repository::MongoRepository;
pub use self::tail::MongoTail;

impl MongoConnection {
    /// Starts to connect, and returns without waiting. The connection is
    /// monitored in the background until it is shut down.
    ///
    /// # Errors
    /// Returns an error if the URI is not valid.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub fn start(options: MongoOptions) -> Result<Arc<Self>, InvalidUri> {
        let uri = options.parse_uri()?;
        let connection = Arc::new(Self::new(options, uri.clone()));
        tokio::spawn(monitor::run(Arc::clone(&connection), uri));
        Ok(connection)
    }
}
