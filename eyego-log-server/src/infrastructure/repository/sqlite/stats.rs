//! Statistics: reads the matching rows from an index, and counts them.

use eyego_log_core::query::{Cursor, Start};

use super::readers::{QueryError, Snapshot};
use super::row::{self, ACTION_AFTER_KEY, METADATA_AFTER_KEY, USER_AFTER_KEY};
use super::{segments, statement};
use crate::domain::read::ReadMemory;
use crate::domain::stats::{Aggregate, GroupBy, Stats, StatsQuery};

/// Returns the counts that `query` asks for.
pub(super) fn stats(
    snapshot: &mut Snapshot<'_>,
    query: &StatsQuery,
    memory: &dyn ReadMemory,
) -> Result<Stats, QueryError> {
    let mut aggregate = Aggregate::new(query, memory);
    let filter = &query.filter;
    let segments = if segments::divide(filter) {
        let segments = segments::of_query(snapshot.connection(), filter)?;
        segments.into_iter().map(|segment| Some(segment.number)).collect()
    } else {
        vec![None]
    };
    for segment in segments {
        let mut start = filter.start;
        while let Some(examined) = count(snapshot, query, segment, start, &mut aggregate)? {
            // The read ended early, for a checkpoint.
            start = Start::After(examined);
            snapshot.renew()?;
        }
    }
    Ok(aggregate.finish())
}

/// Counts the matching rows of a segment, or of all. Stops early if a checkpoint
/// needs the snapshot back, and returns the position reached.
fn count(
    snapshot: &Snapshot<'_>,
    query: &StatsQuery,
    segment: Option<i64>,
    start: Start,
    aggregate: &mut Aggregate<'_>,
) -> Result<Option<Cursor>, QueryError> {
    let by_metadata = matches!(query.by, Some(GroupBy::Metadata(_)));
    let has_metadata = by_metadata || !query.filter.metadata.is_empty();
    // Without metadata, the index alone contains all columns.
    let columns =
        if has_metadata { ", action, metadata, user_id" } else { ", action, NULL, user_id" };
    let (sql, parameters) = statement::select_columns(&query.filter, columns, start, segment);
    let mut statement = snapshot.connection().prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(parameters))?;
    while let Some(row) = rows.next()? {
        // Without metadata, SQLite's progress handler checks often enough.
        if has_metadata {
            snapshot.check()?;
        }
        let key = row::read_key(row)?;
        if statement::matches(&query.filter, row)? {
            let text = |column| row.get_ref(column).and_then(|value| Ok(value.as_str()?));
            let user_id = text(USER_AFTER_KEY)?;
            match &query.by {
                None => aggregate.add(key.timestamp, user_id, None)?,
                Some(GroupBy::Action) => {
                    aggregate.add(key.timestamp, user_id, Some(text(ACTION_AFTER_KEY)?))?;
                }
                Some(GroupBy::UserId) => aggregate.add(key.timestamp, user_id, Some(user_id))?,
                Some(GroupBy::Metadata(path)) => {
                    let metadata = statement::parse_metadata(text(METADATA_AFTER_KEY)?);
                    let value = path.scalar_text(&metadata);
                    aggregate.add(key.timestamp, user_id, value.as_deref())?;
                }
            }
        }
        if snapshot.is_wanted_back() {
            return Ok(Some(key.cursor()));
        }
    }
    Ok(None)
}
