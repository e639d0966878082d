//! Connections to an SQLite file: one that writes, and others beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::file_format::{self, FileFormat};
use super::file_watch::FileWatch;
use super::{DataDir, EmbeddedError};

/// How long a statement waits for a lock that another connection holds, such as
/// an `sqlite3` shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// The only connection that writes rows. It is reopened after an error.
#[derive(Debug)]
pub(in crate::infrastructure) struct WriterConnection {
    path: PathBuf,
    format: FileFormat,
    connection: Option<Connection>,
    /// `None` until the file has been opened.
    watch: Option<FileWatch>,
    /// What somebody has done to the files, if it was noticed.
    changed: Option<String>,
    /// Keeps other processes from opening the files.
    data_dir: Arc<DataDir>,
}

impl WriterConnection {
    /// Opens the file. Creates it if it does not exist.
    pub(in crate::infrastructure) fn open(
        data_dir: &Arc<DataDir>,
        path: PathBuf,
        format: FileFormat,
    ) -> Result<Self, EmbeddedError> {
        let mut file = Self::closed(data_dir, path, format);
        file.get()?;
        Ok(file)
    }

    /// Creates a connection that the first [`get`](Self::get) opens.
    pub(in crate::infrastructure) fn closed(
        data_dir: &Arc<DataDir>,
        path: PathBuf,
        format: FileFormat,
    ) -> Self {
        let data_dir = Arc::clone(data_dir);
        Self { path, format, connection: None, watch: None, changed: None, data_dir }
    }

    /// Returns the connection. Opens the file if it is not open.
    pub(in crate::infrastructure) fn get(&mut self) -> Result<&Connection, EmbeddedError> {
        if let Some(reason) = &self.changed {
            return Err(EmbeddedError::Changed { reason: reason.clone() });
        }
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.reopen()?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Opens the file. If it was open before, it must still be the same file: an
    /// empty one in its place would hide that acknowledged rows are gone.
    fn reopen(&mut self) -> Result<Connection, EmbeddedError> {
        if let Some(watch) = &mut self.watch
            && let Err(reason) = watch.check_file()
        {
            return Err(self.give_up(reason));
        }
        let connection = open_for_writing(&self.path, &self.format)?;
        let file = self.watch.as_ref().map(FileWatch::file);
        let watch = FileWatch::start(&self.path, self.format.application_id, file);
        let path = self.path.clone();
        self.watch = Some(watch.map_err(|source| EmbeddedError::Directory { path, source })?);
        Ok(connection)
    }

    /// Checks, every few seconds, that nobody has deleted, replaced, truncated or
    /// overwritten the open files. Once somebody has, the file stays closed.
    ///
    /// # Errors
    /// Returns an error if somebody has.
    pub(in crate::infrastructure) fn check(&mut self) -> Result<(), EmbeddedError> {
        let Some(watch) = self.watch.as_mut().filter(|watch| watch.is_due()) else {
            return Ok(());
        };
        if self.connection.is_some()
            && let Err(reason) = watch.check().and_then(|()| self.data_dir.check())
        {
            return Err(self.give_up(reason));
        }
        Ok(())
    }

    #[expect(
        clippy::mem_forget,
        reason = "closing the last connection would merge the log into the file, and delete \
                  whatever has the name of the log now: perhaps that of a backup"
    )]
    fn give_up(&mut self, reason: String) -> EmbeddedError {
        std::mem::forget(self.connection.take());
        self.changed = Some(reason.clone());
        EmbeddedError::Changed { reason }
    }

    /// Returns `true` if the file is open.
    pub(in crate::infrastructure) fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// Rolls back and closes the connection. After an error, the state that the
    /// connection holds in memory is unknown.
    pub(in crate::infrastructure) fn discard(&mut self) {
        self.connection = None;
    }
}

/// Opens a connection that only reads.
pub(in crate::infrastructure) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Opens a second connection that can write, in order to run checkpoints.
pub(in crate::infrastructure) fn open_for_checkpoints(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

fn open_for_writing(path: &Path, format: &FileFormat) -> Result<Connection, EmbeddedError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sqlite_error = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => EmbeddedError::Foreign {
            path: path.to_owned(),
            reason: "it is not an SQLite file".to_owned(),
        },
        _ => EmbeddedError::Sqlite { path: path.to_owned(), source },
    };
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite_error)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite_error)?;
    let is_new = file_format::check(&connection, path, format, sqlite_error)?;
    file_format::configure(&connection, format).map_err(sqlite_error)?;
    if is_new {
        file_format::create_schema(&connection, format).map_err(sqlite_error)?;
    }
    empty_log(&connection).map_err(sqlite_error)?;
    Ok(connection)
}

/// Writes all pages of the file anew, without what deleted rows left in them. The
/// temporary copy is in the same directory: others may not be writable, and it
/// contains events, too.
pub(in crate::infrastructure) fn rewrite(connection: &Connection) -> rusqlite::Result<()> {
    let file = connection.path().map(Path::new);
    if let Some(dir) = file.and_then(Path::parent).and_then(Path::to_str) {
        connection.pragma_update(None, "temp_store_directory", dir)?;
    }
    connection.execute_batch("VACUUM")
}

/// Returns the free space of the disk that the file is on, in bytes.
///
/// # Errors
/// Returns an error if the file system cannot be asked.
pub(in crate::infrastructure) fn free_bytes(connection: &Connection) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(connection.path().unwrap_or_default())?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Moves the write-ahead log into the file, syncs the file and empties the log.
///
/// # Errors
/// Returns an error if another connection uses the log for longer than the busy
/// timeout.
///
/// After a failed sync, the kernel may return pages of the log that it will
/// never write. The log is therefore rewritten before anything is appended to
/// it. Otherwise a power failure could lose acknowledged rows.
pub(in crate::infrastructure) fn empty_log(connection: &Connection) -> rusqlite::Result<()> {
    let is_busy: bool =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if is_busy {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(rusqlite::Error::SqliteFailure(
            busy,
            Some("another connection has a transaction open on the file".to_owned()),
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
        is_overwriting: true,
    };

    fn open(path: &Path) -> Result<Connection, String> {
        open_for_writing(path, &FORMAT).map_err(|error| error.to_string())
    }

    #[test]
    fn a_new_file_is_durable_and_has_its_format() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open(&dir.path().join("a.db")).unwrap();
        let query = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i32>(0)).unwrap();
        assert_eq!(query("PRAGMA synchronous"), 2, "FULL");
        assert_eq!(query("PRAGMA application_id"), 7);
        assert_eq!(query("PRAGMA user_version"), 2);
        assert_eq!(query("SELECT count(*) FROM t"), 0);
    }

    #[test]
    fn foreign_and_newer_files_are_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");

        std::fs::write(&path, "no database at all, but long enough to be read as one").unwrap();
        assert!(open(&path).unwrap_err().contains("not a file of this program"));
        std::fs::remove_file(&path).unwrap();

        let foreign = Connection::open(&path).unwrap();
        foreign.execute_batch("CREATE TABLE foreign_table(x)").unwrap();
        drop(foreign);
        assert!(open(&path).unwrap_err().contains("not a file of this program"));
        std::fs::remove_file(&path).unwrap();

        drop(open(&path).unwrap());
        let newer = Connection::open(&path).unwrap();
        newer.pragma_update(None, "user_version", 3).unwrap();
        drop(newer);
        let error = open(&path).unwrap_err();
        assert!(
            error.contains("has format 3, but this version supports formats up to 2"),
            "{error}"
        );
    }
}
