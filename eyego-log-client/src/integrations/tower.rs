//! A `tower` layer that logs the requests that pass (feature `tower`).
//!
//! A closure says for each request whether it is logged, and as what, before
//! the service sees it; a second one may add what the response tells.
//!
//! ```
//! use eyego_log_client::tower::LogLayer;
//! use eyego_log_client::{Client, Event};
//! use serde_json::json;
//!
//! # struct Request { user: Option<String>, path: String }
//! # struct Response { status: u16 }
//! # let client = Client::builder("http://localhost:9").build().unwrap();
//! let layer = LogLayer::new(
//!     client,
//!     // What is kept of the request; `None`: it is not logged.
//!     |request: &Request| Some((request.user.clone()?, request.path.clone())),
//!     // The event, once the response is there.
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

use crate::client::Client;
use crate::event::Event;

/// Logs each request that passes; see the [module](self).
///
/// Logging never holds a request up and never fails it: what the buffer has no
/// room for is counted as lost, and an event with a fault is left out and
/// traced nowhere, so try your closures in a test.
#[derive(Clone)]
pub struct LogLayer<Q, E> {
    client: Client,
    inspect: Q,
    event: E,
}

impl<Q, E> LogLayer<Q, E> {
    /// `inspect` keeps what is needed of a request, or `None` where it is not
    /// to be logged; `event` makes the event of it and of the response, which
    /// is `None` where the service failed.
    pub fn new<Request, Kept, Response, M>(client: Client, inspect: Q, event: E) -> Self
    where
        Q: Fn(&Request) -> Option<Kept>,
        E: Fn(Kept, Option<&Response>) -> Event<'static, M>,
    {
        Self { client, inspect, event }
    }
}

impl<Q, E> fmt::Debug for LogLayer<Q, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLayer").field("client", &self.client).finish_non_exhaustive()
    }
}

impl<S, Q: Clone, E: Clone> Layer<S> for LogLayer<Q, E> {
    type Service = LogService<S, Q, E>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { client, inspect, event } = self.clone();
        LogService { inner, client, inspect, event }
    }
}

/// The service that [`LogLayer`] makes.
#[derive(Clone)]
pub struct LogService<S, Q, E> {
    inner: S,
    client: Client,
    inspect: Q,
    event: E,
}

impl<S: fmt::Debug, Q, E> fmt::Debug for LogService<S, Q, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, Request, Q, E, Kept, M> Service<Request> for LogService<S, Q, E>
where
    S: Service<Request>,
    Q: Fn(&Request) -> Option<Kept>,
    E: Fn(Kept, Option<&S::Response>) -> Event<'static, M> + Clone,
    M: Serialize,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = LogFuture<S::Future, E, Kept>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let kept = (self.inspect)(&request);
        let pending = kept.map(|kept| (self.client.clone(), self.event.clone(), kept));
        LogFuture { inner: self.inner.call(request), pending }
    }
}

pin_project! {
    /// The response future of [`LogService`].
    pub struct LogFuture<F, E, Kept> {
        #[pin]
        inner: F,
        pending: Option<(Client, E, Kept)>,
    }
}

impl<F, E, Kept> fmt::Debug for LogFuture<F, E, Kept> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogFuture").finish_non_exhaustive()
    }
}

impl<F, Response, Error, E, Kept, M> Future for LogFuture<F, E, Kept>
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
            // Lost for want of room is counted; a fault concerns no request.
            drop(client.log(event(kept, output.as_ref().ok())));
        }
        Poll::Ready(output)
    }
}
