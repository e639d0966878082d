//! A file that its disk has damaged: set aside whole, and what can still be
//! read of it taken over into a new one.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::rows::{self, StoredChunk};
use crate::domain::queue::Offset;

/// Moves the file away if SQLite finds it damaged; answers where it is then.
///
/// Whatever else is wrong (no right to read it, a full disk) is for the one
/// who opens it.
pub(super) fn quarantined(path: &Path) -> Option<PathBuf> {
    let fault = find_fault(path)?;
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let aside = with_suffix(path, &format!(".damaged-{millis}"));
    if let Err(error) = std::fs::rename(path, &aside) {
        tracing::error!(file = %path.display(), fault, %error, "damaged, and cannot be moved away");
        return None;
    }
    // Beside the file, or not there.
    for part in ["-wal", "-shm"] {
        let _ = std::fs::rename(with_suffix(path, part), with_suffix(&aside, part));
    }
    tracing::error!(file = %path.display(), fault, kept_as = %aside.display(), "the file is damaged");
    Some(aside)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn find_fault(path: &Path) -> Option<String> {
    if !path.exists() {
        return None;
    }
    let check = || -> rusqlite::Result<String> {
        let connection = open(path)?;
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
    };
    match check() {
        Ok(verdict) => (verdict != "ok").then_some(verdict),
        Err(error) => is_damage(&error).then(|| error.to_string()),
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

/// Takes over what can be read of a damaged file: from its beginning to the
/// damage, and from its end back to it. Record by record, the reader of the
/// new file finds out what is damaged within.
///
/// # Errors
/// The new file cannot be written.
pub(super) fn take_over(damaged: &Path, into: &Connection) -> rusqlite::Result<()> {
    let transaction = into.unchecked_transaction()?;
    // A file that cannot be opened has nothing to give.
    let Ok(damaged_file) = open(damaged) else { return Ok(()) };
    let committed =
        damaged_file.query_row("SELECT next_offset FROM committed", [], |row| row.get(0)).ok();
    let mut records = 0;
    let mut last = Offset::MIN;
    for order in ["ASC", "DESC"] {
        let after = last;
        let mut take = |chunk: StoredChunk| {
            records += u64::from(chunk.records);
            last = last.max(chunk.first_offset);
            rows::take_over(&transaction, &chunk)
        };
        for_each_chunk(&damaged_file, order, after, committed.unwrap_or(1), &mut take)?;
    }
    rows::begin_at(&transaction, committed)?;
    transaction.commit()?;
    tracing::warn!(file = %damaged.display(), records, "taken over from the damaged file");
    Ok(())
}

/// Gives each chunk past `after` that is not committed, until one cannot be
/// read.
fn for_each_chunk(
    damaged: &Connection,
    order: &str,
    after: Offset,
    committed: Offset,
    take: &mut dyn FnMut(StoredChunk) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let sql = format!(
        "SELECT * FROM chunks WHERE first_offset > ?1 AND first_offset + records > ?2
         ORDER BY first_offset {order}"
    );
    let Ok(mut statement) = damaged.prepare(&sql) else { return Ok(()) };
    let Ok(mut rows) = statement.query([after, committed]) else { return Ok(()) };
    while let Ok(Some(row)) = rows.next() {
        let Ok(chunk) = StoredChunk::from_row(row) else { break };
        take(chunk)?;
    }
    Ok(())
}
