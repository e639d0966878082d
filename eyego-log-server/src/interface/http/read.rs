//! GET of logs.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use eyego_log_core::wire::{LogAnswer, Status};
use eyego_log_core::{FieldError, FieldErrors, LogId, LogQuery};

use super::error::ApiError;
use super::router::Api;

/// `GET /api/v1/logs`
pub(super) async fn page(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> Response {
    let found = async {
        let pairs = pairs(query.as_deref().unwrap_or_default())?;
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
        let id: LogId = id.parse().map_err(|error: eyego_log_core::ParseLogIdError| {
            ApiError::field(FieldError::new("id", error))
        })?;
        let entry = api.retrieve.one(id).await?;
        entry.ok_or_else(|| ApiError::NotFound(format!("no log has the id {id}")))
    };
    match found.await {
        Ok(data) => Json(LogAnswer { status: Status::Success, data }).into_response(),
        Err(error) => error.into_response(),
    }
}

/// The parameters of a query string, percent-decoded.
fn pairs(query: &str) -> Result<Vec<(String, String)>, FieldErrors> {
    let mut faults = FieldErrors::new();
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (decode(name), decode(value)) {
            (Some(name), Some(value)) => pairs.push((name, value)),
            _ => faults.push(FieldError::new(name, "must be percent-encoded UTF-8")),
        }
    }
    if faults.is_empty() { Ok(pairs) } else { Err(faults) }
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(decoded.into_owned())
}
