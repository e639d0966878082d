//! Recovers from a file damaged by its disk: quarantines it and imports its
//! readable records into a new file.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::rows::{self, StoredChunk};
use crate::domain::position::Offset;

/// Renames the file if SQLite finds it damaged, and returns its new path.
///
/// Other problems, such as missing permissions or a full disk, are reported
/// when the file is opened.
pub(super) fn quarantine(path: &Path) -> Option<PathBuf> {
    let damage = find_damage(path)?;
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let quarantined = with_suffix(path, &format!(".damaged-{millis}"));
    let file = path.display();
    if let Err(error) = std::fs::rename(path, &quarantined) {
        tracing::error!(%file, damage, %error, "the file is damaged and cannot be renamed");
        return None;
    }
    // These files may not exist.
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::rename(with_suffix(path, suffix), with_suffix(&quarantined, suffix));
    }
    tracing::error!(
        %file,
        damage,
        quarantined = %quarantined.display(),
        "the file is damaged: quarantined it, importing its readable records"
    );
    Some(quarantined)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn find_damage(path: &Path) -> Option<String> {
    if !path.exists() {
        return None;
    }
    let check = || -> rusqlite::Result<String> {
        let connection = open(path)?;
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
    };
    match check() {
        Ok(result) => (result != "ok").then_some(result),
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

/// Imports the readable chunks of a damaged file: from its beginning up to the
/// damage, and from its end back to it. Damaged records within a chunk are
/// detected when the new file is read.
///
/// # Errors
/// Returns an error if the new file cannot be written.
pub(super) fn import(damaged: &Path, into: &Connection) -> rusqlite::Result<()> {
    let transaction = into.unchecked_transaction()?;
    // Nothing can be imported from a file that cannot be opened.
    let Ok(damaged_file) = open(damaged) else { return Ok(()) };
    let committed =
        damaged_file.query_row("SELECT next_offset FROM committed", [], |row| row.get(0)).ok();
    let mut records = 0;
    let mut last = Offset::MIN;
    for order in ["ASC", "DESC"] {
        let after = last;
        let mut import = |chunk: StoredChunk| {
            records += u64::from(chunk.records);
            last = last.max(chunk.first_offset);
            rows::import(&transaction, &chunk)
        };
        for_each_chunk(&damaged_file, order, after, committed.unwrap_or(1), &mut import)?;
    }
    rows::set_committed(&transaction, committed)?;
    transaction.commit()?;
    tracing::warn!(file = %damaged.display(), records, "imported records from the damaged file");
    Ok(())
}

/// Calls `import` with each uncommitted chunk after `after`, until a chunk
/// cannot be read.
fn for_each_chunk(
    damaged: &Connection,
    order: &str,
    after: Offset,
    committed: Offset,
    import: &mut dyn FnMut(StoredChunk) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let sql = format!(
        "SELECT * FROM chunks WHERE first_offset > ?1 AND first_offset + records > ?2
         ORDER BY first_offset {order}"
    );
    let Ok(mut statement) = damaged.prepare(&sql) else { return Ok(()) };
    let Ok(mut rows) = statement.query([after, committed]) else { return Ok(()) };
    while let Ok(Some(row)) = rows.next() {
        let Ok(chunk) = StoredChunk::from_row(row) else { break };
        import(chunk)?;
    }
    Ok(())
}
