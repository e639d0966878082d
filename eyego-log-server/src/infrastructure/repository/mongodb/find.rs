//! Reads the page of a query.

use bson::oid::ObjectId;
use bson::raw::RawDocument;
use bson::{DateTime, doc};
use eyego_log_core::query::Order;
use eyego_log_core::{LogEntry, LogQuery};

use super::connection::MongoConnection;
use super::operation::{MAX_READ_TIME, QueryError};
use super::{filter, large};
use crate::domain::read::{Page, PageBuilder, ReadError, ReadMemory};

/// Number of documents of the first batch of a page. With events of the default maximum
/// size, it has 8 MiB, as much as a page.
const FIRST_BATCH: usize = 32;

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
        after: None,
        limit: FIRST_BATCH.min(remaining),
        // What a page by number skips has to be events.
        events_only: query.skipped_rows() > 0,
    };
    loop {
        let read = batch.read(connection, query, &mut page).await?;
        remaining -= read.documents;
        batch.after = read.last.or(batch.after);
        match read.end {
            End::Result | End::Page => break,
            End::NotAnEvent => batch.events_only = true,
            End::Batch => batch.limit = BATCH_BYTES * batch.limit / read.bytes.max(1),
        }
        if remaining == 0 {
            // Skipped documents may hide that more events follow.
            page.expect_more();
            break;
        }
        batch.limit = batch.limit.max(FIRST_BATCH).min(remaining);
    }
    Ok(page.finish())
}

/// Position of a document in the order of the result.
type Position = (DateTime, ObjectId);

/// Some of the documents of a page.
struct Batch {
    after: Option<Position>,
    limit: usize,
    /// Whether MongoDB recognizes what is not an event. It evaluates an expression for
    /// that, so it is asked to only once there is such a document.
    events_only: bool,
}

/// What has been read of a batch.
struct Read {
    documents: usize,
    bytes: usize,
    last: Option<Position>,
    end: End,
}

/// Why no more of a batch has been read.
enum End {
    /// The batch ends here, the result may not.
    Batch,
    Result,
    Page,
    /// The next document is not an event.
    NotAnEvent,
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
            .find(filter::of_query_after(query, self.after, self.events_only))
            .sort(doc! { "timestamp": direction, "_id": direction })
            .skip(if self.after.is_none() { query.skipped_rows() } else { 0 })
            .limit(i64::from(limit))
            .batch_size(limit)
            .collation(filter::by_bytes())
            .max_time(MAX_READ_TIME)
            .await?;
        let mut read = Read { documents: 0, bytes: 0, last: None, end: End::Result };
        while cursor.advance().await? {
            let document = cursor.current();
            let bytes = document.as_bytes().len();
            match large::decode(connection, document).await? {
                Ok(entry) => {
                    let id = ObjectId::from_bytes(*entry.id.as_bytes());
                    read.last = Some((filter::date(entry.timestamp), id));
                    if page.push(entry)?.is_break() {
                        read.end = End::Page;
                        break;
                    }
                }
                Err(_) if !self.events_only => {
                    read.end = End::NotAnEvent;
                    break;
                }
                // One such document does not fail the whole page.
                Err(error) => {
                    connection.warn_skipped(document, &error.to_string());
                    read.last = position(document);
                }
            }
            read.documents += 1;
            read.bytes += bytes;
            if read.documents == self.limit {
                read.end = End::Batch;
            }
            if bytes > LARGE_DOCUMENT {
                // Decoding a batch of them takes long.
                tokio::task::yield_now().await;
            }
        }
        Ok(read)
    }
}

/// Returns the position of a document that MongoDB recognizes as an event.
fn position(document: &RawDocument) -> Option<Position> {
    Some((document.get_datetime("timestamp").ok()?, document.get_object_id("_id").ok()?))
}
