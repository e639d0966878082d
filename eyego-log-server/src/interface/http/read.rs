//! GET of stored events.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use eyego_log_core::query::Start;
use eyego_log_core::wire::{LogResponse, LogsPage, Status};
use eyego_log_core::{FieldError, LogId, LogQuery, ParseLogIdError};

use super::api::Api;
use super::error::ApiError;
use super::parameters;
use crate::domain::repository::Page;

/// `GET /api/v1/logs`
pub(super) async fn list(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> Response {
    let found = async {
        let pairs = parameters::pairs(query.as_deref().unwrap_or_default())?;
        let pairs = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let query = LogQuery::from_pairs(pairs)?;
        let page = api.repository.find(&query).await?;
        Ok::<_, ApiError>(logs_page(page, query.start))
    };
    match found.await {
        Ok(page) => Json(page).into_response(),
        Err(error) => error.into_response(),
    }
}

/// `GET /api/v1/logs/{id}`
pub(super) async fn get(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Response {
    let found = async {
        let id = log_id(&id)?;
        let entry = api.repository.get(id).await?;
        entry.ok_or_else(|| ApiError::not_found(format!("no event has the id {id}")))
    };
    match found.await {
        Ok(data) => Json(LogResponse { status: Status::Success, data }).into_response(),
        Err(error) => error.into_response(),
    }
}

fn logs_page(page: Page, start: Start) -> LogsPage {
    LogsPage {
        status: Status::Success,
        results: page.entries.len(),
        page: match start {
            Start::Page(number) => number,
            Start::After(_) => 1,
        },
        data: page.entries,
        next_cursor: page.next.map(|cursor| cursor.to_string()),
    }
}

/// Parses the id in a path.
///
/// # Errors
/// Returns an error unless `text` is 24 hex digits.
pub(super) fn log_id(text: &str) -> Result<LogId, ApiError> {
    text.parse()
        .map_err(|error: ParseLogIdError| ApiError::invalid_field(FieldError::new("id", error)))
}
