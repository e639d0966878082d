//! GET of dead letters, and POST to replay them.

mod raw;

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use eyego_log_core::query::{parse_cursor, parse_limit};
use eyego_log_core::wire::{self, Status, SyntaxError};
use eyego_log_core::{FieldError, FieldErrors, LogId, ParseError, ParseLogIdError, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema as _, ToSchema};

use self::raw::Piece;
use super::access::Audited;
use super::api::Api;
use super::body::{self, BodyLimits};
use super::error::ApiError;
use super::read::PathId;
use super::{heavy, held_body, parameters};
use crate::application::dead_letters::{Replayed, Selection};
use crate::application::read_budget::ReadShare;
use crate::domain::dead_letter::{DeadLetter, DeadLetterQuery, DeadLetterSummary};
use crate::domain::read::{PageItem as _, ReadMemory as _};

/// The body of a replay only selects dead letters.
const BODY_LIMITS: BodyLimits = BodyLimits { what: "the body", max_bytes: 64 << 10 };

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeadLettersPage)]
pub(super) struct ListResponse {
    status: Status,
    /// Number of dead letters in this page.
    results: usize,
    // They are added while they are written out.
    #[schema(value_type = Vec<SummaryJson>)]
    data: [Summary; 0],
    /// Cursor of the next page. Null on the last page.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// One dead letter with its bytes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetterResponse)]
pub(super) struct GetResponse<'a> {
    status: Status,
    #[schema(schema_with = schema_with_raw)]
    data: SummaryWithRaw<'a>,
}

/// Outcome of a replay.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReplayResponse {
    status: Status,
    /// Number of dead letters that are stored now.
    replayed: u64,
    /// Number of dead letters that failed again.
    failed: u64,
    /// Number of selected dead letters that are left.
    remaining: u64,
}

/// A record that could not be stored.
// The JSON of a `DeadLetterSummary`.
#[derive(Serialize, ToSchema)]
#[serde(remote = "DeadLetterSummary", rename_all = "camelCase")]
#[schema(as = DeadLetter)]
struct SummaryJson {
    id: LogId,
    /// Machine-readable reason.
    code: String,
    /// Human-readable reason.
    message: String,
    /// Number of attempts to store it.
    attempts: u32,
    /// The user, if it can be read.
    #[schema(required = true)]
    user_id: Option<String>,
    topic: String,
    partition: i32,
    offset: i64,
    queued_at: Timestamp,
    /// Time of the last failure.
    failed_at: Timestamp,
    /// Size of the whole record in bytes, if only its beginning was kept.
    #[serde(rename = "cutFrom", skip_serializing_if = "Option::is_none")]
    truncated_from: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Summary(#[serde(with = "SummaryJson")] DeadLetterSummary);

#[derive(Debug, Serialize)]
struct SummaryWithRaw<'a> {
    #[serde(flatten)]
    summary: Summary,
    #[serde(flatten)]
    raw: Piece<'a>,
}

/// Returns the schema of [`SummaryWithRaw`].
fn schema_with_raw() -> RefOr<Schema> {
    let mut schema = SummaryJson::schema();
    if let (RefOr::T(Schema::Object(object)), RefOr::T(Schema::Object(raw))) =
        (&mut schema, Piece::schema())
    {
        object.properties.extend(raw.properties);
    }
    schema
}

/// `GET /api/v1/dead-letters`
pub(super) async fn list(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> Response {
    let found = async {
        let query = parse_query(query.as_deref())?;
        let share = api.read_budget.start()?;
        let page = api.dead_letters.page(&query, Arc::clone(&share) as Arc<_>).await?;
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
            let items = page.entries.into_iter().map(Summary).collect();
            let count = Audited::count(envelope.results as u64);
            (count, held_body::list(&envelope, items, share)).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// `GET /api/v1/dead-letters/{id}`
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    PathId(id): PathId,
    RawQuery(query): RawQuery,
) -> Response {
    let shown = async {
        let offset = parse_offset(query.as_deref())?;
        let share = api.read_budget.start()?;
        let dead_letter = api.dead_letters.get(id).await?;
        share.reserve(dead_letter.raw.len())?;
        // Escaping the bytes can take long.
        heavy::respond(move || show(dead_letter, offset, share)).await?
    };
    match shown.await {
        Ok(response) => (Audited::count(1), response).into_response(),
        Err(error) => error.into_response(),
    }
}

fn parse_offset(query: Option<&str>) -> Result<usize, FieldErrors> {
    let mut offset = 0;
    parameters::parse(query, |name, value| match name {
        "offset" => {
            offset = value.parse().map_err(|_| "must be a whole number of bytes".to_owned())?;
            Ok(())
        }
        _ => Err("is not a known parameter (those are offset)".to_owned()),
    })?;
    Ok(offset)
}

fn show(
    dead_letter: DeadLetter,
    offset: usize,
    share: Arc<ReadShare>,
) -> Result<Response, ApiError> {
    let DeadLetter { summary, raw } = dead_letter;
    let piece = Piece::new(&raw, offset)
        .map_err(|reason| ApiError::invalid_field(FieldError::new("offset", reason)))?;
    let size = summary.json_bytes() + piece.json_bytes();
    share.reserve(size)?;
    let data = SummaryWithRaw { summary: Summary(summary), raw: piece };
    let response = GetResponse { status: Status::Success, data };
    Ok(held_body::sized(&response, size, share))
}

/// `POST /api/v1/dead-letters/replay`
pub(super) async fn replay(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (head, mut body) = request.into_parts();
    let checked = parameters::expect_none(head.uri.query())
        .map_err(ApiError::from)
        .and_then(|()| body::media_type(&head.headers, &["application/json"]).map(drop));
    if let Err(error) = checked {
        body::discard_unread(&head.headers, &mut body).await;
        return error.into_response();
    }
    let result = async {
        let body = api.read_body(&head.headers, body, BODY_LIMITS).await?;
        let selection = parse_selection(&body.bytes)?;
        let filter = describe(&selection);
        Ok::<_, ApiError>((api.dead_letters.replay(selection).await?, filter))
    };
    match result.await {
        Ok((Replayed { replayed, failed, remaining }, filter)) => {
            let status = Status::Success;
            let audited = Audited::filter(replayed, filter);
            let response = ReplayResponse { status, replayed, failed, remaining };
            (audited, Json(response)).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// Describes a selection like a query string, for the audit log.
fn describe(selection: &Selection) -> String {
    match selection {
        Selection::Id(id) => format!("id={id}"),
        Selection::Code(code) => format!("code={code}"),
        Selection::All => "all=true".to_owned(),
    }
}

fn parse_query(text: Option<&str>) -> Result<DeadLetterQuery, FieldErrors> {
    let time = |value: &str| Timestamp::parse_clamped(value).map_err(|error| error.to_string());
    let mut query = DeadLetterQuery::default();
    parameters::parse(text, |name, value| {
        match name {
            "code" if value.is_empty() => {
                return Err("must not be empty; leave it out to match all".to_owned());
            }
            "code" => query.code = Some(value.to_owned()),
            "from" => query.from = Some(time(value)?),
            "to" => query.to = Some(time(value)?),
            "limit" => query.limit = parse_limit(value)?,
            "cursor" => query.after = Some(parse_cursor(value)?),
            _ => {
                let known = "code, from, to, limit, cursor";
                return Err(format!("is not a known parameter (those are {known})"));
            }
        }
        Ok(())
    })?;
    if let (Some(from), Some(to)) = (query.from, query.to)
        && from > to
    {
        let reason = format!("must not be after to ({from} > {to})");
        return Err(FieldError::new("from", reason).into());
    }
    Ok(query)
}

/// Parses the body of a replay: `{"id": …}`, `{"code": …}` or `{"all": true}`.
fn parse_selection(bytes: &[u8]) -> Result<Selection, ApiError> {
    const SHAPE: &str = "the body must be {\"id\": …}, {\"code\": …} or {\"all\": true}";

    let syntax = |error: SyntaxError| ApiError::from(ParseError::Syntax(error));
    let text = wire::body_text(bytes).map_err(syntax)?;
    let raw: &RawValue =
        serde_json::from_str(text).map_err(|error| syntax(SyntaxError::from_json(&error)))?;
    let mut errors = FieldErrors::new();
    let mut selected = None;
    let mut count = 0_usize;
    wire::for_each_member(raw, |name, value| {
        let selection = match &*name {
            "id" => non_empty_string(value).and_then(|text| {
                let id = text.parse().map_err(|error: ParseLogIdError| error.to_string());
                id.map(Selection::Id)
            }),
            "code" => non_empty_string(value).map(Selection::Code),
            "all" if value.get() == "true" => Ok(Selection::All),
            "all" => Err("must be true".to_owned()),
            _ => Err("is not a known field (those are id, code, all)".to_owned()),
        };
        match selection {
            Ok(selection) => {
                count += 1;
                selected = Some(selection);
            }
            Err(reason) => errors.add(name, reason),
        }
    });
    if !errors.is_empty() {
        return Err(errors.into());
    }
    selected.filter(|_| count == 1).ok_or_else(|| ApiError::invalid(SHAPE))
}

fn non_empty_string(value: &RawValue) -> Result<String, String> {
    let text: String =
        serde_json::from_str(value.get()).map_err(|_| "must be a string".to_owned())?;
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_selects_exactly_one_thing() {
        let parse = |text: &str| parse_selection(text.as_bytes()).ok();
        assert_eq!(parse(r#"{"all": true}"#), Some(Selection::All));
        assert_eq!(parse(r#"{"code": "x"}"#), Some(Selection::Code("x".to_owned())));
        let id = "69682d8d81847b87ab93264b";
        assert_eq!(parse(&format!(r#"{{"id":"{id}"}}"#)), Some(Selection::Id(id.parse().unwrap())));
        for bad in [
            "",
            "{}",
            "[]",
            "true",
            r#"{"all":false}"#,
            r#"{"all":true,"code":"x"}"#,
            r#"{"all":true,"all":true}"#,
            r#"{"id":"x"}"#,
            r#"{"code":""}"#,
            r#"{"code":1}"#,
            r#"{"other":1}"#,
            r#"{"all":true,"other":1}"#,
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
