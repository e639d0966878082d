//! The embedded store: log entries and dead letters in one SQLite file. This
//! file holds what both share: the open file and its format.
//!
//! | file | contents |
//! |---|---|
//! | `repository` | the log entries: storing, and the port |
//! | `find`, `segments`, `row` | queries, the segments of the user index, reading rows |
//! | `stats` | statistics |
//! | `tail` | the order of commits, and tails |
//! | `dead_letters` | the dead letters |
//! | `removal`, `purge`, `erasures` | deleting, and the erasures of users |
//! | `writer`, `readers` | the thread that writes, the connections that read |
//! | `snapshot_gate` | holds readers back, so that the log can be merged |

mod dead_letters;
mod erasures;
mod find;
mod keys;
mod purge;
mod readers;
mod removal;
mod repository;
mod row;
mod segments;
mod snapshot_gate;
mod statement;
mod stats;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::sync::Arc;

use rusqlite::ErrorCode;
use tokio::sync::Semaphore;

pub use self::dead_letters::SqliteDeadLetters;
pub use self::erasures::SqliteErasures;
use self::readers::Readers;
pub use self::repository::SqliteRepository;
use self::snapshot_gate::SnapshotGate;
use self::tail::TailId;
use self::writer::{LogLimit, StoreWriter};
use crate::domain::health::{PartHealth, PartState};
use crate::infrastructure::embedded::{
    DataDir, EmbeddedError, FileFormat, PAGE_BYTES, WriterConnection,
};
use crate::infrastructure::repository::feed::Feed;

const FILE: &str = "store.db";

/// `docs/adr/0009` and `0041` explain the indexes, and `0009` why `logs` is a rowid
/// table.
const FORMAT: FileFormat = FileFormat {
    application_id: 0x4579_6553, // "EyeS"
    version: 3,
    schema: "
        CREATE TABLE logs (
            seq         INTEGER PRIMARY KEY,
            id          BLOB    NOT NULL UNIQUE,
            user_id     TEXT    NOT NULL,
            action      TEXT    NOT NULL,
            timestamp   INTEGER NOT NULL,
            received_at INTEGER,
            metadata    TEXT    NOT NULL
        );
        CREATE INDEX logs_by_user ON logs (seq >> 16, user_id, timestamp, id, action);
        CREATE INDEX logs_by_time ON logs (timestamp, id, action, user_id);
        CREATE INDEX logs_by_action ON logs (seq >> 16, action, timestamp, id, user_id);
        CREATE TABLE segments (
            number   INTEGER PRIMARY KEY,
            earliest INTEGER NOT NULL,
            latest   INTEGER NOT NULL
        );

        CREATE TABLE dead_letters (
            id        BLOB    NOT NULL UNIQUE,
            raw       BLOB    NOT NULL,
            cut_from  INTEGER,
            user_id   TEXT,
            topic     TEXT    NOT NULL,
            partition INTEGER NOT NULL,
            offset    INTEGER NOT NULL,
            queued_at INTEGER NOT NULL,
            code      TEXT    NOT NULL,
            message   TEXT    NOT NULL,
            attempts  INTEGER NOT NULL,
            failed_at INTEGER NOT NULL
        );
        CREATE INDEX dead_letters_by_time ON dead_letters (failed_at, id);
        CREATE INDEX dead_letters_by_code ON dead_letters (code, failed_at, id);
    ",
    // The log may grow to 80 MB, so that a page that changes often is written to the
    // file only once.
    checkpoint_pages: 20_000,
    cache_kib: 64 << 10,
    is_overwriting: true,
};

/// The open file of the embedded store. [`SqliteRepository`] stores log entries
/// in it, [`SqliteDeadLetters`] dead letters.
pub struct SqliteStore {
    writer: StoreWriter,
    readers: Readers,
    /// The rows stored last, by their number.
    feed: Arc<Feed<i64>>,
    /// Identifies the file in the tokens of tails.
    tail_id: TailId,
    tail_reads: Semaphore,
}

impl SqliteStore {
    /// Opens the store in the data directory. Creates it if it does not exist.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened or is not a store of this
    /// program.
    pub fn open(data_dir: &Arc<DataDir>) -> Result<Arc<Self>, EmbeddedError> {
        Self::open_with(data_dir, FORMAT)
    }

    fn open_with(data_dir: &Arc<DataDir>, format: FileFormat) -> Result<Arc<Self>, EmbeddedError> {
        let path = data_dir.file(FILE);
        let mut file = WriterConnection::open(data_dir, path.clone(), format)?;
        let sqlite_error = |source| EmbeddedError::Sqlite { path: path.clone(), source };
        let connection = file.get()?;
        connection.execute_batch(dead_letters::USER_INDEX).map_err(sqlite_error)?;
        connection.execute_batch(erasures::TABLE).map_err(sqlite_error)?;
        connection.execute_batch(tail::TABLE).map_err(sqlite_error)?;
        let tail_id = tail::id(connection).map_err(sqlite_error)?;
        let last_seq = tail::last_seq(connection).map_err(sqlite_error)?;
        let gate = Arc::new(SnapshotGate::default());
        // SQLite itself merges the log at half of this length, unless a reader prevents it.
        let max_bytes = 2 * u64::from(format.checkpoint_pages) * u64::from(PAGE_BYTES);
        let log = data_dir.file(&format!("{FILE}-wal"));
        let log = LogLimit { path: log, max_bytes, gate: Arc::clone(&gate) };
        let writer = StoreWriter::start(file, log)?;
        Ok(Arc::new(Self {
            writer,
            readers: Readers::new(path, gate),
            feed: Arc::new(Feed::new(last_seq)),
            tail_id,
            tail_reads: Semaphore::new(tail::MAX_READS),
        }))
    }

    /// Shuts down: waits until all accepted writes are durable or `deadline`
    /// passes, then closes the file. Later calls return an error.
    pub async fn close(&self, deadline: std::time::Instant) {
        self.feed.close("the store is closed");
        self.readers.close();
        self.writer.close(deadline).await;
    }

    fn health(&self) -> PartHealth {
        let state = self.writer.error().map_or(PartState::Up, PartState::Down);
        PartHealth { name: "store", state }
    }
}

/// Returns `true` if another connection held a lock for too long, which is
/// transient.
fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("health", &self.health()).finish_non_exhaustive()
    }
}
