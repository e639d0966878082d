//! Logs an event and waits until it is stored, and can be read.
//!
//! The event is delivered like every other one, and then posted once more, by
//! itself and under the same id, with `wait=stored` (docs/adr/0040).

use std::future::Future;
use std::time::{Duration, Instant};

use eyego_log_core::LogId;
use eyego_log_core::wire::IngestResponse;
use http::{Method, StatusCode};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::api::caller::{Caller, decode};
use crate::api::client::delivery::Delivery;
use crate::api::client::{Client, deadline_after};
use crate::model::errors::{RequestError, SendError};
use crate::model::event::Event;
use crate::transport::Bytes;

/// The longest time for which the server waits within one request.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The pauses before the server is asked again. They double.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// What is known about an event of [`Client::send_stored`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreOutcome {
    /// The event with this id is stored, and can be read.
    Stored(LogId),
    /// The event is durable in the server's queue, but was not stored before the
    /// timeout. It will be, unless another event is stored under its id.
    Queued(LogId),
    /// The program itself excludes the event: the client is disabled, or does not log
    /// this user or event.
    Excluded(LogId),
}

impl StoreOutcome {
    /// Returns the id of the event.
    #[must_use]
    pub fn id(&self) -> LogId {
        match self {
            Self::Stored(id) | Self::Queued(id) | Self::Excluded(id) => *id,
        }
    }
}

impl Client {
    /// Logs an event like [`send`](Self::send) does, and returns a future that
    /// resolves once the event can be read. After the event is delivered, the future
    /// waits for that at most for `timeout`.
    ///
    /// The event is buffered by the call itself; dropping the future does not cancel
    /// it. An API key needs the scope `ingest`. The server receives the event twice
    /// and stores it once, so this is meant for single events that the program reads
    /// back immediately.
    ///
    /// # Errors
    /// The future returns the errors of [`send`](Self::send). It returns
    /// [`SendError::Conflict`] if another event is stored under the id, and
    /// [`SendError::Unconfirmed`] if the server does not tell.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use eyego_log_client::{Client, Event, StoreOutcome};
    ///
    /// # async fn run(client: Client) -> Result<(), eyego_log_client::SendError> {
    /// let event = Event::new("user-123", "PAID").field("amount", 20);
    /// match client.send_stored(event, Duration::from_secs(5)).await? {
    ///     StoreOutcome::Stored(id) => println!("{id} can be read"),
    ///     outcome => println!("{} is durable and will be stored", outcome.id()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "callers hand the event over")]
    pub fn send_stored<M: Serialize>(
        &self,
        event: Event<'_, M>,
        timeout: Duration,
    ) -> impl Future<Output = Result<StoreOutcome, SendError>> + Send + use<M> {
        let mut buffered = None;
        let result = self.accept(&event, |queue, line| {
            let (ack, receiver) = oneshot::channel();
            queue.enqueue(line, Some(ack))?;
            buffered = Some((receiver, Bytes::copy_from_slice(line)));
            Ok(())
        });
        let (receiver, line) = buffered.unzip();
        let delivery = Delivery::new(self, result, receiver);
        let caller = self.caller().clone();
        async move {
            let id = delivery.await?;
            match line {
                Some(line) => confirm(&caller, id, line, timeout).await,
                None => Ok(StoreOutcome::Excluded(id)),
            }
        }
    }
}

/// Posts an event that was delivered once more, and waits until it is stored.
async fn confirm(
    caller: &Caller,
    id: LogId,
    line: Bytes,
    timeout: Duration,
) -> Result<StoreOutcome, SendError> {
    let deadline = deadline_after(timeout);
    let mut pause = FIRST_PAUSE;
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let wait = remaining.clamp(Duration::from_millis(1), MAX_WAIT);
        let path = format!("/logs?wait=stored&timeout={}ms", wait.as_millis());
        let asked = async {
            let response =
                caller.call_for_response(Method::POST, &path, line.clone(), wait).await?;
            // Another server may respond with 200, too.
            decode::<IngestResponse>(&response).map(|_| response.status())
        };
        let Some(result) = caller.within(deadline, asked).await else {
            return Ok(StoreOutcome::Queued(id));
        };
        match result {
            Ok(StatusCode::OK) => return Ok(StoreOutcome::Stored(id)),
            // The wait timed out, or the server is stopping.
            Ok(_) => {}
            Err(RequestError::Status(error)) if error.status == 409 => {
                return Err(SendError::Conflict { id, message: error.message });
            }
            Err(error) if error.is_retryable() => {}
            Err(error) => return Err(SendError::Unconfirmed { id, error }),
        }
        let now = Instant::now();
        if now >= deadline {
            return Ok(StoreOutcome::Queued(id));
        }
        caller.sleep_until(deadline.min(now + pause)).await;
        pause = (2 * pause).min(MAX_PAUSE);
    }
}
