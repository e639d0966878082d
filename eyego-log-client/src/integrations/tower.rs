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
/// counted as lost. An invalid event is silently dropped, so cover the closures
/// with a test.
#[derive(Clone)]
pub struct RequestLogLayer<Q, E> {
    client: Client,
    inspect: Q,
    event: E,
}

impl<Q, E> RequestLogLayer<Q, E> {
    /// Creates a layer. `inspect` extracts what the event needs from a request,
    /// or returns `None` if the request is not to be logged. `event` creates the
    /// event from that and the response, which is `None` if the service failed.
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
    type Future = RequestLogFuture<S::Future, E, Kept>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let kept = (self.inspect)(&request);
        let pending = kept.map(|kept| (self.client.clone(), self.event.clone(), kept));
        RequestLogFuture { inner: self.inner.call(request), pending }
    }
}

pin_project! {
    /// The response future of [`RequestLogService`].
    pub struct RequestLogFuture<F, E, Kept> {
        #[pin]
        inner: F,
        pending: Option<(Client, E, Kept)>,
    }
}

impl<F, E, Kept> fmt::Debug for RequestLogFuture<F, E, Kept> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestLogFuture").finish_non_exhaustive()
    }
}

impl<F, Response, Error, E, Kept, M> Future for RequestLogFuture<F, E, Kept>
where
    F: Future<Output = Result<Response, Error>>,
    E: Fn(Kept, Option<&Response>) -> Event<'static, M>,
    M: Serialize,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let output = ready!(this.inner.poll(context));
        if let Some((client, event, kept)) = this.pending.take() {
            // A full buffer is counted, and an invalid event must not fail the
            // request.
            drop(client.log(event(kept, output.as_ref().ok())));
        }
        Poll::Ready(output)
    }
}
