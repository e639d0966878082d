//! Statistics. MongoDB groups the events if it can do so exactly and in bounded
//! memory. Otherwise the fields that are counted are read, and counted here
//! (ADR 0039).

mod pipeline;

use bson::raw::RawDocument;
use bson::{Document, RawBsonRef, RawDocumentBuf, doc};
use eyego_log_core::LogEntry;
use mongodb::error::ErrorKind;
use mongodb::options::Hint;
use mongodb::{Collection, Cursor};

use self::pipeline::Content;
use super::connection::MongoConnection;
use super::failure::{Class, class_of};
use super::operation::QueryError;
use super::{decode, filter, large, operation};
use crate::domain::read::{ReadError, ReadMemory};
use crate::domain::stats::{Aggregate, GroupBy, Stats, StatsQuery};
use crate::infrastructure::repository::limits::ReadKind;

/// Number of documents that are read at a time if they have no metadata: about
/// 1 MB. With metadata, batches are as small as those of a page.
const BATCH: u32 = 10_000;

/// Number of documents after which other tasks of the thread may run.
const DOCUMENTS_PER_BREAK: usize = 1_000;

/// Returns the counts that `query` asks for.
pub(super) async fn stats(
    connection: &MongoConnection,
    query: &StatsQuery,
    memory: &dyn ReadMemory,
) -> Result<Stats, ReadError> {
    let _permit = connection.limits().acquire(ReadKind::Scan).await?;
    let collection = connection.read_from(&connection.options().collection)?;
    operation::query(async {
        match in_mongodb(&collection, query, memory).await {
            Ok(Some(stats)) => return Ok(stats),
            Ok(None) => {}
            Err(QueryError::MongoDb(error)) if is_refusal(&error) => {
                tracing::debug!(%error, "MongoDB cannot group the events: they are counted here");
            }
            Err(error) => return Err(error),
        }
        here(connection, &collection, query, memory).await
    })
    .await
}

/// Lets MongoDB group the events by bucket and value, and the users by value.
/// Returns `None` if its counts would differ from those of [`Aggregate`].
async fn in_mongodb(
    collection: &Collection<RawDocumentBuf>,
    query: &StatsQuery,
    memory: &dyn ReadMemory,
) -> Result<Option<Stats>, QueryError> {
    let Some(counts) = pipeline::counts(query) else { return Ok(None) };
    let may_have_arrays = may_have_arrays(collection, query);
    let (may_have_arrays, content) = futures_util::try_join!(may_have_arrays, content(collection))?;
    // An array that contains a user or an action matches like that user or action.
    if may_have_arrays {
        return Ok(None);
    }
    let matching = pipeline::matching(&query.filter, content);
    let grouped = async |group: Document| {
        collection
            .aggregate([doc! { "$match": matching.clone() }, doc! { "$group": group }])
            .with_type::<RawDocumentBuf>()
            .hint(Hint::Keys(pipeline::index(&query.filter)))
            .batch_size(BATCH)
            // Past 100 MB, counting here is faster.
            .allow_disk_use(false)
            .collation(filter::by_bytes())
            .max_time(operation::MAX_READ_TIME)
            .await
    };
    let users = async {
        match pipeline::users(query) {
            Some(group) => grouped(group).await.map(Some),
            None => Ok(None),
        }
    };
    let (counts, users) = futures_util::try_join!(grouped(counts), users)?;
    let mut aggregate = Aggregate::new(query, memory);
    each(counts, |document| {
        let Some((bucket, value, count)) = pipeline::read_counts(document) else { return Ok(()) };
        aggregate.add_events(bucket, value, count)?;
        match (&query.by, value) {
            (Some(GroupBy::UserId), Some(user)) => aggregate.add_user(user, value),
            _ => Ok(()),
        }
    })
    .await?;
    if let Some(users) = users {
        each(users, |document| {
            let (value, users) = pipeline::read_users(document);
            users.into_iter().try_for_each(|user| aggregate.add_user(user, value))
        })
        .await?;
    }
    Ok(Some(aggregate.finish()))
}

/// Returns whether an indexed field of a document could be an array. MongoDB
/// tracks this for the whole index, and `explain` returns it without executing the query.
async fn may_have_arrays(
    collection: &Collection<RawDocumentBuf>,
    query: &StatsQuery,
) -> Result<bool, QueryError> {
    let find = doc! {
        "find": collection.name(),
        "filter": pipeline::matching(&query.filter, Content::Any),
        "hint": pipeline::index(&query.filter),
        "collation": { "locale": "simple" },
    };
    let explain = doc! { "explain": find, "verbosity": "queryPlanner" };
    let database = collection.client().database(&collection.namespace().db);
    let plan = database.run_command(explain).await?;
    Ok(pipeline::is_multikey(&plan))
}

/// Returns what the collection contains. Takes a search in three indexes.
async fn content(collection: &Collection<RawDocumentBuf>) -> Result<Content, QueryError> {
    for (filter, index) in pipeline::not_events() {
        let found = collection
            .find_one(filter)
            .hint(Hint::Keys(index))
            .projection(doc! { "_id": 1 })
            .collation(filter::by_bytes())
            .max_time(operation::MAX_READ_TIME)
            .await?;
        if found.is_some() {
            return Ok(Content::Any);
        }
    }
    Ok(Content::Events)
}

/// Returns whether MongoDB works, but refuses this pipeline: because the index is
/// missing, or because the groups or the result are too large.
fn is_refusal(error: &mongodb::error::Error) -> bool {
    match &*error.kind {
        ErrorKind::Command(command) => {
            matches!(class_of(command.code), Class::Document | Class::Unknown)
        }
        _ => false,
    }
}

/// Reads the fields that are counted, and counts them.
async fn here(
    connection: &MongoConnection,
    collection: &Collection<RawDocumentBuf>,
    query: &StatsQuery,
    memory: &dyn ReadMemory,
) -> Result<Stats, QueryError> {
    let has_metadata = matches!(query.by, Some(GroupBy::Metadata(_)));
    let find = if has_metadata {
        collection
            .find(filter::of_query(&query.filter))
            .projection(doc! { "userId": 1, "action": 1, "timestamp": 1, "metadata": 1 })
            .batch_size(operation::batch_size(BATCH))
    } else {
        // What is not an event is recognized here, so that only an index is read.
        collection
            .find(doc! { "$and": filter::conditions(&query.filter) })
            .projection(doc! { "userId": 1, "action": 1, "timestamp": 1 })
            .batch_size(BATCH)
    };
    let found = find.collation(filter::by_bytes()).max_time(operation::MAX_READ_TIME).await?;
    let mut aggregate = Aggregate::new(query, memory);
    if has_metadata {
        each_entry(connection, found, |entry| aggregate.add_entry(entry)).await?;
        return Ok(aggregate.finish());
    }
    each(found, |document| {
        if let Some((timestamp, user_id, action)) = counted_fields(document) {
            let value = match query.by {
                Some(GroupBy::Action) => Some(action),
                Some(GroupBy::UserId) => Some(user_id),
                Some(GroupBy::Metadata(_)) | None => None,
            };
            aggregate.add(timestamp, user_id, value)?;
        }
        Ok(())
    })
    .await?;
    Ok(aggregate.finish())
}

/// Returns the time, the user and the action of an event, or `None` if the document
/// is not an event.
fn counted_fields(document: &RawDocument) -> Option<(eyego_log_core::Timestamp, &str, &str)> {
    let text = |name| match document.get(name).ok()?? {
        RawBsonRef::String(text) => Some(text).filter(|text| !text.is_empty()),
        _ => None,
    };
    document.get_object_id("_id").ok()?;
    let timestamp = decode::time(document.get("timestamp").ok()??)?;
    Some((timestamp, text("userId")?, text("action")?))
}

/// Calls `work` for each document.
async fn each(
    mut cursor: Cursor<RawDocumentBuf>,
    mut work: impl FnMut(&RawDocument) -> Result<(), ReadError>,
) -> Result<(), QueryError> {
    let mut read = 0_usize;
    while cursor.advance().await? {
        work(cursor.current())?;
        read += 1;
        if read.is_multiple_of(DOCUMENTS_PER_BREAK) {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// Calls `work` for each event.
async fn each_entry(
    connection: &MongoConnection,
    mut cursor: Cursor<RawDocumentBuf>,
    mut work: impl FnMut(&LogEntry) -> Result<(), ReadError>,
) -> Result<(), QueryError> {
    while cursor.advance().await? {
        match large::decode(connection, cursor.current()).await? {
            Ok(entry) => work(&entry)?,
            Err(error) => connection.warn_skipped(cursor.current(), &error.to_string()),
        }
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}
