//! Runs operations on the MongoDB client, with their time limits.

use std::future::Future;
use std::time::Duration;

use super::failure::Failure;

/// How long MongoDB waits until a majority has a write.
pub(super) const WRITE_CONCERN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long MongoDB works on a read.
pub(super) const MAX_READ_TIME: Duration = Duration::from_secs(10);

/// How long MongoDB works on a write, before it waits for a majority.
pub(super) const MAX_WRITE_TIME: Duration = Duration::from_secs(20);

/// How long to wait for any response. The limits above are shorter, so a server
/// that exceeds these does not respond at all.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
const WRITE_TIMEOUT: Duration = Duration::from_secs(35);

/// Runs a read.
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
