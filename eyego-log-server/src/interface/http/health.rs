//! Liveness and readiness.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use eyego_log_core::wire::Status;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::envelope::respond;
use super::error::ApiError;
use super::parameters;
use crate::application::persist::WorkerStatus;
use crate::application::reload::ReloadStatus;
use crate::domain::health::{PartHealth, PartState};
use crate::domain::queue::LogQueue;
use crate::domain::repository::LogRepository;

/// Decides whether this process is ready.
pub struct Readiness {
    queue: Arc<dyn LogQueue>,
    repository: Arc<dyn LogRepository>,
    worker: Option<Arc<WorkerStatus>>,
    requires_store: bool,
    is_stopping: AtomicBool,
    reloads: Vec<Arc<ReloadStatus>>,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}

/// Health of the process.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HealthResponse {
    status: Status,
    /// Human-readable summary.
    message: String,
    /// Each part that the process has, such as `kafka`, `mongodb`, `queue`, `store` and `worker`.
    parts: BTreeMap<&'static str, Part>,
}

/// Health of one part.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PartHealth)]
struct Part {
    /// `up`, `warning` or `down`.
    state: &'static str,
    /// Names the host, topic or limit at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<PartState> for Part {
    fn from(state: PartState) -> Self {
        let (state, reason) = match state {
            PartState::Up => ("up", None),
            PartState::Warning(reason) => ("warning", Some(reason)),
            PartState::Down(reason) => ("down", Some(reason)),
        };
        Self { state, reason }
    }
}

impl Readiness {
    /// Creates the readiness check of these parts. `worker` is `None` in a
    /// process without a worker.
    ///
    /// With `requires_store`, the process is ready only while events can be
    /// stored. This is meant for a process that has nothing but a worker: an
    /// API can queue events while the store is down.
    #[must_use]
    pub fn new(
        queue: Arc<dyn LogQueue>,
        repository: Arc<dyn LogRepository>,
        worker: Option<Arc<WorkerStatus>>,
        requires_store: bool,
    ) -> Self {
        let (is_stopping, reloads) = (AtomicBool::new(false), Vec::new());
        Self { queue, repository, worker, requires_store, is_stopping, reloads }
    }

    /// Also reports whether these files are in effect as they are.
    #[must_use]
    pub fn with_reloads(self, reloads: Vec<Arc<ReloadStatus>>) -> Self {
        Self { reloads, ..self }
    }

    /// Reports the process as not ready from now on.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// Returns the health of the store. It is down if it refuses the worker's
    /// events.
    fn store(&self) -> PartHealth {
        let mut store = self.repository.health();
        if let Some(worker) = &self.worker {
            match worker.store_state() {
                PartState::Warning(reason) if store.state == PartState::Up => {
                    store.state = PartState::Warning(reason);
                }
                // What the store reports itself is more urgent.
                PartState::Up | PartState::Warning(_) => {}
                PartState::Down(reason) => store.state = PartState::Down(reason),
            }
        }
        store
    }

    fn check(&self) -> (StatusCode, HealthResponse) {
        let store = self.store();
        let queue = self.queue.health();
        let worker = self
            .worker
            .as_ref()
            .map(|worker| PartHealth { name: "worker", state: worker.worker_state() });
        let mut blockers = Vec::new();
        let required = [(&queue, true), (&store, self.requires_store)];
        let required = required.into_iter().chain(worker.iter().map(|w| (w, self.requires_store)));
        for (part, is_required) in required {
            if let PartState::Down(reason) = &part.state
                && is_required
            {
                blockers.push(format!("{}: {reason}", part.name));
            }
        }
        let (code, status, message) = if self.is_stopping.load(Ordering::Acquire) {
            (StatusCode::SERVICE_UNAVAILABLE, Status::Error, "stopping".to_owned())
        } else if blockers.is_empty() {
            (StatusCode::OK, Status::Success, "ready".to_owned())
        } else {
            let message = format!("not ready: {}", blockers.join("; "));
            (StatusCode::SERVICE_UNAVAILABLE, Status::Error, message)
        };
        let parts = self.queue.parts().into_iter().chain([store]).chain(worker);
        let parts = parts.chain(self.reloads.iter().map(|reload| reload.health(Instant::now())));
        let parts = parts.map(|part| (part.name, part.state.into())).collect();
        (code, HealthResponse { status, message, parts })
    }
}

/// `GET /health/live`
pub(super) async fn live(RawQuery(query): RawQuery) -> Response {
    if let Err(errors) = parameters::expect_none(query.as_deref()) {
        return ApiError::from(errors).into_response();
    }
    let message = "alive".to_owned();
    Json(HealthResponse { status: Status::Success, message, parts: BTreeMap::new() })
        .into_response()
}

/// `GET /health/ready`
pub(super) async fn ready(
    State(readiness): State<Arc<Readiness>>,
    RawQuery(query): RawQuery,
) -> Response {
    if let Err(errors) = parameters::expect_none(query.as_deref()) {
        return ApiError::from(errors).into_response();
    }
    let (code, response) = readiness.check();
    respond(code, &response)
}
