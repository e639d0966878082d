//! The embedded store: the logs and the dead letters in one SQLite file. Here
//! is what both share: the file, its tables and its ends (`writer` and
//! `readers`).

mod dead_letters;
mod find;
mod logs;
mod readers;
mod segments;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode};

pub use self::dead_letters::SqliteDeadLetters;
pub use self::logs::SqliteRepository;
use self::readers::Readers;
use self::writer::StoreWriter;
use crate::domain::health::{PartHealth, PartState};
use crate::domain::repository::{ReadError, StoreError};
use crate::infrastructure::embedded::{DataDir, EmbeddedError, FileFormat, WriterConnection};

const FILE: &str = "store.db";

/// A plain table with a unique id beside it, not `WITHOUT ROWID`: a million
/// rows of 350 bytes in transactions of 5,000, on 2 busy cores, went in at
/// 82,000/s against 96,000/s with minted (ascending) ids, but at 47,000/s
/// against 24,000/s with derived (random) ones, since those then scatter 12
/// bytes and not the whole row; a user's latest 50 came out in 128 µs against
/// 195 µs. Pages of 8 KiB gain nothing.
const FORMAT: FileFormat = FileFormat {
    application_id: 0x4579_6553, // "EyeS"
    version: 2,
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
        CREATE INDEX logs_by_user ON logs (seq >> 16, user_id, timestamp, id);
        CREATE INDEX logs_by_time ON logs (timestamp, id);
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
    // 80 MB of log: pages that are written again and again are merged once.
    checkpoint_pages: 20_000,
    cache_kib: 64 << 10,
};

/// The embedded store's file, open: the logs are in it
/// ([`SqliteRepository`]), and the dead letters ([`SqliteDeadLetters`]).
pub struct SqliteStore {
    writer: StoreWriter,
    readers: Readers,
}

impl SqliteStore {
    /// Opens the store in this directory; makes it if there is none.
    ///
    /// # Errors
    /// The file cannot be opened, or is not ours.
    pub fn open(data_dir: &Arc<DataDir>) -> Result<Arc<Self>, EmbeddedError> {
        let path = data_dir.file(FILE);
        let file = WriterConnection::open(data_dir, path.clone(), FORMAT)?;
        Ok(Arc::new(Self { writer: StoreWriter::start(file)?, readers: Readers::new(path) }))
    }

    /// Ends: waits until what was given to be stored is, at most until the
    /// deadline, and closes the file. What comes later is answered
    /// [`StoreError::Transient`].
    pub async fn close(&self, deadline: std::time::Instant) {
        self.readers.close();
        self.writer.close(deadline).await;
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.write(work).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.readers.read(work).await
    }

    fn health(&self) -> PartHealth {
        let state = self.writer.trouble().map_or(PartState::Up, PartState::Down);
        PartHealth { name: "store", state }
    }
}

/// Whether a wait for somebody else's lock ended: that passes.
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
