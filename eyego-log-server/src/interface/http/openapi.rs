//! `GET /openapi.json`: the description of the API (OpenAPI 3.1).
//!
//! The schemas of bodies come from the types that are serialized; limits come from the constants that
//! are enforced. Statuses and headers are stated in the files of this folder, and the integration
//! tests hold every response that they receive against them (ADR 0036).

mod dead_letters;
mod erasures;
mod ingest;
mod operations;
mod parameters;
mod reading;
mod route;

use std::sync::LazyLock;

use axum::Router;
use axum::extract::RawQuery;
use axum::response::Response;
use axum::routing::get;
use eyego_log_core::wire::ErrorResponse;
use http::HeaderMap;
use utoipa::openapi::path::Paths;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, Info, License, OpenApi, OpenApiBuilder, Server};
use utoipa::{PartialSchema as _, ToSchema as _};

use self::route::{BEARER, FAILURES, Route};
use super::static_file::StaticFile;

const DESCRIPTION: &str = "Receives, stores and returns activity events.

Every JSON response has a `status`: `success`, `fail` (the request is wrong) or `error` (the server \
cannot serve it). Every route with `GET` also accepts `HEAD`. Another method on a route is a 405, and \
another route a 404, both with the body `ErrorResponse`. Every request may have an \
`x-request-id`, which is repeated in the response and in the server's log. A parameter that a route \
does not know, or a repeated one, is a 400; only the pages ignore their query. Responses may get \
further fields: ignore unknown ones.

With `EYEGO_OPERATIONS_LISTEN`, health and metrics are served at another address.";

static DOCUMENT: LazyLock<StaticFile> =
    LazyLock::new(|| StaticFile::new("application/json", openapi().into()));

/// Returns the route of the document. It needs no key: it contains no data.
pub(super) fn router() -> Router {
    Router::new().route("/openapi.json", get(document))
}

async fn document(RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    DOCUMENT.respond_to(query.as_deref(), &headers)
}

/// Returns the OpenAPI document of the server, as JSON.
#[must_use]
pub fn openapi() -> String {
    // Strings, numbers, lists and maps with string keys can always be serialized.
    describe().to_json().unwrap_or_default()
}

fn routes() -> Vec<Route> {
    let mut routes = ingest::routes();
    routes.extend(reading::routes());
    routes.extend(dead_letters::routes());
    routes.extend(erasures::routes());
    routes.extend(operations::routes());
    routes
}

fn describe() -> OpenApi {
    let mut components = Components::new();
    components.schemas.insert(ErrorResponse::name().into_owned(), ErrorResponse::schema());
    let mut nested = Vec::new();
    ErrorResponse::schemas(&mut nested);
    components.schemas.extend(nested);
    for (status, name, description) in FAILURES {
        let response = route::failure(status, description);
        components.responses.insert(name.to_owned(), response.into());
    }
    let scheme = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token of a key. Required if the server has keys (`EYEGO_KEYS_FILE`), except for \
             health and pages. Each route lists the scope that the key needs.",
        ))
        .build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    let mut paths = Paths::new();
    for route in routes() {
        let (path, method) = (route.path, route.method.clone());
        let (operation, schemas) = route.build();
        components.schemas.extend(schemas);
        paths.add_path_operation(path, vec![method], operation);
    }
    let mut license = License::new(env!("CARGO_PKG_LICENSE"));
    license.identifier = Some(env!("CARGO_PKG_LICENSE").to_owned());
    let mut info = Info::new("eyego-log", env!("CARGO_PKG_VERSION"));
    info.description = Some(DESCRIPTION.to_owned());
    info.license = Some(license);
    OpenApiBuilder::new()
        .info(info)
        // Relative to the address of the document, for a proxy that adds a path prefix.
        .servers(Some([Server::new(".")]))
        .paths(paths)
        .components(Some(components))
        .build()
}
