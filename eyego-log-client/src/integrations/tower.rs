//! A `tower` layer that logs requests (crate feature `tower`).
//!
//! Before the inner service runs, one closure decides whether to log the request
//! and extracts what is needed from it. Once the response is available, a second
//! closure creates the event.
//!
//! ```
//! use eyego_log_client::tower::RequestLogLayer;
//! use eyego_log_client::{Client, Event};
//! use serde_json::json;
//!
//! # struct Request { user: Option<String>, path: String }
//! # struct Response { status: u16 }
//! # let client = Client::builder("http://localhost:9").build().unwrap();
//! let layer = RequestLogLayer::new(
//!     client,
//!     // Extracts what the event needs, or returns `None` to log nothing.
//!     |request: &Request| Some((request.user.clone()?, request.path.clone())),
//!     // Creates the event once the response is available.
//!     |(user, path), response: Option<&Response>| {
//!         let status = response.map(|response| response.status);
//!         Event::new(user, "REQUEST").metadata(json!({"path": path, "status": status}))
//!     },
//! );
//! # let _ = layer;
//! ```

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use serde::Serialize;
use tower_layer::Layer;
use tower_service::Service;

use crate::api::client::Client;
use crate::model::event::Event;

/// A layer that logs requests; see the [module documentation](self).
///
/// Logging never delays or fails a request. If the buffer is full, the event is
/// counted as lost, also with [`Overflow::Block`](crate::Overflow::Block). An event
/// that a closure does not create because it panics, and an invalid event is counted in
/// [`Stats::invalid`](crate::Stats::invalid) and reported to
/// [`on_problem`](crate::ClientBuilder::on_problem).
///
/// A request whose future is dropped before the response is available, because
/// the caller went away or the service panicked, is logged without a response.
#[derive(Clone)]
pub struct RequestLogLayer<Q, E> {
    client: Client,
    inspect: Q,
    event: E,
}

impl<Q, E> RequestLogLayer<Q, E> {
    /// Creates a layer. `inspect` extracts what the event needs from a request,
    /// or returns `None` if the request is not to be logged. `event` creates the
    /// event from that and the response, which is `None` if the service failed
    /// or panicked, or if the request was cancelled.
    pub fn new<Request, Kept, Response, M>(client: Client, inspect: Q, event: E) -> Self
    where
        Q: Fn(&Request) -> Option<Kept>,
        E: Fn(Kept, Option<&Response>) -> Event<'static, M>,
    {
        Self { client, inspect, event }
    }
}

impl<Q, E> fmt::Debug for RequestLogLayer<Q, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestLogLayer").field("client", &self.client).finish_non_exhaustive()
    }
}

impl<S, Q: Clone, E: Clone> Layer<S> for RequestLogLayer<Q, E> {
    type Service = RequestLogService<S, Q, E>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { client, inspect, event } = self.clone();
        RequestLogService { inner, client, inspect, event }
    }
}

/// The service that [`RequestLogLayer`] creates.
#[derive(Clone)]
pub struct RequestLogService<S, Q, E> {
    inner: S,
    client: Client,
    inspect: Q,
    event: E,
}

impl<S: fmt::Debug, Q, E> fmt::Debug for RequestLogService<S, Q, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestLogService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, Request, Q, E, Kept, M> Service<Request> for RequestLogService<S, Q, E>
where
    S: Service<Request>,
    Q: Fn(&Request) -> Option<Kept>,
    E: Fn(Kept, Option<&S::Response>) -> Event<'static, M> + Clone,
    M: Serialize,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RequestLogFuture<S::Future, E, Kept, S::Response, M>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let inspected = catch_unwind(AssertUnwindSafe(|| (self.inspect)(&request)));
        let kept = inspected.unwrap_or_else(|_| {
            self.client.note_panic_in_layer();
            None
        });
        let pending = kept.map(|kept| Pending {
            client: self.client.clone(),
            event: self.event.clone(),
            kept: Some(kept),
            response: PhantomData,
        });
        RequestLogFuture { inner: self.inner.call(request), pending }
    }
}

/// A request that is to be logged. Dropping it logs the request without a
/// response.
struct Pending<E, Kept, Response, M>
where
    E: Fn(Kept, Option<&Response>) -> Event<'static, M>,
    M: Serialize,
{
    client: Client,
    event: E,
    kept: Option<Kept>,
    response: PhantomData<fn(&Response)>,
}

impl<E, Kept, Response, M> Pending<E, Kept, Response, M>
where
    E: Fn(Kept, Option<&Response>) -> Event<'static, M>,
    M: Serialize,
{
    /// Logs the request once. A panic of the program's closure does not fail the
    /// request; while the service panics, a second one would abort the process.
    fn log(&mut self, response: Option<&Response>) {
        let Some(kept) = self.kept.take() else { return };
        let log = || self.client.log_for_layer(&(self.event)(kept, response), false);
        if catch_unwind(AssertUnwindSafe(log)).is_err() {
            self.client.note_panic_in_layer();
        }
    }
}

impl<E, Kept, Response, M> Drop for Pending<E, Kept, Response, M>
where
    E: Fn(Kept, Option<&Response>) -> Event<'static, M>,
    M: Serialize,
{
    fn drop(&mut self) {
        self.log(None);
    }
}

pin_project! {
    /// The response future of [`RequestLogService`].
    pub struct RequestLogFuture<F, E, Kept, Response, M>
    where
        E: Fn(Kept, Option<&Response>) -> Event<'static, M>,
        M: Serialize,
    {
        #[pin]
        inner: F,
        pending: Option<Pending<E, Kept, Response, M>>,
    }
}

impl<F, E, Kept, Response, M> fmt::Debug for RequestLogFuture<F, E, Kept, Response, M>
where
    E: Fn(Kept, Option<&Response>) -> Event<'static, M>,
    M: Serialize,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestLogFuture").finish_non_exhaustive()
    }
}

impl<F, Response, Error, E, Kept, M> Future for RequestLogFuture<F, E, Kept, Response, M>
where
    F: Future<Output = Result<Response, Error>>,
    E: Fn(Kept, Option<&Response>) -> Event<'static, M>,
    M: Serialize,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let output = ready!(this.inner.poll(context));
        if let Some(mut pending) = this.pending.take() {
            pending.log(output.as_ref().ok());
        }
        Poll::Ready(output)
    }
}
