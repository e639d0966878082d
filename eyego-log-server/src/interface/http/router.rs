//! Which route leads where, and what every answer goes through.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use eyego_log_core::{LogIdGenerator, Timestamp};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Method};
use tower::Service;

use super::api::Api;
use super::body::discard;
use super::error::{ApiError, Internals};
use super::health::{self, Readiness};
use super::metrics::{self, Metrics};
use super::{dead_letters, ingest, read};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const LOGS: &str = "/api/v1/logs";

/// Leads each request to its handler.
#[derive(Debug, Clone)]
pub struct Routes {
    router: Router,
    /// For the one route that nearly all requests take: a router boxes a
    /// request's way several times.
    api: Option<Arc<Api>>,
}

impl Routes {
    async fn lead(mut self, request: Request) -> Response {
        match self.api {
            Some(api) if request.method() == Method::POST && request.uri().path() == LOGS => {
                ingest::one(State(api), request).await
            }
            _ => self.router.call(request).await.unwrap_or_else(|never| match never {}),
        }
    }
}

/// All routes.
pub fn api_routes(api: Arc<Api>, readiness: Arc<Readiness>, metrics: Arc<Metrics>) -> Routes {
    let router = Router::new()
        .route(LOGS, get(read::page).post(ingest::one))
        .route("/api/v1/logs/batch", post(ingest::many))
        .route("/api/v1/logs/{id}", get(read::one))
        .route("/api/v1/dead-letters", get(dead_letters::page))
        .route("/api/v1/dead-letters/replay", post(dead_letters::replay))
        .route("/api/v1/dead-letters/{id}", get(dead_letters::one))
        .with_state(Arc::clone(&api));
    finish(router.merge(operations(readiness, metrics)), Some(api))
}

/// The routes of a process that only works: its health and its metrics.
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
    let message = format!("there is no {}", request.uri().path());
    discard(&mut request.into_body()).await;
    ApiError::NotFound(message).into_response()
}

async fn method_not_allowed(request: Request) -> Response {
    discard(&mut request.into_body()).await;
    ApiError::MethodNotAllowed.into_response()
}

/// Answers a request: gives every answer its request id, turns a panic into a
/// 500, and logs what the answer does not say.
///
/// Not a middleware: that clones and boxes the whole router for each request.
pub(super) async fn answer(
    routes: Routes,
    request_ids: &LogIdGenerator,
    request: Request,
) -> Response {
    let id = request_id(&request, request_ids);
    let answering = AssertUnwindSafe(routes.lead(request)).catch_unwind();
    let mut response = match answering.await {
        Ok(response) => response,
        Err(_) => ApiError::Internal("a handler panicked".to_owned()).into_response(),
    };
    if let Some(Internals(internals)) = response.extensions().get() {
        let request_id = id.to_str().unwrap_or_default();
        if response.status() == http::StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(request_id, internals, "a request failed");
        } else {
            // The queue and the store log their troubles once; here they would
            // be logged for every request.
            tracing::debug!(request_id, internals, "a request was refused");
        }
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The caller's own id where it is harmless, else a new one.
fn request_id(request: &Request, ids: &LogIdGenerator) -> HeaderValue {
    if let Some(id) = request.headers().get(REQUEST_ID) {
        let bytes = id.as_bytes();
        if (1..=128).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic) {
            return id.clone();
        }
    }
    let id = ids.generate(Timestamp::from(std::time::SystemTime::now()));
    HeaderValue::from_bytes(&id.to_hex()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}
