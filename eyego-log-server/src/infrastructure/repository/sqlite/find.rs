//! Reads the page of a query.

use eyego_log_core::query::{Cursor, Start};
use eyego_log_core::{LogEntry, LogQuery};

use super::keys::Keys;
use super::readers::{QueryError, Snapshot};
use super::row::{self, COLUMNS_AFTER_KEY};
use super::{segments, statement};
use crate::domain::read::{Page, PageBuilder, ReadMemory};

/// Returns the page that `query` asks for.
pub(super) fn find(
    snapshot: &mut Snapshot<'_>,
    query: &LogQuery,
    memory: &dyn ReadMemory,
) -> Result<Page, QueryError> {
    let mut page = PageBuilder::new(query.limit, memory);
    if segments::divide(query) {
        find_by_keys(snapshot, query, &mut page)?;
    } else {
        find_by_time(snapshot, query, &mut page)?;
    }
    Ok(page.finish())
}

/// Merges the keys of matching entries from the segments, and reads in full only the
/// entries of the page.
fn find_by_keys(
    snapshot: &mut Snapshot<'_>,
    query: &LogQuery,
    page: &mut PageBuilder<'_, LogEntry>,
) -> Result<(), QueryError> {
    let mut entry = snapshot.connection().prepare_cached(&row::select_by_seq())?;
    let mut keys = Keys::new(snapshot, query)?;
    keys.skip_to_page()?;
    while let Some(key) = keys.next()? {
        if page.push(entry.query_row([key.seq], row::read_entry)?)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Reads the entries in the order of the index by time.
fn find_by_time(
    snapshot: &mut Snapshot<'_>,
    query: &LogQuery,
    page: &mut PageBuilder<'_, LogEntry>,
) -> Result<(), QueryError> {
    let mut start = query.start;
    if query.skipped_rows() > 0 {
        // Without metadata filters, keys are skipped in the index alone.
        let Some(last) = Keys::new(snapshot, query)?.skip_to_page()? else { return Ok(()) };
        start = Start::After(last.cursor());
    }
    while let Some(examined) = read_by_time(snapshot, query, start, page)? {
        // The read ended early, for a checkpoint.
        start = Start::After(examined);
        snapshot.renew()?;
    }
    Ok(())
}

/// Adds entries to the page, beginning at `start`. Stops early if a checkpoint needs
/// the snapshot back, and returns the position reached.
fn read_by_time(
    snapshot: &Snapshot<'_>,
    query: &LogQuery,
    start: Start,
    page: &mut PageBuilder<'_, LogEntry>,
) -> Result<Option<Cursor>, QueryError> {
    let (sql, parameters) = statement::select_columns(query, COLUMNS_AFTER_KEY, start, None);
    let mut select = snapshot.connection().prepare_cached(&sql)?;
    let mut rows = select.query(rusqlite::params_from_iter(parameters))?;
    while let Some(row) = rows.next()? {
        // Without metadata filters, SQLite's progress handler checks often enough.
        if !query.metadata.is_empty() {
            snapshot.check()?;
        }
        if statement::matches(query, row)? && page.push(row::read_entry(row)?)?.is_break() {
            break;
        }
        if snapshot.is_wanted_back() {
            return Ok(Some(row::read_key(row)?.cursor()));
        }
    }
    Ok(None)
}
