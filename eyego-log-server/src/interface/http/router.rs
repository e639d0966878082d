//! The routes, and what all of their responses have in common.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use eyego_log_core::{LogIdGenerator, Timestamp};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tower::Service;

use super::api::Api;
use super::body::discard;
use super::error::{ApiError, Internals};
use super::health::{self, Readiness};
use super::metrics::{self, Metrics};
use super::{dashboard, dead_letters, ingest, read};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const LOGS: &str = "/api/v1/logs";

/// The routes of a process.
#[derive(Debug, Clone)]
pub struct Routes {
    router: Router,
    /// For the route that bypasses the router.
    api: Option<Arc<Api>>,
}

impl Routes {
    /// Calls the handler of `request`.
    ///
    /// A POST of one event bypasses the router, whose boxes and clones cost
    /// about 8 % of the CPU time of such a request (ADR 0014).
    async fn call(mut self, request: Request) -> Response {
        match self.api {
            Some(api) if request.method() == Method::POST && request.uri().path() == LOGS => {
                ingest::event(State(api), request).await
            }
            _ => self.router.call(request).await.unwrap_or_else(|never| match never {}),
        }
    }
}

/// Returns all routes.
pub fn api_routes(api: Arc<Api>, readiness: Arc<Readiness>, metrics: Arc<Metrics>) -> Routes {
    let router = Router::new()
        .route(LOGS, get(read::list).post(ingest::event))
        .route("/api/v1/logs/batch", post(ingest::batch))
        .route("/api/v1/logs/{id}", get(read::get))
        .route("/api/v1/dead-letters", get(dead_letters::list))
        .route("/api/v1/dead-letters/replay", post(dead_letters::replay))
        .route("/api/v1/dead-letters/{id}", get(dead_letters::get))
        .with_state(Arc::clone(&api));
    let router = router.merge(dashboard::routes()).merge(operations(readiness, metrics));
    finish(router, Some(api))
}

/// Returns the routes of a process without the API: health and metrics.
pub fn operations_routes(readiness: Arc<Readiness>, metrics: Arc<Metrics>) -> Routes {
    finish(operations(readiness, metrics), None)
}

fn operations(readiness: Arc<Readiness>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .with_state(readiness)
        .merge(Router::new().route("/metrics", get(metrics::show)).with_state(metrics))
}

fn finish(router: Router, api: Option<Arc<Api>>) -> Routes {
    let router = router.fallback(not_found).method_not_allowed_fallback(method_not_allowed);
    Routes { router, api }
}

async fn not_found(request: Request) -> Response {
    let message = format!("no such route: {}", request.uri().path());
    discard(&mut request.into_body()).await;
    ApiError::not_found(message).into_response()
}

async fn method_not_allowed(request: Request) -> Response {
    discard(&mut request.into_body()).await;
    ApiError::method_not_allowed().into_response()
}

/// Routes a request. Sets `x-request-id` on the response, turns a panic into a
/// 500, and logs the internals of a failure, which the response does not show.
///
/// A function around the router instead of a middleware: axum boxes and clones
/// each middleware for every request (ADR 0014).
pub(super) async fn respond(
    routes: Routes,
    request_ids: &LogIdGenerator,
    request: Request,
) -> Response {
    let id = request_id(&request, request_ids);
    let mut response = match AssertUnwindSafe(routes.call(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => ApiError::internal("a handler panicked".to_owned()).into_response(),
    };
    if let Some(Internals(internals)) = response.extensions().get() {
        let request_id = id.to_str().unwrap_or_default();
        if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(request_id, internals, "request failed");
        } else {
            // At debug level: the queue and the store log an outage once, not
            // for each request.
            tracing::debug!(request_id, internals, "request refused");
        }
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
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
        Self { router, api: None }
    }
}
