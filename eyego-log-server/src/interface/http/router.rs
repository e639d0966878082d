//! The routes, and what all of their responses have in common.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use eyego_log_core::{LogIdGenerator, Timestamp};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, StatusCode};
use tower::Service;

use super::api::Api;
use super::body::discard;
use super::error::{ApiError, Internals};
use super::health::{self, Readiness};
use super::metrics::{self, Metrics};
use super::{dead_letters, ingest, read};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Returns all routes.
pub fn api_routes(api: Arc<Api>, readiness: Arc<Readiness>, metrics: Arc<Metrics>) -> Router {
    let router = Router::new()
        .route("/api/v1/logs", get(read::list).post(ingest::event))
        .route("/api/v1/logs/batch", post(ingest::batch))
        .route("/api/v1/logs/{id}", get(read::get))
        .route("/api/v1/dead-letters", get(dead_letters::list))
        .route("/api/v1/dead-letters/replay", post(dead_letters::replay))
        .route("/api/v1/dead-letters/{id}", get(dead_letters::get))
        .with_state(api);
    finish(router.merge(operations(readiness, metrics)))
}

/// Returns the routes of a process without the API: health and metrics.
pub fn operations_routes(readiness: Arc<Readiness>, metrics: Arc<Metrics>) -> Router {
    finish(operations(readiness, metrics))
}

fn operations(readiness: Arc<Readiness>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .with_state(readiness)
        .merge(Router::new().route("/metrics", get(metrics::show)).with_state(metrics))
}

fn finish(router: Router) -> Router {
    router.fallback(not_found).method_not_allowed_fallback(method_not_allowed)
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
    mut router: Router,
    request_ids: &LogIdGenerator,
    request: Request,
) -> Response {
    let id = request_id(&request, request_ids);
    let mut response = match AssertUnwindSafe(router.call(request)).catch_unwind().await {
        Ok(response) => response.unwrap_or_else(|never| match never {}),
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
