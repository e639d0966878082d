//! Reads the page of a query.

use bson::{Document, doc};
use eyego_log_core::query::{Cursor, Order, Start};
use eyego_log_core::{LogEntry, LogQuery};

use super::connection::MongoConnection;
use super::operation::{MAX_READ_TIME, QueryError};
use super::{filter, large};
use crate::domain::read::{Page, PageBuilder, ReadError, ReadMemory};

/// Number of documents of the first batch of a page: a page of 50 events needs one batch only. With
/// events of the default maximum size, it has 13 MiB. MongoDB returns at most 16 MiB.
const FIRST_BATCH: usize = 51;

/// Size that the batches after it should have, in bytes.
const BATCH_BYTES: usize = 1 << 20;

/// Size in bytes above which a document is worth a break after it.
const LARGE_DOCUMENT: usize = 64 << 10;

/// Returns the page that `query` asks for. Needs a permit for the kind of the query.
///
/// Each batch is a query of its own, which begins after the last document of the one
/// before. All batches of a cursor would have the same number of documents, whose size is
/// not known before the first ones are read.
pub(super) async fn find(
    connection: &MongoConnection,
    query: &LogQuery,
    memory: &dyn ReadMemory,
) -> Result<Page, QueryError> {
    let mut page = PageBuilder::new(query.limit, memory);
    // Documents up to one past the page.
    let mut remaining = usize::try_from(query.limit).unwrap_or(usize::MAX).saturating_add(1);
    let mut batch = Batch {
        filter: filter::of_query(query),
        skip: query.skipped_rows(),
        limit: FIRST_BATCH.min(remaining),
    };
    loop {
        let read = batch.read(connection, query, &mut page).await?;
        let Some(last) = read.last else { break };
        remaining -= batch.limit;
        if remaining == 0 {
            // At least one document was skipped, so more events may follow.
            page.expect_more_after(last);
            break;
        }
        let limit = BATCH_BYTES * batch.limit / read.bytes.max(1);
        batch = Batch {
            filter: filter::of_query(&LogQuery { start: Start::After(last), ..query.clone() }),
            skip: 0,
            limit: limit.max(FIRST_BATCH).min(remaining),
        };
    }
    Ok(page.finish())
}

/// Some of the documents of a page.
struct Batch {
    filter: Document,
    skip: u64,
    limit: usize,
}

/// What has been read of a batch.
#[derive(Default)]
struct Read {
    bytes: usize,
    /// Position of the last document, unless the result or the page ends before it.
    last: Option<Cursor>,
}

impl Batch {
    /// Adds the events of the batch to the page.
    async fn read(
        &self,
        connection: &MongoConnection,
        query: &LogQuery,
        page: &mut PageBuilder<'_, LogEntry>,
    ) -> Result<Read, QueryError> {
        let direction = match query.order {
            Order::Descending => -1,
            Order::Ascending => 1,
        };
        let limit = u32::try_from(self.limit).unwrap_or(u32::MAX);
        let collection = connection.read_from(&connection.options().collection);
        let mut cursor = collection
            .map_err(ReadError::from)?
            .find(self.filter.clone())
            .sort(doc! { "timestamp": direction, "_id": direction })
            .skip(self.skip)
            .limit(i64::from(limit))
            .batch_size(limit)
            .collation(filter::by_bytes())
            .max_time(MAX_READ_TIME)
            .await?;
        let (mut read, mut count) = (Read::default(), 0);
        while cursor.advance().await? {
            let document = cursor.current();
            let bytes = document.as_bytes().len();
            (read.bytes, count) = (read.bytes + bytes, count + 1);
            match large::decode(connection, document).await? {
                Ok(entry) => {
                    if page.push(entry)?.is_break() {
                        return Ok(Read::default());
                    }
                }
                // One such document does not fail the whole page.
                Err(error) => connection.warn_skipped(document, &error.to_string()),
            }
            if count == self.limit {
                // All that the filter lets through have a position.
                read.last = filter::position(document, "timestamp");
            }
            if bytes > LARGE_DOCUMENT {
                // Decoding a batch of them takes long.
                tokio::task::yield_now().await;
            }
        }
        Ok(read)
    }
}
