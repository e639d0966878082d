//! What the embedded queue and the embedded store share: the data directory with
//! its lock, and SQLite files that are opened as durably as both promise. Their
//! tables and queries are in their own modules.
//!
//! "Embedded" is the name of the product's parts that need no server of their
//! own. They are built on SQLite.

mod connection;
mod data_dir;
mod file_format;
mod file_watch;

use std::path::PathBuf;

pub(super) use self::connection::{
    WriterConnection, empty_log, free_bytes, open_for_checkpoints, open_for_reading, rewrite,
};
pub use self::data_dir::DataDir;
pub(super) use self::file_format::{FileFormat, PAGE_BYTES};
pub(super) use self::file_watch::CHECK_INTERVAL;

/// The reason an embedded part cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {path}: {source}")]
    Directory {
        /// Path of the directory.
        path: PathBuf,
        /// Cause of the error.
        source: std::io::Error,
    },
    /// Another process uses the data directory.
    #[error(
        "the data directory {path} is in use by another process: stop that process, \
         or choose another data directory"
    )]
    InUse {
        /// Path of the directory.
        path: PathBuf,
    },
    /// The file is not an SQLite file, or belongs to another program.
    #[error(
        "{path} is not a file of this program ({reason}): move it away, or choose another data directory"
    )]
    Foreign {
        /// Path of the file.
        path: PathBuf,
        /// How the file differs from a file of this program.
        reason: String,
    },
    /// A newer version of this program wrote the file.
    #[error(
        "{path} has format {found}, but this version supports formats up to {supported}: \
         start the version that wrote it, or a newer one"
    )]
    Newer {
        /// Path of the file.
        path: PathBuf,
        /// Format of the file.
        found: i32,
        /// Newest supported format.
        supported: i32,
    },
    /// Somebody changed the files under the running server.
    #[error(
        "{reason} while the server was running: put the right files in place and restart the server"
    )]
    Changed {
        /// What has happened, and to which file.
        reason: String,
    },
    /// SQLite cannot open the file or create its tables.
    #[error("cannot open {path}: {source}")]
    Sqlite {
        /// Path of the file.
        path: PathBuf,
        /// Cause of the error.
        source: rusqlite::Error,
    },
    /// The operating system cannot start a thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}
