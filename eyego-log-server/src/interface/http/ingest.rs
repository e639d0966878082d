//! POST of one log and of many.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use eyego_log_core::wire::{BatchResponse, IngestResponse, Status};
use eyego_log_core::{FieldError, FieldErrors, LogEntry, LogId};
use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::api::Api;
use super::body::{self, LARGE, ReadBody};
use super::error::ApiError;
use super::items::{elements, lines};
use super::parameters;
use crate::application::ingest::{BatchOutcome, PreparedBatch, PreparedEvent};
use crate::application::retrieve::Waited;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

const QUEUED: &str = "Log queued successfully";
const STORED: &str = "Log stored";
const LOST: &str = "another log is stored under this id; the first one stays";

/// How long a caller may wait for its log to be stored.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// `POST /api/v1/logs`
pub(super) async fn one(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (event, deadline) = match read_one(&api, request).await {
        Ok(read) => read,
        Err(refusal) => return refusal,
    };
    let id = event.id();
    let entry = match api.ingest.enqueue_event(event).await {
        Ok(entry) => entry,
        Err(error) => return ApiError::from(error).into_response(),
    };
    let waited = match deadline {
        // Boxed: hardly anybody waits, and every request would carry it.
        Some(deadline) => Box::pin(wait(&api, &entry, deadline)).await,
        None => Waited::NotYet,
    };
    match waited {
        Waited::NotYet => answer(StatusCode::ACCEPTED, Status::Success, QUEUED, id),
        Waited::Stored => answer(StatusCode::OK, Status::Success, STORED, id),
        Waited::Lost => answer(StatusCode::CONFLICT, Status::Fail, LOST, id),
    }
}

/// The event of a request, and until when its caller waits for it to be stored.
///
/// Nothing of the request outlives this: head and body lie in the connection's
/// buffer, and while anybody holds a piece of that, hyper takes a new one.
async fn read_one(
    api: &Api,
    request: Request,
) -> Result<(PreparedEvent, Option<Instant>), Response> {
    let (head, body) = request.into_parts();
    let read = async {
        let checked = preliminaries(&head, &[JSON]).and_then(|(key, _)| {
            let deadline = wait_until(head.uri.query())?;
            Ok((key, deadline))
        });
        let (key, deadline) = match checked {
            Ok(checked) => checked,
            Err(error) => return Err(refuse(body, error).await),
        };
        let body = body::read(&head.headers, body, api.body_limits, api.ingest.budget()).await?;
        Ok((key, deadline, body))
    };
    let (key, deadline, body) = match read.await {
        Ok(read) => read,
        Err(error) => return Err(body_refused(api, error)),
    };
    match api.ingest.prepare_event(&body.bytes, key, body.permit) {
        Ok(event) => Ok((event, deadline)),
        Err(error) => Err(ApiError::from(error).into_response()),
    }
}

/// Waits for the log, unless the process stops: what is queued will be stored,
/// and the stop shall not take as long as the callers' patience.
async fn wait(api: &Api, entry: &LogEntry, deadline: Instant) -> Waited {
    let mut stop = api.stop.clone();
    tokio::select! {
        waited = api.retrieve.wait_for(entry, deadline) => waited,
        _ = stop.wait_for(|stop| *stop) => Waited::NotYet,
    }
}

/// Until when the caller wants to wait for its log to be stored: `wait=stored`
/// and `timeout`.
fn wait_until(query: Option<&str>) -> Result<Option<Instant>, FieldErrors> {
    // Hardly anybody waits.
    if query.is_none() {
        return Ok(None);
    }
    let mut waits = false;
    let mut timeout = None;
    parameters::read(query, |name, value| match name {
        "wait" if value == "stored" => {
            waits = true;
            Ok(())
        }
        "wait" => Err("must be stored".to_owned()),
        "timeout" => {
            let said = humantime::parse_duration(value).ok();
            timeout = said.filter(|said| (SHORTEST_WAIT..=LONGEST_WAIT).contains(said));
            let fault = "must be a duration from 1ms to 30s, such as 500ms or 5s";
            if timeout.is_some() { Ok(()) } else { Err(fault.to_owned()) }
        }
        _ => Err("is not a known parameter (those are wait, timeout)".to_owned()),
    })?;
    if timeout.is_some() && !waits {
        return Err(FieldError::new("timeout", "says nothing without wait=stored").into());
    }
    Ok(waits.then(|| Instant::now() + timeout.unwrap_or(DEFAULT_WAIT)))
}

fn answer(code: StatusCode, status: Status, message: &str, id: LogId) -> Response {
    (code, Json(IngestResponse { status, message: message.to_owned(), id })).into_response()
}

/// `POST /api/v1/logs/batch`
pub(super) async fn many(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let prepared = async {
        let checked = preliminaries(&head, &[JSON, NDJSON]).and_then(|checked| {
            parameters::none(head.uri.query())?;
            Ok(checked)
        });
        let (key, is_ndjson, body) = match checked {
            Ok((key, media_type)) => (key, media_type.eq_ignore_ascii_case(NDJSON), body),
            Err(error) => return Err(refuse(body, error).await),
        };
        let ReadBody { bytes, permit } =
            body::read(&head.headers, body, api.body_limits, api.ingest.budget()).await?;
        let prepared = if bytes.len() > LARGE {
            let (api, key) = (Arc::clone(&api), key.map(str::to_owned));
            let work = move || prepare(&api, &bytes, is_ndjson, key.as_deref());
            let joined = tokio::task::spawn_blocking(work).await;
            joined.map_err(|error| ApiError::Internal(format!("parsing failed: {error}")))??
        } else {
            let prepared = prepare(&api, &bytes, is_ndjson, key)?;
            // Not while the queue takes its time.
            drop(bytes);
            prepared
        };
        Ok((prepared, permit))
    };
    match prepared.await {
        Ok((prepared, permit)) => batch_answer(api.ingest.enqueue_batch(prepared, permit).await),
        Err(error) => body_refused(&api, error),
    }
}

fn body_refused(api: &Api, error: ApiError) -> Response {
    api.ingest.counters().refuse_body(error.refusal());
    error.into_response()
}

/// What is checked before the body is read: its media type, the
/// `Idempotency-Key`.
fn preliminaries<'a>(
    head: &'a Parts,
    accepted: &[&str],
) -> Result<(Option<&'a str>, &'a str), ApiError> {
    Ok((idempotency_key(&head.headers)?, body::media_type(&head.headers, accepted)?))
}

async fn refuse(mut body: axum::body::Body, error: ApiError) -> ApiError {
    body::discard(&mut body).await;
    error
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    const NAME: &str = "Idempotency-Key";
    let fault = |fault: &str| Err(ApiError::field(FieldError::new(NAME, fault)));

    let mut values = headers.get_all(NAME).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return fault("must not be repeated");
    }
    let bytes = value.as_bytes();
    if bytes.is_empty() || bytes.len() > 255 || !bytes.iter().all(u8::is_ascii_graphic) {
        return fault("must have 1 to 255 visible ASCII characters");
    }
    Ok(value.to_str().ok())
}

fn prepare(
    api: &Api,
    bytes: &[u8],
    is_ndjson: bool,
    key: Option<&str>,
) -> Result<PreparedBatch, ApiError> {
    let items = if is_ndjson { lines(bytes) } else { elements(bytes)? };
    if items.is_empty() {
        let message = "the batch has no log in it".to_owned();
        return Err(ApiError::Invalid(message, FieldErrors::new()));
    }
    let max = api.ingest.limits().max_batch_events;
    if items.len() > max {
        let count = items.len();
        return Err(ApiError::TooLarge(format!("a batch may hold {max} logs, not {count}")));
    }
    Ok(api.ingest.prepare_batch(&items, key))
}

fn batch_answer(outcome: BatchOutcome) -> Response {
    let BatchOutcome { accepted, ids, rejected } = outcome;
    let (code, status, message) = if rejected.is_empty() {
        (StatusCode::ACCEPTED, Status::Success, "all logs queued".to_owned())
    } else if accepted > 0 {
        let message = format!("{accepted} of {} logs queued", accepted + rejected.len());
        (StatusCode::MULTI_STATUS, Status::Success, message)
    } else if rejected.iter().any(|item| item.retryable) {
        let message = "no log queued; try again, with the same ids".to_owned();
        (StatusCode::SERVICE_UNAVAILABLE, Status::Error, message)
    } else {
        (StatusCode::BAD_REQUEST, Status::Fail, "no log queued: each has faults".to_owned())
    };
    let answer = BatchResponse { status, message, accepted, ids, rejected };
    let mut response = (code, Json(answer)).into_response();
    if code == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
