//! What the embedded queue and store have in common: the data directory with
//! its lock, and opening a SQLite file as durable as they promise. Tables and
//! queries are theirs.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// How long a statement waits for a lock that somebody else holds on the file,
/// such as a person with the `sqlite3` shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// The unit in which a file grows.
pub(super) const PAGE_BYTES: u32 = 4096;

/// The directory of the embedded parts, held by this process alone.
///
/// The kernel frees the lock when the last clone is dropped or the process
/// ends, however it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Takes the directory for this process; creates it if it is not there.
    ///
    /// # Errors
    /// It cannot be made or written, or another process has it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Arc<Self>, EmbeddedError> {
        let path = path.into();
        let lock = Self::prepare(&path)
            .map_err(|source| EmbeddedError::Directory { path: path.clone(), source })?;
        match lock.try_lock() {
            Ok(()) => Ok(Arc::new(Self { path, _lock: lock })),
            Err(TryLockError::WouldBlock) => Err(EmbeddedError::InUse { path }),
            Err(TryLockError::Error(source)) => Err(EmbeddedError::Directory { path, source }),
        }
    }

    fn prepare(path: &Path) -> std::io::Result<File> {
        if !path.is_dir() {
            std::fs::create_dir_all(path)?;
            // What is durable in a directory that is not is lost with it.
            // (The directory of a relative path without a parent is `.`.)
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        File::options().create(true).truncate(false).write(true).open(path.join("lock"))
    }

    /// Where a file of this name lies.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Why an embedded part does not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The directory cannot be used.
    #[error("cannot use the data directory {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process uses the directory.
    #[error(
        "the data directory {path} is in use by another process: stop that one first, \
         or give this one a data directory of its own"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file is no SQLite file, or another program's.
    #[error(
        "{path} is not a file of this program ({reason}): move it away, or use another data directory"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// How that shows.
        reason: String,
    },
    /// The file was written by a newer version of this program.
    #[error(
        "{path} has format {found}, this version knows formats up to {known}: \
         start the version that wrote it, or a newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i32,
        /// The newest that we know.
        known: i32,
    },
    /// SQLite cannot open the file or bring it up to date.
    #[error("cannot open {path}: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// What makes a SQLite file one of ours, and how it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileFormat {
    /// Tells our files from others; one number for each kind of file.
    pub(super) application_id: i32,
    /// The version of the schema.
    pub(super) version: i32,
    /// The statements that make an empty file one of this version.
    pub(super) schema: &'static str,
    /// The write-ahead log is merged into the file at about this many pages.
    pub(super) checkpoint_pages: u32,
    /// Pages kept in memory, in KiB.
    pub(super) cache_kib: u32,
}

/// The one connection that writes a file; opened anew after it failed.
#[derive(Debug)]
pub(super) struct WriterConnection {
    path: PathBuf,
    format: FileFormat,
    connection: Option<Connection>,
    /// Nobody else may open the files while they are written.
    _data_dir: Arc<DataDir>,
}

impl WriterConnection {
    pub(super) fn open(
        data_dir: &Arc<DataDir>,
        path: PathBuf,
        format: FileFormat,
    ) -> Result<Self, EmbeddedError> {
        let connection = Some(open_for_writing(&path, &format)?);
        Ok(Self { path, format, connection, _data_dir: Arc::clone(data_dir) })
    }

    /// A file that is to be opened later: it cannot be now.
    pub(super) fn closed(data_dir: &Arc<DataDir>, path: PathBuf, format: FileFormat) -> Self {
        Self { path, format, connection: None, _data_dir: Arc::clone(data_dir) }
    }

    /// The connection; a new one after [`discard`](Self::discard).
    pub(super) fn get(&mut self) -> Result<&Connection, EmbeddedError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open_for_writing(&self.path, &self.format)?,
        };
        Ok(self.connection.insert(connection))
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// Rolls back and closes: after an error nothing is known of what the
    /// connection holds in memory.
    pub(super) fn discard(&mut self) {
        self.connection = None;
    }
}

/// A connection that only reads.
pub(super) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// A second connection that may write, beside the writer's.
pub(super) fn open_beside(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

fn open_for_writing(path: &Path, format: &FileFormat) -> Result<Connection, EmbeddedError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let in_sqlite = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => EmbeddedError::Foreign {
            path: path.to_owned(),
            reason: "it is no SQLite file".to_owned(),
        },
        _ => EmbeddedError::Sqlite { path: path.to_owned(), source },
    };
    let connection = Connection::open_with_flags(path, flags).map_err(in_sqlite)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(in_sqlite)?;
    let is_new = check_format(&connection, path, format, in_sqlite)?;
    configure(&connection, format).map_err(in_sqlite)?;
    if is_new {
        create_schema(&connection, format).map_err(in_sqlite)?;
    }
    merge_log(&connection).map_err(in_sqlite)?;
    Ok(connection)
}

/// Whether the file is empty; an error where it is not ours. Changes nothing.
fn check_format(
    connection: &Connection,
    path: &Path,
    format: &FileFormat,
    in_sqlite: impl Fn(rusqlite::Error) -> EmbeddedError,
) -> Result<bool, EmbeddedError> {
    let ask = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i32>(0));
    let application_id = ask("PRAGMA application_id").map_err(&in_sqlite)?;
    let version = ask("PRAGMA user_version").map_err(&in_sqlite)?;
    let tables = ask("SELECT count(*) FROM sqlite_schema").map_err(&in_sqlite)?;
    if application_id == 0 && version == 0 && tables == 0 {
        return Ok(true);
    }
    let path = path.to_owned();
    if application_id != format.application_id || version < 1 {
        let reason = format!("its application id is {application_id}, its version {version}");
        return Err(EmbeddedError::Foreign { path, reason });
    }
    if version > format.version {
        return Err(EmbeddedError::Newer { path, found: version, known: format.version });
    }
    if version < format.version {
        let reason = format!("its format {version} is of no release");
        return Err(EmbeddedError::Foreign { path, reason });
    }
    Ok(false)
}

fn configure(connection: &Connection, format: &FileFormat) -> rusqlite::Result<()> {
    let FileFormat { checkpoint_pages, cache_kib, .. } = *format;
    // After a burst, or a long read transaction, the log shrinks again.
    let log_bytes = u64::from(checkpoint_pages) * u64::from(PAGE_BYTES) * 2;
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_BYTES};
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = {checkpoint_pages};
         PRAGMA journal_size_limit = {log_bytes};
         PRAGMA cache_size = -{cache_kib};"
    ))?;
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode == "wal" {
        Ok(())
    } else {
        let message = format!("the file system does not allow a write-ahead log (mode {mode})");
        Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(message),
        ))
    }
}

fn create_schema(connection: &Connection, format: &FileFormat) -> rusqlite::Result<()> {
    let FileFormat { application_id, version, schema, .. } = *format;
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(schema)?;
    transaction.pragma_update(None, "application_id", application_id)?;
    transaction.pragma_update(None, "user_version", version)?;
    transaction.commit()
}

/// Merges the write-ahead log into the file, and syncs that.
///
/// After a failed sync the kernel may hold pages of the log that it will never
/// write, yet hand them out as if it had. What is found there when the file is
/// opened is therefore written anew, before anything is appended behind it:
/// else a power cut could take acknowledged rows with it.
fn merge_log(connection: &Connection) -> rusqlite::Result<()> {
    let is_busy: bool =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if is_busy {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(rusqlite::Error::SqliteFailure(
            busy,
            Some("somebody else holds the file open in a transaction".to_owned()),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: FileFormat = FileFormat {
        application_id: 7,
        version: 2,
        schema: "CREATE TABLE t(x)",
        checkpoint_pages: 1000,
        cache_kib: 2000,
    };

    fn open(path: &Path) -> Result<Connection, String> {
        open_for_writing(path, &FORMAT).map_err(|error| error.to_string())
    }

    #[test]
    fn a_second_user_of_the_directory_is_told_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not/there/yet");
        let first = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(error.contains("stop that one first"), "{error}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn the_file_is_as_durable_as_promised() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open(&dir.path().join("a.db")).unwrap();
        let ask = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i32>(0)).unwrap();
        assert_eq!(ask("PRAGMA synchronous"), 2, "FULL");
        assert_eq!(ask("PRAGMA application_id"), 7);
        assert_eq!(ask("PRAGMA user_version"), 2);
        assert_eq!(ask("SELECT count(*) FROM t"), 0);
    }

    #[test]
    fn foreign_and_newer_files_are_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");

        std::fs::write(&path, "no database at all, but long enough to be read as one").unwrap();
        assert!(open(&path).unwrap_err().contains("not a file of this program"));
        std::fs::remove_file(&path).unwrap();

        let theirs = Connection::open(&path).unwrap();
        theirs.execute_batch("CREATE TABLE theirs(x)").unwrap();
        drop(theirs);
        assert!(open(&path).unwrap_err().contains("not a file of this program"));
        std::fs::remove_file(&path).unwrap();

        drop(open(&path).unwrap());
        let ours = Connection::open(&path).unwrap();
        ours.pragma_update(None, "user_version", 3).unwrap();
        drop(ours);
        let error = open(&path).unwrap_err();
        assert!(error.contains("has format 3, this version knows formats up to 2"), "{error}");
    }
}
