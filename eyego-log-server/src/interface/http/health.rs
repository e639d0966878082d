//! Liveness and readiness.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use eyego_log_core::wire::Status;
use http::StatusCode;
use serde::Serialize;

use crate::application::persist::WorkerStatus;
use crate::domain::health::{PartHealth, PartState};
use crate::domain::queue::LogQueue;
use crate::domain::repository::LogRepository;

/// What readiness looks at.
pub struct Readiness {
    queue: Arc<dyn LogQueue>,
    repository: Arc<dyn LogRepository>,
    worker: Option<Arc<WorkerStatus>>,
    /// Whether a process that cannot store is unready: one that only works.
    must_store: bool,
    is_stopping: AtomicBool,
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}

#[derive(Debug, Serialize)]
struct Answer {
    status: Status,
    message: String,
    parts: BTreeMap<&'static str, Part>,
}

#[derive(Debug, Serialize)]
struct Part {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Readiness {
    /// Looks at these; `worker` where this process has one, `must_store` where
    /// it has nothing else.
    #[must_use]
    pub fn new(
        queue: Arc<dyn LogQueue>,
        repository: Arc<dyn LogRepository>,
        worker: Option<Arc<WorkerStatus>>,
        must_store: bool,
    ) -> Self {
        Self { queue, repository, worker, must_store, is_stopping: AtomicBool::new(false) }
    }

    /// Says unready from now on.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    fn store(&self) -> PartHealth {
        let mut store = self.repository.health();
        if let Some(worker) = &self.worker
            && let PartState::Down(problem) = worker.state()
        {
            store.state = PartState::Down(problem);
        }
        store
    }

    fn answer(&self) -> (StatusCode, Answer) {
        let store = self.store();
        let is_stopping = self.is_stopping.load(Ordering::Acquire);
        let can_queue = self.queue.health().state.is_up();
        let is_ready = can_queue && (store.state.is_up() || !self.must_store) && !is_stopping;
        let mut parts = self.queue.parts();
        parts.push(store);
        let message = match (is_stopping, is_ready) {
            (true, _) => "stopping",
            (false, true) => "ready",
            (false, false) => "not ready",
        };
        let parts = parts
            .into_iter()
            .map(|part| {
                let (state, reason) = match part.state {
                    PartState::Up => ("up", None),
                    PartState::Warning(reason) => ("warning", Some(reason)),
                    PartState::Down(reason) => ("down", Some(reason)),
                };
                (part.name, Part { state, reason })
            })
            .collect();
        let (code, status) = if is_ready {
            (StatusCode::OK, Status::Success)
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, Status::Error)
        };
        (code, Answer { status, message: message.to_owned(), parts })
    }
}

/// `GET /health/live`
pub(super) async fn live() -> Response {
    let message = "alive".to_owned();
    Json(Answer { status: Status::Success, message, parts: BTreeMap::new() }).into_response()
}

/// `GET /health/ready`
pub(super) async fn ready(State(readiness): State<Arc<Readiness>>) -> Response {
    let (code, answer) = readiness.answer();
    (code, Json(answer)).into_response()
}
