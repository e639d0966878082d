//! Health, metrics, and the pages of the server.

use utoipa::openapi::Content;
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

use super::parameters::{path, query, string};
use super::route::{JSON, Route, response, text_header};
use crate::domain::access::Scope;
use crate::interface::http::health::HealthResponse;

const TAG: &str = "Operations";
const PAGES: &str = "Pages";

pub(super) fn routes() -> Vec<Route> {
    let pages = [dashboard(), documentation(), documentation_has_moved(), asset(), document()];
    [live(), ready(), metrics()].into_iter().chain(pages).collect()
}

fn get(path: &'static str, tag: &str, id: &str, summary: &str) -> Route {
    Route::new(HttpMethod::Get, path, tag, id, summary)
}

fn live() -> Route {
    get("/health/live", TAG, "getLiveness", "Whether the process works")
        .responds::<HealthResponse>(200, "The process works.")
}

fn ready() -> Route {
    get("/health/ready", TAG, "getReadiness", "Whether the process can do its work")
        .describe(
            "Each part has a state and a reason that names the host, topic or limit at fault.",
        )
        .responds::<HealthResponse>(200, "Ready.")
        .fails_with::<HealthResponse>(503, "Not ready.")
}

fn metrics() -> Route {
    let text = Content::new(Some(Schema::from(string())));
    get("/metrics", TAG, "getMetrics", "Metrics in the text format of Prometheus")
        .key(Scope::Metrics)
        .with(200, response("The metrics.").content("text/plain", text))
}

/// Adds the responses of a file that can be revalidated.
fn file(route: Route, description: &str, media_types: &[&str]) -> Route {
    let etag = || text_header("The version of the file, for `If-None-Match`.");
    let text = || Content::new(Some(Schema::from(string())));
    let found = media_types
        .iter()
        .fold(response(description).header("etag", etag()), |found, media_type| {
            found.content(*media_type, text())
        });
    route.with(200, found).with(304, response("The file has not changed.").header("etag", etag()))
}

fn dashboard() -> Route {
    let route = get("/", PAGES, "getDashboard", "The dashboard");
    file(route, "The page. Its query is ignored.", &["text/html"])
}

fn documentation() -> Route {
    let route =
        get("/docs", PAGES, "getDocumentation", "This API as a page, on which it can be tried");
    file(route, "The page. Its query is ignored.", &["text/html"])
}

fn documentation_has_moved() -> Route {
    let moved = response("The page is at `/docs`.")
        .header("location", text_header("The address of the page, relative to this one."));
    get("/docs/", PAGES, "getDocumentationAddress", "Redirects to `/docs`").with(308, moved)
}

fn asset() -> Route {
    let route = get("/assets/{name}", PAGES, "getAsset", "A script or style of a page")
        .parameters([
            path("name", "Name of the file.", string().min_length(Some(1))),
            query("v", "The version. If it is the current one, the file never changes.", string())
                .build(),
        ])
        .fails(&[404]);
    file(route, "The file.", &["text/javascript", "text/css"])
}

fn document() -> Route {
    let route = get("/openapi.json", PAGES, "getOpenApi", "This description of the API");
    let object = ObjectBuilder::new().schema_type(Type::Object);
    let object = Content::new(Some(Schema::from(object)));
    let found = response("An OpenAPI 3.1 document.").content(JSON, object);
    file(route, "", &[]).with(200, found.header("etag", text_header("Its version.")))
}
