//! Statistics: reads the fields that are counted, and counts them here, because
//! MongoDB has no bounded way to count different users.

use bson::doc;

use super::connection::MongoConnection;
use super::{decode, filter, operation};
use crate::domain::read::{ReadError, ReadMemory};
use crate::domain::stats::{Aggregate, GroupBy, Stats, StatsQuery};
use crate::infrastructure::repository::limits::ReadKind;

/// Number of documents that are read at a time if they have no metadata: about
/// 1 MB. With metadata, batches are as small as those of a page.
const BATCH: u32 = 10_000;

/// Number of events after which other tasks of the thread may run.
const EVENTS_PER_BREAK: usize = 1_000;

/// Returns the counts that `query` asks for.
pub(super) async fn stats(
    connection: &MongoConnection,
    query: &StatsQuery,
    memory: &dyn ReadMemory,
) -> Result<Stats, ReadError> {
    let _permit = connection.limits().acquire(ReadKind::Scan).await?;
    let collection = connection.read_from(&connection.options().collection)?;
    let mut fields = doc! { "userId": 1, "action": 1, "timestamp": 1 };
    let has_metadata = matches!(query.by, Some(GroupBy::Metadata(_)));
    if has_metadata {
        fields.insert("metadata", 1);
    }
    operation::query(async {
        let mut cursor = collection
            .find(filter::of_query(&query.filter))
            .projection(fields)
            .batch_size(if has_metadata { operation::batch_size(BATCH) } else { BATCH })
            .collation(filter::by_bytes())
            .max_time(operation::MAX_READ_TIME)
            .await?;
        let mut aggregate = Aggregate::new(query, memory);
        let mut read = 0;
        while cursor.advance().await? {
            match decode::entry(cursor.current()) {
                Ok(entry) => aggregate.add_entry(&entry)?,
                Err(reason) => connection.warn_skipped(cursor.current(), &reason),
            }
            read += 1;
            if read % EVENTS_PER_BREAK == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(aggregate.finish())
    })
    .await
}
