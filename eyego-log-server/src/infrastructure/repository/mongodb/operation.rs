//! Runs operations on the MongoDB client, with their time limits.

use std::future::Future;
use std::time::Duration;

use bson::RawDocumentBuf;

use super::failure::Failure;
use crate::domain::read::ReadError;
pub(super) use crate::infrastructure::repository::limits::MAX_READ_TIME;

/// How long MongoDB waits until a majority has a write.
pub(super) const WRITE_CONCERN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long MongoDB works on a write, before it waits for a majority.
pub(super) const MAX_WRITE_TIME: Duration = Duration::from_secs(20);

/// How long to wait for any response. The limits above are shorter, so a server
/// that exceeds these does not respond at all.
const QUERY_TIMEOUT: Duration = Duration::from_millis(10_500);
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(15);
const WRITE_TIMEOUT: Duration = Duration::from_secs(35);

/// Maximum number of documents that a batch of a cursor has. With events of the
/// default maximum size, a batch has 8 MiB, as much as a page.
const MAX_BATCH: u32 = 32;

/// Returns the number of documents that a cursor reads at a time, for a result of
/// `rows`.
pub(super) fn batch_size(rows: u32) -> u32 {
    rows.clamp(1, MAX_BATCH)
}

/// Returns all documents of a result that the query limits.
///
/// # Errors
/// Returns an error if the cursor fails.
pub(super) async fn documents(
    mut cursor: mongodb::Cursor<RawDocumentBuf>,
) -> mongodb::error::Result<Vec<RawDocumentBuf>> {
    let mut documents = Vec::new();
    while cursor.advance().await? {
        documents.push(cursor.current().to_owned());
    }
    Ok(documents)
}

/// The reason a query failed.
pub(super) enum QueryError {
    MongoDb(mongodb::error::Error),
    Read(ReadError),
}

impl From<mongodb::error::Error> for QueryError {
    fn from(error: mongodb::error::Error) -> Self {
        Self::MongoDb(error)
    }
}

impl From<ReadError> for QueryError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// Runs a query. If the caller drops it, or if it exceeds the time limit, the
/// driver closes its connection or its cursor, at which MongoDB ends the query.
///
/// # Errors
/// Returns an error if the query fails or exceeds the time limit.
pub(super) async fn query<T>(
    work: impl Future<Output = Result<T, QueryError>>,
) -> Result<T, ReadError> {
    match tokio::time::timeout(QUERY_TIMEOUT, work).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(QueryError::MongoDb(error))) => Err(Failure::from(&error).into()),
        Ok(Err(QueryError::Read(error))) => Err(error),
        // MongoDB ends slow queries by itself: it does not respond at all.
        Err(_) => Err(Failure::timed_out(QUERY_TIMEOUT).into()),
    }
}

/// Runs a read of the worker or the monitor.
///
/// # Errors
/// Returns an error if the operation fails or exceeds the time limit.
pub(super) async fn read<T: Send + 'static>(
    work: impl Future<Output = mongodb::error::Result<T>> + Send + 'static,
) -> Result<T, Failure> {
    run(READ_TIMEOUT, work).await
}

/// Runs a write.
///
/// # Errors
/// Returns an error if the operation fails or exceeds the time limit. Its
/// outcome is then unknown.
pub(super) async fn write<T: Send + 'static>(
    work: impl Future<Output = mongodb::error::Result<T>> + Send + 'static,
) -> Result<T, Failure> {
    run(WRITE_TIMEOUT, work).await
}

/// Runs an operation in its own task, so that neither a cancelled caller nor the
/// time limit drops the driver's future. Dropping it would leave a connection
/// with an unread response.
async fn run<T: Send + 'static>(
    timeout: Duration,
    work: impl Future<Output = mongodb::error::Result<T>> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::time::timeout(timeout, tokio::spawn(work)).await {
        Ok(Ok(result)) => result.map_err(|error| Failure::from(&error)),
        Ok(Err(error)) => Err(Failure::transient(format!("the MongoDB driver failed: {error}"))),
        Err(_) => Err(Failure::timed_out(timeout)),
    }
}
