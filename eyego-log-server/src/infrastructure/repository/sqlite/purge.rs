//! Overwrites what deleted rows left in the file.
//!
//! SQLite overwrites deleted rows with zeros (`secure_delete`). Two kinds of copies
//! are left: pages in the write-ahead log, and rows that were moved to another page
//! when pages were split or merged, in the unused part of the old page. The caller
//! empties the log, and `VACUUM` writes all pages anew (ADR 0035).

use std::time::Instant;

use rusqlite::Connection;

use crate::infrastructure::embedded::{self, PAGE_BYTES};

/// Size from which the log says that the file is being written. Smaller ones take a
/// few seconds.
const LARGE_BYTES: u64 = 512 << 20;

/// Why the file was not written anew.
#[derive(Debug, thiserror::Error)]
pub(super) enum PurgeError {
    #[error("cannot write the store anew: {0}")]
    Write(#[from] rusqlite::Error),
    #[error("cannot ask for the free space of the disk: {0}")]
    FreeSpace(std::io::Error),
    #[error(
        "the store cannot be written anew without parts of erased events: this needs {} MiB of \
         free disk space, and {} MiB are free. Erasures stay `running` until then",
        .needed_bytes >> 20, .free_bytes >> 20
    )]
    NoSpace { needed_bytes: u64, free_bytes: u64 },
}

/// Writes all pages anew. Nothing is stored meanwhile.
///
/// # Errors
/// Returns [`PurgeError::NoSpace`] if the disk has too little free space for it.
pub(super) fn rewrite(connection: &Connection) -> Result<(), PurgeError> {
    let pages: u32 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let bytes = u64::from(pages) * u64::from(PAGE_BYTES);
    check_space(bytes, embedded::free_bytes(connection).map_err(PurgeError::FreeSpace)?)?;
    let began = Instant::now();
    if bytes > LARGE_BYTES {
        tracing::info!(
            bytes,
            "writing the store anew after an erasure: nothing is stored meanwhile"
        );
    }
    embedded::rewrite(connection)?;
    if bytes > LARGE_BYTES {
        tracing::info!(seconds = began.elapsed().as_secs(), "the store is written anew");
    }
    Ok(())
}

/// Fails if the disk has no space for two copies of the file, one that is temporary and
/// one in the write-ahead log, and for what arrives in the queue meanwhile. A full
/// disk would stop the queue as well.
fn check_space(bytes: u64, free_bytes: u64) -> Result<(), PurgeError> {
    let needed_bytes = 2 * bytes + bytes / 4 + (16 << 20);
    if free_bytes < needed_bytes {
        return Err(PurgeError::NoSpace { needed_bytes, free_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_for_two_copies_is_refused() {
        const GIB: u64 = 1 << 30;
        assert!(check_space(4 * GIB, 10 * GIB).is_ok());
        assert!(check_space(0, 16 << 20).is_ok());
        let error = check_space(4 * GIB, 8 * GIB).unwrap_err().to_string();
        assert!(error.contains("needs 9232 MiB") && error.contains("8192 MiB are"), "{error}");
    }
}
