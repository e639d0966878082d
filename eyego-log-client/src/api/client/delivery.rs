//! The future of one event.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use eyego_log_core::LogId;
use tokio::sync::oneshot;

use crate::api::client::Client;
use crate::api::client::inner::START_INTERVAL;
use crate::delivery::starter::Starter;
use crate::model::errors::{LogError, SendError};
use crate::model::loss_reason::LossReason;
use crate::pipeline::batch::Acknowledgement;

/// The future that [`Client::send`](crate::Client::send) returns. It resolves to the event's id once
/// the event is delivered.
#[derive(Debug)]
#[must_use = "only this future says whether the event was accepted and delivered"]
pub struct Delivery {
    /// There is nothing to wait for if the program itself excluded the event.
    state: Result<(LogId, Option<oneshot::Receiver<Acknowledgement>>), LogError>,
    /// Set while the worker has no thread.
    starter: Option<Arc<Starter>>,
}

impl Delivery {
    /// Creates the future of an event that `client` has accepted or excluded.
    pub(in crate::api) fn new(
        client: &Client,
        accepted: Result<LogId, LogError>,
        acknowledgement: Option<oneshot::Receiver<Acknowledgement>>,
    ) -> Self {
        let starter = client.inner.starter.clone().filter(|starter| !starter.start());
        Self { state: accepted.map(|id| (id, acknowledgement)), starter }
    }

    /// Returns the event's id without waiting for the delivery.
    ///
    /// # Errors
    /// Returns the [`LogError`] if the event was not accepted.
    pub fn id(&self) -> Result<LogId, LogError> {
        self.state.as_ref().map(|(id, _)| *id).map_err(Clone::clone)
    }
}

impl Future for Delivery {
    type Output = Result<LogId, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.starter.as_ref().is_some_and(|starter| !starter.start()) {
            // Without the client's thread, nothing could wake this task later.
            std::thread::sleep(START_INTERVAL);
            context.waker().wake_by_ref();
        }
        let (id, receiver) = match &mut self.state {
            Ok((id, Some(receiver))) => (*id, receiver),
            Ok((id, None)) => return Poll::Ready(Ok(*id)),
            Err(error) => return Poll::Ready(Err(error.clone().into())),
        };
        Pin::new(receiver).poll(context).map(|acknowledgement| match acknowledgement {
            Ok(Acknowledgement::Delivered) => Ok(id),
            Ok(Acknowledgement::Lost { reason, message }) => {
                Err(SendError::Lost { id, reason, message })
            }
            Ok(Acknowledgement::Spooled) => Err(SendError::Spooled { id }),
            Err(_) => {
                let message = "the worker thread ended unexpectedly".to_owned();
                Err(SendError::Lost { id, reason: LossReason::WorkerFailed, message })
            }
        })
    }
}
