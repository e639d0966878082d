//! GET of events and statistics.

use eyego_log_core::LogEntry;
use eyego_log_core::limits::MAX_LIMIT;
use eyego_log_core::wire::{LogResponse, LogsPage};
use serde_json::json;
use utoipa::openapi::path::{HttpMethod, ParameterStyle};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOf, Schema};
use utoipa::openapi::{Content, Required};

use super::parameters::{
    cursor, filters, header, id, integer, limit, one_of, order, query, range, string,
};
use super::route::{Route, response, text_header};
use crate::domain::access::Scope;
use crate::interface::http::export::csv::MAX_COLUMNS;
use crate::interface::http::export::format::{FORMATS, PARQUET};
use crate::interface::http::stats::{DEFAULT_TOP, MAX_TOP, StatsResponse};
use crate::interface::http::tail::request::MAX_TOKEN_BYTES;

const TAG: &str = "Events";

pub(super) fn routes() -> Vec<Route> {
    vec![list(), export(), tail(), get(), stats()]
}

fn reading(path: &'static str, id: &str, summary: &str) -> Route {
    Route::new(HttpMethod::Get, path, TAG, id, summary).key(Scope::Read)
}

fn list() -> Route {
    // No `default`: generated clients send it, also with a cursor.
    let page = integer(1, None);
    reading("/api/v1/logs", "listEvents", "Lists stored events")
        .describe(
            "Sorted by (`timestamp`, `id`). A page can have fewer events than `limit` although more \
             follow: `nextCursor` is null on the last page only.",
        )
        .parameters(filters())
        .parameters(range("events", &Required::False))
        .parameters([limit(), cursor(), order()])
        .parameters([query(
            "page",
            "Number of the page, 1 if absent; it may skip up to 10,000 events. Not together with `cursor`, whose \
             cost does not depend on the depth.",
            page,
        )
        .build()])
        .responds::<LogsPage>(200, "A page of events.")
}

fn export() -> Route {
    let mut route = reading("/api/v1/logs/export", "exportEvents", "Returns all matching events");
    let line = route.reference::<LogEntry>();
    let ndjson = string()
        .description(Some("One event per line."))
        .content_media_type("application/x-ndjson")
        .content_schema(Some(line));
    let csv = string().description(Some(
        "RFC 4180 in UTF-8, with a header: `id`, `userId`, `action`, `timestamp`, and `metadata` as \
         JSON or the requested columns. Text that a spreadsheet would execute begins with `'`.",
    ));
    let column = string().pattern(Some("^metadata\\..+"));
    let columns = ArrayBuilder::new().items(column).min_items(Some(1)).max_items(Some(MAX_COLUMNS));
    let file = response("The events as a stream. A transfer that is cut off is incomplete.")
        .header("content-disposition", text_header("Suggests a file name."))
        .header("content-encoding", text_header("`zstd` or `gzip`, if accepted."))
        .content("application/x-ndjson", Content::new(Some(Schema::from(ndjson))))
        .content("text/csv", Content::new(Some(Schema::from(csv))));
    let file = if cfg!(feature = "parquet") {
        let parquet = string().description(Some("Apache Parquet with the columns of CSV."));
        let parquet = parquet.content_media_type(PARQUET);
        file.content(PARQUET, Content::new(Some(Schema::from(parquet))))
    } else {
        file
    };
    route
        .describe(
            "The stream is read page by page and needs constant memory. If the store fails on the \
             way, the connection is closed before the last chunk, so that clients report an error.",
        )
        .parameters(filters())
        .parameters(range("events", &Required::False))
        .parameters([
            order(),
            query("format", "Format of the file.", one_of(FORMATS)).build(),
            query(
                "columns",
                "Not with `format=ndjson`: paths of metadata, separated by commas, instead of the \
                 column `metadata`.",
                columns,
            )
            .style(Some(ParameterStyle::Form))
            .explode(Some(false))
            .build(),
            header("Accept-Encoding", "`zstd` or `gzip` compress the stream.", string()),
        ])
        .with(200, file)
}

fn tail() -> Route {
    let mut route = reading("/api/v1/logs/tail", "tailEvents", "Returns events as they are stored");
    let token = || string().min_length(Some(1)).max_length(Some(MAX_TOKEN_BYTES));
    let messages = string().description(Some(
        "Server-sent events. `event: log` has an event as `data` and, if the client can resume after it, \
         an `id`. `event: skipped` has `{\"count\": n}`: a client that is too slow missed this many matching events. \
         A message with nothing but an `id` moves the position from which to resume. Comments keep the \
         connection open.",
    ));
    let skipped = ObjectBuilder::new().property("count", integer(1, None)).required("count");
    let data = OneOf::builder().item(route.reference::<LogEntry>()).item(Schema::from(skipped));
    let messages =
        messages.content_media_type("text/event-stream").content_schema(Some(Schema::from(data)));
    let stream = response("The events, until the client or the server ends the response.")
        .content("text/event-stream", Content::new(Some(Schema::from(messages))));
    route
        .describe(
            "In the order in which events are stored. With the last `id`, a client that was disconnected \
             resumes without a gap or a repetition.",
        )
        .parameters(filters())
        .parameters(range("events", &Required::False))
        .parameters([
            query(
                "last",
                // No `default`: generated clients send it, also with `after`.
                "Starts with up to this many stored events, none if absent. Not together with `after`.",
                integer(0, Some(MAX_LIMIT)),
            )
            .build(),
            query("after", "Resumes after the `id` of an earlier message.", token()).build(),
            header(
                "Last-Event-ID",
                "As `after`; takes precedence over both. Browsers send it when they reconnect.",
                token(),
            ),
        ])
        .with(200, stream)
        .fails(&[410, 501])
}

fn get() -> Route {
    reading("/api/v1/logs/{id}", "getEvent", "Reads one event")
        .parameters([id()])
        .responds::<LogResponse>(200, "The event.")
        .fails(&[404, 413])
}

fn stats() -> Route {
    let (max_top, default_top) = (u32::try_from(MAX_TOP).ok(), Some(json!(DEFAULT_TOP)));
    let by = string().pattern(Some("^(action|userId|metadata\\..+)$"));
    reading("/api/v1/stats", "getStatistics", "Counts events over time")
        .describe(
            "Counts are exact with up to 131,072 users, 4,096 users of a value and 20,000 values. \
             Beyond that, `approximate` is true.",
        )
        .parameters(range("events", &Required::True))
        .parameters(filters())
        .parameters([
            query(
                "interval",
                "Length of a bucket. `auto` is the shortest with at most 300 buckets, or days.",
                one_of(&["auto", "1m", "5m", "1h", "1d"]),
            )
            .build(),
            query(
                "tz",
                "IANA time zone in which days start, such as Europe/Berlin.",
                string().default(Some(json!("UTC"))),
            )
            .build(),
            query(
                "by",
                "`action`, `userId` or `metadata.<path>`: counts each value separately.",
                by,
            )
            .build(),
            query(
                "top",
                "Number of values, the most frequent first.",
                integer(1, max_top).default(default_top),
            )
            .build(),
        ])
        .responds::<StatsResponse<'_>>(200, "The counts.")
}
