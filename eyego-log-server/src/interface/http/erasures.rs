//! DELETE of a user's events, and GET of erasures.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use eyego_log_core::query::{parse_cursor, parse_limit};
use eyego_log_core::wire::Status;
use eyego_log_core::{FieldError, FieldErrors, LogId, Timestamp, UserId};
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;
use utoipa::ToSchema;

use super::api::Api;
use super::error::ApiError;
use super::read::PathId;
use super::{held_body, parameters};
use crate::domain::erasure::{Erasure, ErasureQuery};

/// One erasure.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErasureResponse {
    status: Status,
    data: ErasureJson,
}

/// A page of erasures.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ErasuresPage)]
pub(super) struct ListResponse {
    status: Status,
    /// Number of erasures in this page.
    results: usize,
    // They are added while they are written out.
    #[schema(value_type = Vec<ErasureJson>)]
    data: [ErasureJson; 0],
    /// Cursor of the next page. Null on the last page.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// The erasure of a user.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Erasure)]
struct ErasureJson {
    id: LogId,
    user_id: UserId,
    /// Events that were received before this time are removed.
    requested_at: Timestamp,
    /// `running` or `done`.
    state: &'static str,
    removed: RemovedJson,
    /// Time at which it was done. Null before.
    #[schema(required = true)]
    completed_at: Option<Timestamp>,
}

/// What an erasure has removed so far.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Removed)]
struct RemovedJson {
    /// Number of stored events.
    store: u64,
    /// Number of dead letters.
    dead_letters: u64,
}

impl From<Erasure> for ErasureJson {
    fn from(erasure: Erasure) -> Self {
        let Erasure { id, user_id, requested_at, removed, completed_at } = erasure;
        let state = if completed_at.is_some() { "done" } else { "running" };
        let removed = RemovedJson { store: removed.store, dead_letters: removed.dead_letters };
        Self { id, user_id, requested_at, state, removed, completed_at }
    }
}

/// `DELETE /api/v1/users/{userId}/logs`
pub(super) async fn request(
    State(api): State<Arc<Api>>,
    PathUserId(user_id): PathUserId,
    RawQuery(query): RawQuery,
) -> Response {
    let requested = async {
        parameters::expect_none(query.as_deref())?;
        Ok::<_, ApiError>(api.erasures.request(user_id).await?)
    };
    match requested.await {
        Ok(erasure) => {
            let response = ErasureResponse { status: Status::Success, data: erasure.into() };
            (StatusCode::ACCEPTED, Json(response)).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// `GET /api/v1/erasures/{id}`
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    PathId(id): PathId,
    RawQuery(query): RawQuery,
) -> Response {
    let found = async {
        parameters::expect_none(query.as_deref())?;
        let erasure = api.erasures.get(id).await?;
        erasure.ok_or_else(|| ApiError::not_found(format!("no erasure has the id {id}")))
    };
    match found.await {
        Ok(erasure) => {
            let response = ErasureResponse { status: Status::Success, data: erasure.into() };
            Json(response).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// `GET /api/v1/erasures`
pub(super) async fn list(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> Response {
    let found = async {
        let query = parse_query(query.as_deref())?;
        let share = api.read_budget.start()?;
        let page = api.erasures.page(query, &*share).await?;
        Ok::<_, ApiError>((page, share))
    };
    match found.await {
        Ok((page, share)) => {
            let envelope = ListResponse {
                status: Status::Success,
                results: page.entries.len(),
                data: [],
                next_cursor: page.next.map(|cursor| cursor.to_string()),
            };
            let items = page.entries.into_iter().map(ErasureJson::from).collect();
            held_body::list(&envelope, items, share)
        }
        Err(error) => error.into_response(),
    }
}

fn parse_query(text: Option<&str>) -> Result<ErasureQuery, FieldErrors> {
    let mut query = ErasureQuery::default();
    parameters::parse(text, |name, value| {
        match name {
            "limit" => query.limit = parse_limit(value)?,
            "cursor" => query.after = Some(parse_cursor(value)?),
            _ => return Err("is not a known parameter (those are limit, cursor)".to_owned()),
        }
        Ok(())
    })?;
    Ok(query)
}

/// The `{userId}` in a path, percent-decoded.
pub(super) struct PathUserId(UserId);

impl<S: Send + Sync> FromRequestParts<S> for PathUserId {
    type Rejection = ApiError;

    /// Accepts any user id that a store can contain, also longer ones than ingest
    /// does.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let user_id = text.ok().and_then(|Path(text)| UserId::from_stored(text));
        user_id.map(Self).ok_or_else(|| {
            let reason = "must be a non-empty string, percent-encoded in UTF-8";
            ApiError::invalid_field(FieldError::new("userId", reason))
        })
    }
}
