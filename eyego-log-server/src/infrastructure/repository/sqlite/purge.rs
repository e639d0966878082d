//! Overwrites what deleted rows left in the file.
//!
//! SQLite overwrites deleted rows with zeros (`secure_delete`). Two kinds of copies
//! are left: pages in the write-ahead log, and rows that were moved to another page
//! when pages were split or merged, in the unused part of the old page. The caller
//! empties the log, and `VACUUM` writes all pages anew (ADR 0033).

use rusqlite::Connection;

use crate::infrastructure::embedded::{self, PAGE_BYTES};

/// Maximum size of a file that is written anew. Nothing is stored meanwhile, a few
/// seconds at this size.
const MAX_VACUUM_BYTES: u64 = 512 << 20;

/// Writes all pages anew, unless the file is too large.
pub(super) fn rewrite(connection: &Connection) -> rusqlite::Result<()> {
    let pages: u32 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let bytes = u64::from(pages) * u64::from(PAGE_BYTES);
    if bytes <= MAX_VACUUM_BYTES {
        return embedded::rewrite(connection);
    }
    tracing::warn!(
        bytes,
        max_bytes = MAX_VACUUM_BYTES,
        "the store is too large to be written anew: its unused space can contain parts of erased \
         events until `VACUUM` is run on it while the server is stopped"
    );
    Ok(())
}
