//! POST of one event and of a batch.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use eyego_log_core::wire::{BatchResponse, IngestResponse};
use eyego_log_core::{FieldError, FieldErrors, LogEntry};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::access::Charge;
use super::api::Api;
use super::body::{self, BodyLimits, ReadBody};
use super::envelope::{respond, status_field};
use super::error::{ApiError, rejected_item, status_of_rejected};
use super::heavy::{self, MAX_LIGHT_BYTES, MAX_LIGHT_ITEMS};
use super::items::{Items, elements, lines};
use super::parameters;
use crate::application::ingest::{BatchOutcome, PreparedBatch, PreparedEvent};
use crate::application::wait::{self, WaitOutcome};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

const QUEUED: &str = "Log queued successfully";
const STORED: &str = "Log stored";
const CONFLICT: &str = "a different event is stored under this id; the stored event is kept";

/// Limits of `timeout`.
const MIN_WAIT: Duration = Duration::from_millis(1);
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Default of `timeout`.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// `POST /api/v1/logs`
pub(super) async fn event(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (event, deadline) = match read_event(&api, request).await {
        Ok(read) => read,
        Err(response) => return response,
    };
    let id = event.id();
    let entry = match api.ingest.enqueue_event(event).await {
        Ok(entry) => entry,
        Err(error) => return ApiError::from(error).into_response(),
    };
    let outcome = match deadline {
        // Boxed, because it would enlarge the future of every request.
        Some(deadline) => Box::pin(wait_until_stored(&api, &entry, deadline)).await,
        None => WaitOutcome::TimedOut,
    };
    let (code, message) = match outcome {
        WaitOutcome::TimedOut => (StatusCode::ACCEPTED, QUEUED),
        WaitOutcome::Stored => (StatusCode::OK, STORED),
        WaitOutcome::Conflict => (StatusCode::CONFLICT, CONFLICT),
    };
    let message = message.to_owned();
    respond(code, &IngestResponse { status: status_field(code), message, id })
}

/// Reads the event of a request and, for `wait=stored`, the deadline of the wait.
///
/// No part of the request outlives this call. Headers and body share the
/// connection's buffer, which hyper can reuse only once nothing refers to it.
async fn read_event(
    api: &Arc<Api>,
    request: Request,
) -> Result<(PreparedEvent, Option<Instant>), Response> {
    let (head, body) = request.into_parts();
    let read = async {
        let checked = check_headers(&head, &[JSON])
            .and_then(|(key, _)| Ok((key, wait_deadline(head.uri.query())?)));
        let (key, deadline) = match checked {
            Ok(checked) => checked,
            Err(error) => return Err(discard_body(&head.headers, body, error).await),
        };
        let max_bytes = api.ingest.limits().max_event_bytes;
        let limits = BodyLimits { what: "an event", max_bytes };
        let body = api.read_body(&head.headers, body, limits).await?;
        Ok((key, deadline, body))
    };
    let (key, deadline, body) = match read.await {
        Ok(read) => read,
        Err(error) => return Err(refuse_body(api, error)),
    };
    let ReadBody { bytes, share } = body;
    let prepared = if bytes.len() > MAX_LIGHT_BYTES {
        let (key, worker) = (key.map(str::to_owned), Arc::clone(api));
        let work = move || worker.ingest.prepare_event(&bytes, key.as_deref(), share);
        api.heavy.run(work).await.map_err(|error| refuse_body(api, error))?
    } else {
        api.ingest.prepare_event(&bytes, key, share)
    };
    match prepared {
        Ok(event) => Ok((event, deadline)),
        Err(error) => Err(ApiError::from(error).into_response()),
    }
}

/// Waits until the event is stored, `deadline` passes or the process stops: a
/// queued event is stored later in any case, and a shutdown must not take as long
/// as the longest wait.
async fn wait_until_stored(api: &Api, entry: &LogEntry, deadline: Instant) -> WaitOutcome {
    let mut stop = api.stop.clone();
    tokio::select! {
        outcome = wait::until_stored(&*api.repository, entry, deadline) => outcome,
        _ = stop.wait_for(|stop| *stop) => WaitOutcome::TimedOut,
    }
}

/// Parses `wait=stored` and `timeout`. Returns the deadline of the wait, if there
/// is one.
fn wait_deadline(query: Option<&str>) -> Result<Option<Instant>, FieldErrors> {
    if query.is_none() {
        return Ok(None);
    }
    let mut waits = false;
    let mut timeout = None;
    parameters::parse(query, |name, value| match name {
        "wait" if value == "stored" => {
            waits = true;
            Ok(())
        }
        "wait" => Err("must be stored".to_owned()),
        "timeout" => {
            let duration = humantime::parse_duration(value).ok();
            timeout = duration.filter(|duration| (MIN_WAIT..=MAX_WAIT).contains(duration));
            let error = "must be a duration from 1ms to 30s, such as 500ms or 5s";
            if timeout.is_some() { Ok(()) } else { Err(error.to_owned()) }
        }
        _ => Err("is not a known parameter (those are wait, timeout)".to_owned()),
    })?;
    if timeout.is_some() && !waits {
        return Err(FieldError::new("timeout", "has no effect without wait=stored").into());
    }
    Ok(waits.then(|| Instant::now() + timeout.unwrap_or(DEFAULT_WAIT)))
}

/// `POST /api/v1/logs/batch`
pub(super) async fn batch(State(api): State<Arc<Api>>, request: Request) -> Response {
    let charge = request.extensions().get::<Charge>().cloned();
    let batch = match read_batch(&api, request).await {
        Ok(batch) => batch,
        Err(error) => return refuse_body(&api, error),
    };
    if let Some(charge) = charge
        && let Err(error) = charge.rest_of_batch(batch.events())
    {
        batch.refuse(error.refusal());
        return error.into_response();
    }
    let outcome = api.ingest.enqueue_batch(batch).await;
    if outcome.accepted + outcome.rejected.len() <= MAX_LIGHT_ITEMS {
        return batch_response(outcome);
    }
    heavy::respond(move || batch_response(outcome)).await.unwrap_or_else(ApiError::into_response)
}

async fn read_batch(api: &Arc<Api>, request: Request) -> Result<PreparedBatch, ApiError> {
    let (head, body) = request.into_parts();
    let checked = check_headers(&head, &[JSON, NDJSON]).and_then(|checked| {
        parameters::expect_none(head.uri.query())?;
        if body::declared_length(&body).is_none_or(|length| length > MAX_LIGHT_BYTES as u64) {
            api.ingest.check_queue()?;
        }
        Ok(checked)
    });
    let (key, media_type) = match checked {
        Ok(checked) => checked,
        Err(error) => return Err(discard_body(&head.headers, body, error).await),
    };
    let is_ndjson = media_type.eq_ignore_ascii_case(NDJSON);
    let body = api.read_body(&head.headers, body, api.body_limits).await?;
    if is_light(&body.bytes, is_ndjson) {
        return prepare_batch(api, body, is_ndjson, key);
    }
    // The queue may have filled up while the body arrived.
    api.ingest.check_queue()?;
    let (key, worker) = (key.map(str::to_owned), Arc::clone(api));
    api.heavy.run(move || prepare_batch(&worker, body, is_ndjson, key.as_deref())).await?
}

/// Returns whether a batch takes less than 5 ms: it is small and has few items.
fn is_light(bytes: &[u8], is_ndjson: bool) -> bool {
    // Most commas of an array of events are within an event.
    let (separator, max) =
        if is_ndjson { (b'\n', MAX_LIGHT_ITEMS) } else { (b',', 4 * MAX_LIGHT_ITEMS) };
    bytes.len() <= MAX_LIGHT_BYTES && memchr::memchr_iter(separator, bytes).nth(max).is_none()
}

fn prepare_batch(
    api: &Api,
    body: ReadBody,
    is_ndjson: bool,
    key: Option<&str>,
) -> Result<PreparedBatch, ApiError> {
    let ReadBody { bytes, share } = body;
    let max = api.ingest.limits().max_batch_events;
    let Items { items, count } =
        if is_ndjson { lines(&bytes, max) } else { elements(&bytes, max)? };
    if count == 0 {
        return Err(ApiError::invalid("the batch contains no events"));
    }
    if count > max {
        let message = format!("a batch may contain up to {max} events; this one has {count}");
        return Err(ApiError::too_large(message));
    }
    Ok(api.ingest.prepare_batch(&items, key, share)?)
}

fn batch_response(outcome: BatchOutcome) -> Response {
    let BatchOutcome { accepted, ids, rejected } = outcome;
    let total = accepted + rejected.len();
    let code = match (accepted, rejected.is_empty()) {
        (_, true) => StatusCode::ACCEPTED,
        (1.., false) => StatusCode::MULTI_STATUS,
        (0, false) => status_of_rejected(&rejected),
    };
    let message = match code {
        StatusCode::SERVICE_UNAVAILABLE => "no event queued; retry with the same ids".to_owned(),
        _ => format!("{accepted} of {total} events queued"),
    };
    let rejected = rejected.into_iter().map(rejected_item).collect();
    respond(code, &BatchResponse { status: status_field(code), message, accepted, ids, rejected })
}

/// Checks what is known before the body is read. Returns the `Idempotency-Key`
/// and the media type.
fn check_headers<'a>(
    head: &'a Parts,
    accepted: &[&str],
) -> Result<(Option<&'a str>, &'a str), ApiError> {
    Ok((idempotency_key(&head.headers)?, body::media_type(&head.headers, accepted)?))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    const NAME: &str = "Idempotency-Key";
    let invalid = |reason: &str| Err(ApiError::invalid_field(FieldError::new(NAME, reason)));

    // A repeated header is refused before routing.
    let Some(value) = headers.get(NAME) else { return Ok(None) };
    let bytes = value.as_bytes();
    if bytes.is_empty() || bytes.len() > 255 || !bytes.iter().all(u8::is_ascii_graphic) {
        return invalid("must have 1 to 255 visible ASCII characters");
    }
    Ok(value.to_str().ok())
}

/// Counts a body that is refused as a whole, and responds.
fn refuse_body(api: &Api, error: ApiError) -> Response {
    api.ingest.counters().refuse_body(error.refusal());
    error.into_response()
}

async fn discard_body(headers: &HeaderMap, mut body: Body, error: ApiError) -> ApiError {
    body::discard_unread(headers, &mut body).await;
    error
}
