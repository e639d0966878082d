//! The routes, and what all of their responses have in common.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use eyego_log_core::{FieldError, LogIdGenerator, Timestamp};
use futures_util::FutureExt;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use tower::Service;

#[cfg(test)]
use super::access::Access;
use super::access::{Guard, Visit};
use super::api::Api;
use super::body::discard_unread;
use super::error::{ApiError, Internals, shortened};
use super::health::{self, Readiness};
use super::metrics::{self, Metrics};
use super::{dashboard, dead_letters, erasures, export, ingest, openapi, read, stats, tail};
use crate::domain::repeated::Repeated;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const LOGS: &str = "/api/v1/logs";

/// Interval between log lines about requests that failed with 500.
const FAILURE_INTERVAL: Duration = Duration::from_secs(1);

/// The routes of a process.
#[derive(Debug, Clone)]
pub struct Routes {
    router: Router,
    /// For the route that bypasses the router.
    api: Option<Arc<Api>>,
    guard: Arc<Guard>,
    /// The limit of connections, for a connection above it: only health and metrics
    /// are served then.
    exceeded_limit: Option<usize>,
}

impl Routes {
    /// Returns the routes for a connection above the limit of connections.
    pub(super) fn above_limit(self, max_connections: usize) -> Self {
        Self { exceeded_limit: Some(max_connections), ..self }
    }

    /// Calls the handler of `request`.
    ///
    /// A POST of one event bypasses the router, whose boxes and clones cost
    /// about 8 % of the CPU time of such a request (ADR 0014).
    async fn call(mut self, request: Request) -> Response {
        if let Some(max) = self.exceeded_limit
            && !is_operation(request.uri().path())
        {
            refuse_body(request).await;
            let message = format!("the limit of {max} connections is reached; retry later");
            return ApiError::busy(message).into_response();
        }
        let request = without_body(request).await;
        match self.api {
            Some(api) if request.method() == Method::POST && request.uri().path() == LOGS => {
                ingest::event(State(api), request).await
            }
            _ => self.router.call(request).await.unwrap_or_else(|never| match never {}),
        }
    }
}

/// Health and metrics.
#[derive(Debug, Clone)]
pub struct Operations {
    /// Decides whether the process is ready.
    pub readiness: Arc<Readiness>,
    /// The metrics of the process.
    pub metrics: Arc<Metrics>,
}

/// Returns the routes of one listening address: those of the API, of health and
/// metrics, or of both.
pub fn routes(api: Option<Arc<Api>>, operations: Option<Operations>, guard: Guard) -> Routes {
    let mut router = Router::new();
    if let Some(api) = &api {
        router = router.merge(api_routes(Arc::clone(api)));
    }
    if let Some(operations) = operations {
        router = router.merge(operations_routes(operations));
    }
    let router = router.fallback(not_found).method_not_allowed_fallback(method_not_allowed);
    Routes { router, api, guard: Arc::new(guard), exceeded_limit: None }
}

fn api_routes(api: Arc<Api>) -> Router {
    Router::new()
        .route(LOGS, get(read::list).post(ingest::event))
        .route("/api/v1/logs/batch", post(ingest::batch))
        .route("/api/v1/logs/export", get(export::export))
        .route("/api/v1/logs/tail", get(tail::tail))
        .route("/api/v1/logs/{id}", get(read::get))
        .route("/api/v1/stats", get(stats::stats))
        .route("/api/v1/dead-letters", get(dead_letters::list))
        .route("/api/v1/dead-letters/replay", post(dead_letters::replay))
        .route("/api/v1/dead-letters/{id}", get(dead_letters::get))
        .route("/api/v1/users/{userId}/logs", delete(erasures::request))
        .route("/api/v1/erasures", get(erasures::list))
        .route("/api/v1/erasures/{id}", get(erasures::get))
        .with_state(api)
        .merge(dashboard::routes())
        .merge(openapi::router())
}

/// Returns whether this is a route of [`operations_routes`].
fn is_operation(path: &str) -> bool {
    path == "/metrics" || path.starts_with("/health/")
}

fn operations_routes(operations: Operations) -> Router {
    let Operations { readiness, metrics } = operations;
    Router::new()
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .with_state(readiness)
        .merge(Router::new().route("/metrics", get(metrics::show)).with_state(metrics))
}

async fn not_found(request: Request) -> Response {
    let message = format!("no such route: {}", shortened(request.uri().path()));
    refuse_body(request).await;
    ApiError::not_found(message).into_response()
}

async fn method_not_allowed(request: Request) -> Response {
    refuse_body(request).await;
    ApiError::method_not_allowed().into_response()
}

/// Reads and drops the body of a request whose handler ignores it. A connection that
/// is closed with unread data can lose the end of the response.
async fn without_body(request: Request) -> Request {
    if request.method() == Method::POST || request.body().is_end_stream() {
        return request;
    }
    let (head, mut body) = request.into_parts();
    discard_unread(&head.headers, &mut body).await;
    Request::from_parts(head, Body::empty())
}

async fn refuse_body(request: Request) {
    let (head, mut body) = request.into_parts();
    discard_unread(&head.headers, &mut body).await;
}

/// Headers of which a request may have at most one. If two parties each took a
/// different one of two values, one of them would see another request. hyper refuses
/// `Content-Length` with different values.
const SINGLETONS: [(HeaderName, &str); 4] = [
    (HOST, "Host"),
    (CONTENT_TYPE, "Content-Type"),
    (CONTENT_ENCODING, "Content-Encoding"),
    (HeaderName::from_static("idempotency-key"), "Idempotency-Key"),
];

fn repeated_singleton(headers: &HeaderMap) -> Option<Box<Response>> {
    // Few requests repeat any header.
    if headers.len() == headers.keys_len() {
        return None;
    }
    let is_repeated = |name: &HeaderName| headers.get_all(name).iter().nth(1).is_some();
    let (_, shown) = SINGLETONS.into_iter().find(|(name, _)| is_repeated(name))?;
    let error = FieldError::new(shown, "must not be repeated");
    Some(Box::new(ApiError::invalid_field(error).into_response()))
}

/// Checks and routes a request from `address`. Sets `x-request-id` on the response,
/// turns a panic into a 500, and logs the internals of a failure, which the response does not show.
///
/// A function around the router instead of a middleware: axum boxes and clones
/// each middleware for every request (ADR 0014).
pub(super) async fn respond(
    routes: Routes,
    requests: &Requests,
    address: IpAddr,
    mut request: Request,
) -> Response {
    let id = request_id(&request, &requests.ids);
    let mut visit = Visit::new(&routes.guard, &request, address);
    let repeated = repeated_singleton(request.headers());
    let mut response = match repeated.map_or_else(|| visit.admit(&mut request), Err) {
        Ok(()) => match AssertUnwindSafe(routes.call(request)).catch_unwind().await {
            Ok(response) => response,
            Err(_) => ApiError::internal("a handler panicked".to_owned()).into_response(),
        },
        Err(response) => {
            refuse_body(request).await;
            *response
        }
    };
    visit.finish(&mut response, id.to_str().unwrap_or_default());
    if let Some(Internals(internals)) = response.extensions().get() {
        let request_id = id.to_str().unwrap_or_default();
        if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
            if let Some(count) = requests.failed.lock().note("", 1, Instant::now()) {
                tracing::error!(request_id, internals, count, "request failed");
            }
        } else {
            // The level is debug, because the queue and the store log an outage
            // once, and not for each request.
            tracing::debug!(request_id, internals, "request refused");
        }
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// What all requests share.
#[derive(Debug)]
pub(super) struct Requests {
    ids: LogIdGenerator,
    failed: Mutex<Repeated>,
}

impl Default for Requests {
    fn default() -> Self {
        Self { ids: LogIdGenerator::new(), failed: Mutex::new(Repeated::every(FAILURE_INTERVAL)) }
    }
}

/// Returns the client's request id if it consists of 1 to 128 visible ASCII
/// characters, and a generated one otherwise.
fn request_id(request: &Request, ids: &LogIdGenerator) -> HeaderValue {
    if let Some(id) = request.headers().get(REQUEST_ID) {
        let bytes = id.as_bytes();
        if (1..=128).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic) {
            return id.clone();
        }
    }
    let id = ids.generate(Timestamp::from(SystemTime::now()));
    HeaderValue::from_bytes(&id.to_hex()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

#[cfg(test)]
impl From<Router> for Routes {
    fn from(router: Router) -> Self {
        let guard = Guard::new(Arc::new(Access::new(None, None, Vec::new(), &[])), false, None);
        Self { router, api: None, guard: Arc::new(guard), exceeded_limit: None }
    }
}
