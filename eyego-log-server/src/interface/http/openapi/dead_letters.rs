//! GET and replay of dead letters.

use serde_json::json;
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{Content, Required};

use super::parameters::{cursor, id, integer, limit, non_empty, query, range, string};
use super::route::{JSON, Route};
use crate::domain::access::Scope;
use crate::interface::http::dead_letters::{GetResponse, ListResponse, ReplayResponse};

const TAG: &str = "Dead letters";

pub(super) fn routes() -> Vec<Route> {
    vec![list(), get(), replay()]
}

fn list() -> Route {
    Route::new(
        HttpMethod::Get,
        "/api/v1/dead-letters",
        TAG,
        "listDeadLetters",
        "Lists records that could not be stored",
    )
    .describe("Without their bytes, the latest failure first.")
    .key(Scope::Admin)
    .parameters([query("code", "Only dead letters with this code.", non_empty()).build()])
    .parameters(range("dead letters that failed", &Required::False))
    .parameters([limit(), cursor()])
    .responds::<ListResponse>(200, "A page of dead letters.")
}

fn get() -> Route {
    Route::new(
        HttpMethod::Get,
        "/api/v1/dead-letters/{id}",
        TAG,
        "getDeadLetter",
        "Reads one dead letter with its bytes",
    )
    .key(Scope::Admin)
    .parameters([id()])
    .parameters([query(
        "offset",
        "Where the bytes start: `nextOffset` of the previous response.",
        integer(0, None).default(Some(json!(0))),
    )
    .build()])
    .responds::<GetResponse<'_>>(200, "The dead letter.")
    .fails(&[404])
}

fn replay() -> Route {
    let only = |name: &str, schema: ObjectBuilder| {
        ObjectBuilder::new()
            .property(name, schema)
            .required(name)
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
    };
    let all = ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true]));
    let selection = OneOfBuilder::new()
        .item(only("id", string().pattern(Some("^[0-9a-fA-F]{24}$"))))
        .item(only("code", non_empty()))
        .item(only("all", all));
    let mut content = Content::new(Some(Schema::from(selection)));
    content.example = Some(json!({"all": true}));
    let body = RequestBodyBuilder::new()
        .content(JSON, content)
        .description(Some("Selects dead letters by id, by code, or all of them."))
        .required(Some(Required::True));
    Route::new(
        HttpMethod::Post,
        "/api/v1/dead-letters/replay",
        TAG,
        "replayDeadLetters",
        "Stores dead letters now",
    )
    .describe(
        "Each is stored from its kept bytes under the event's id, and removed once the store has \
         acknowledged it. One call processes at most 10,000 dead letters or 20 s: repeat it while \
         `remaining` falls.",
    )
    .key(Scope::Admin)
    .body(body.build())
    .responds::<ReplayResponse>(200, "What became of them.")
    .fails(&[404, 409])
}
