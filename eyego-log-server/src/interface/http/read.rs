//! GET of logs.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use eyego_log_core::wire::{LogResponse, Status};
use eyego_log_core::{FieldError, LogId, LogQuery, ParseLogIdError};

use super::api::Api;
use super::error::ApiError;
use super::parameters;

/// `GET /api/v1/logs`
pub(super) async fn page(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> Response {
    let found = async {
        let pairs = parameters::pairs(query.as_deref().unwrap_or_default())?;
        let pairs = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let query = LogQuery::from_pairs(pairs)?;
        Ok::<_, ApiError>(api.retrieve.page(&query).await?)
    };
    match found.await {
        Ok(page) => Json(page).into_response(),
        Err(error) => error.into_response(),
    }
}

/// `GET /api/v1/logs/{id}`
pub(super) async fn one(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Response {
    let found = async {
        let id = log_id(&id)?;
        let entry = api.retrieve.one(id).await?;
        entry.ok_or_else(|| ApiError::NotFound(format!("no log has the id {id}")))
    };
    match found.await {
        Ok(data) => Json(LogResponse { status: Status::Success, data }).into_response(),
        Err(error) => error.into_response(),
    }
}

/// The id in a path.
///
/// # Errors
/// It is none.
pub(super) fn log_id(text: &str) -> Result<LogId, ApiError> {
    text.parse().map_err(|error: ParseLogIdError| ApiError::field(FieldError::new("id", error)))
}
