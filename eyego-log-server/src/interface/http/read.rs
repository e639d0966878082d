//! GET of stored events.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use eyego_log_core::query::Start;
use eyego_log_core::wire::{LogResponse, LogsPage, Status};
use eyego_log_core::{FieldError, LogId, LogQuery, ParseLogIdError};
use http::request::Parts;

use super::access::Audited;
use super::api::Api;
use super::error::ApiError;
use super::{held_body, parameters};
use crate::domain::read::{Page, PageItem as _, ReadMemory as _};

/// `GET /api/v1/logs`
pub(super) async fn list(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> Response {
    let found = async {
        let pairs = parameters::pairs(query.as_deref().unwrap_or_default())?;
        let pairs = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let query = LogQuery::from_pairs(pairs)?;
        let share = api.read_budget.start()?;
        let page = api.repository.find(&query, Arc::clone(&share) as Arc<_>).await?;
        Ok::<_, ApiError>((page, query.start, share))
    };
    match found.await {
        Ok((page, start, share)) => {
            let envelope = envelope(&page, start);
            let count = Audited::count(envelope.results as u64);
            (count, held_body::list(&envelope, page.entries, share)).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// `GET /api/v1/logs/{id}`
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    PathId(id): PathId,
    RawQuery(query): RawQuery,
) -> Response {
    let found = async {
        parameters::expect_none(query.as_deref())?;
        let share = api.read_budget.start()?;
        let entry = api.repository.get(id).await?;
        let entry =
            entry.ok_or_else(|| ApiError::not_found(format!("no event has the id {id}")))?;
        // The event is in memory twice: decoded, and as JSON.
        share.reserve(2 * entry.json_bytes())?;
        Ok::<_, ApiError>((entry, share))
    };
    match found.await {
        Ok((data, share)) => {
            let response = LogResponse { status: Status::Success, data };
            (Audited::count(1), held_body::one(&response, share)).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// Returns the page without its entries.
fn envelope(page: &Page, start: Start) -> LogsPage {
    LogsPage {
        status: Status::Success,
        results: page.entries.len(),
        page: match start {
            Start::Page(number) => number,
            Start::After(_) => 1,
        },
        data: Vec::new(),
        next_cursor: page.next.map(|cursor| cursor.to_string()),
    }
}

/// The `{id}` in a path.
pub(super) struct PathId(pub(super) LogId);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    /// Rejects everything except 24 hex digits.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // A path that is not UTF-8 is rejected like any other invalid id.
        let text = Path::<String>::from_request_parts(parts, state).await;
        let text = text.map_or_else(|_| String::new(), |Path(text)| text);
        text.parse()
            .map(Self)
            .map_err(|error: ParseLogIdError| ApiError::invalid_field(FieldError::new("id", error)))
    }
}
