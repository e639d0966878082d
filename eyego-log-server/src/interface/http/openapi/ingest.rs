//! POST of one event and of a batch.

use eyego_log_core::IngestRequest;
use eyego_log_core::wire::{BatchResponse, IngestResponse};
use serde_json::json;
use utoipa::openapi::path::{HttpMethod, Parameter};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema,
};
use utoipa::openapi::{Content, Required};

use super::parameters::{header, one_of, query, string};
use super::route::{JSON, Route};
use crate::domain::access::Scope;

const TAG: &str = "Ingest";
const NDJSON: &str = "application/x-ndjson";

pub(super) fn routes() -> Vec<Route> {
    vec![event(), batch()]
}

fn event() -> Route {
    let mut route =
        Route::new(HttpMethod::Post, "/api/v1/logs", TAG, "ingestEvent", "Ingests one event");
    let example = json!({"userId": "user-123", "action": "CLICK_BUTTON",
                         "metadata": {"page": "home"}});
    let mut content = Content::new(Some(route.reference::<IngestRequest>()));
    content.example = Some(example);
    let body = RequestBodyBuilder::new()
        .content(JSON, content)
        .description(Some("Up to 256 KiB by default, as sent and decompressed."))
        .required(Some(Required::True));
    route
        .describe(
            "Queues the event. 202 is sent once the queue holds it durably. A failure that contains \
             an `id` is not acknowledged; a retry with that id cannot duplicate the event.",
        )
        .key(Scope::Ingest)
        .parameters([
            query("wait", "Respond when the event can be read.", one_of(&["stored"]).default(None))
                .build(),
            query(
                "timeout",
                // No `default`: generated clients send it, also without `wait`.
                "How long to wait: 1ms to 30s, 5s if absent. Only with `wait=stored`.",
                string().pattern(Some("^([0-9]+ ?(ms|s) ?)+$")),
            )
            .build(),
            idempotency_key("The id is derived from the key and `userId`, so a retry with the same \
                             key is the same event. An `id` in the body takes precedence."),
            content_encoding(),
        ])
        .body(body.build())
        .responds::<IngestResponse>(200, "With `wait=stored`: the event can be read.")
        .responds::<IngestResponse>(202, "The event is durable.")
        .links(200, "event", "getEvent", "$response.body#/id")
        .links(202, "event", "getEvent", "$response.body#/id")
        .responds::<IngestResponse>(
            409,
            "With `wait=stored`: another event is stored under this id; that one is kept.",
        )
        .fails_with::<IngestResponse>(413, "The event is too large. The message names the limit.")
        .fails_with::<IngestResponse>(
            503,
            "The queue did not acknowledge the event, or the server is busy. With an `id` if the \
             event was parsed.",
        )
}

fn batch() -> Route {
    let mut route = Route::new(
        HttpMethod::Post,
        "/api/v1/logs/batch",
        TAG,
        "ingestBatch",
        "Ingests many events",
    );
    let events = ArrayBuilder::new().items(route.reference::<IngestRequest>()).min_items(Some(1));
    let events = events.build();
    let logs = ObjectBuilder::new()
        .property("logs", events.clone())
        .required("logs")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let json = OneOfBuilder::new().item(logs).item(events);
    let mut json = Content::new(Some(Schema::from(json)));
    json.example = Some(json!({"logs": [{"userId": "user-123", "action": "LOGIN"},
                                        {"userId": "user-456", "action": "LOGOUT"}]}));
    let lines = string()
        .description(Some(
            "One event per line, as for `POST /api/v1/logs`. Blank lines are skipped.",
        ))
        .min_length(Some(1))
        .content_media_type(NDJSON);
    let mut lines = Content::new(Some(Schema::from(lines)));
    let example = "{\"userId\":\"user-123\",\"action\":\"LOGIN\"}\n\
                   {\"userId\":\"user-456\",\"action\":\"LOGOUT\"}\n";
    lines.example = Some(json!(example));
    let body = RequestBodyBuilder::new()
        .content(JSON, json)
        .content(NDJSON, lines)
        .description(Some("Up to 10,000 events and 16 MiB after decompression, by default."))
        .required(Some(Required::True));
    route
        .describe(
            "Each event is validated on its own. Resend only the entries of `rejected` whose \
             `retryable` is true.",
        )
        .key(Scope::Ingest)
        .parameters([
            idempotency_key("The id of each event is derived from the key, its bytes and its \
                             occurrence among equal events, so any part can be resent."),
            content_encoding(),
        ])
        .body(body.build())
        .responds::<BatchResponse>(202, "All events are durable.")
        .responds::<BatchResponse>(207, "Some events are durable.")
        .fails_with::<BatchResponse>(
            400,
            "The request is invalid, it contains no events, or no event is queued and none is worth \
             retrying.",
        )
        .fails_with::<BatchResponse>(413, "The body is too large, there are too many events, or each is too large.")
        .fails_with::<BatchResponse>(
            503,
            "No event is queued and at least one is worth retrying, or the server is busy.",
        )
}

fn idempotency_key(effect: &str) -> Parameter {
    let schema = string().pattern(Some("^[!-~]{1,255}$"));
    header("Idempotency-Key", &format!("1 to 255 visible ASCII characters. {effect}"), schema)
}

fn content_encoding() -> Parameter {
    let schema = one_of(&["identity", "gzip", "zstd"]).default(None);
    header("Content-Encoding", "How the body is compressed.", schema)
}
