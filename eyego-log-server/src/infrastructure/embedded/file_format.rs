//! The format of an SQLite file: whether a file is one of ours, its settings and
//! its schema.

use std::path::Path;

use rusqlite::Connection;

use super::EmbeddedError;

/// Page size. Files grow by whole pages.
pub(in crate::infrastructure) const PAGE_BYTES: u32 = 4096;

/// Identity, schema and settings of one kind of SQLite file.
#[derive(Debug, Clone, Copy)]
pub(in crate::infrastructure) struct FileFormat {
    /// Distinguishes this kind of file from all others.
    pub(in crate::infrastructure) application_id: i32,
    /// Version of the schema.
    pub(in crate::infrastructure) version: i32,
    /// Statements that create the tables of this version in an empty file.
    pub(in crate::infrastructure) schema: &'static str,
    /// Number of pages in the write-ahead log after which SQLite runs a
    /// checkpoint.
    pub(in crate::infrastructure) checkpoint_pages: u32,
    /// Size of the page cache, in KiB.
    pub(in crate::infrastructure) cache_kib: u32,
    /// Whether deleted rows are overwritten with zeros.
    pub(in crate::infrastructure) is_overwriting: bool,
}

/// Returns `true` if the file is new and empty. Changes nothing.
///
/// # Errors
/// Returns an error if the file cannot be read, is not of this kind, or has
/// another version.
pub(super) fn check(
    connection: &Connection,
    path: &Path,
    format: &FileFormat,
    sqlite_error: impl Fn(rusqlite::Error) -> EmbeddedError,
) -> Result<bool, EmbeddedError> {
    let query = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i32>(0));
    let application_id = query("PRAGMA application_id").map_err(&sqlite_error)?;
    let version = query("PRAGMA user_version").map_err(&sqlite_error)?;
    let tables = query("SELECT count(*) FROM sqlite_schema").map_err(&sqlite_error)?;
    if application_id == 0 && version == 0 && tables == 0 {
        return Ok(true);
    }
    let path = path.to_owned();
    if application_id != format.application_id || version < 1 {
        let reason = format!("its application id is {application_id}, its version {version}");
        return Err(EmbeddedError::Foreign { path, reason });
    }
    if version > format.version {
        return Err(EmbeddedError::Newer { path, found: version, supported: format.version });
    }
    if version < format.version {
        let reason = format!("no release wrote its format {version}");
        return Err(EmbeddedError::Foreign { path, reason });
    }
    Ok(false)
}

/// Sets a writing connection up for durable commits to a write-ahead log.
pub(super) fn configure(connection: &Connection, format: &FileFormat) -> rusqlite::Result<()> {
    let FileFormat { checkpoint_pages, cache_kib, is_overwriting, .. } = *format;
    // Lets the log shrink again after a burst or a long read transaction.
    let log_bytes = u64::from(checkpoint_pages) * u64::from(PAGE_BYTES) * 2;
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_BYTES};
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = {checkpoint_pages};
         PRAGMA journal_size_limit = {log_bytes};
         PRAGMA cache_size = -{cache_kib};
         PRAGMA secure_delete = {is_overwriting};"
    ))?;
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode == "wal" {
        Ok(())
    } else {
        let message = format!("the file system does not support a write-ahead log (mode {mode})");
        Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(message),
        ))
    }
}

/// Creates the tables of a new file.
pub(super) fn create_schema(connection: &Connection, format: &FileFormat) -> rusqlite::Result<()> {
    let FileFormat { application_id, version, schema, .. } = *format;
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(schema)?;
    transaction.pragma_update(None, "application_id", application_id)?;
    transaction.pragma_update(None, "user_version", version)?;
    transaction.commit()
}
