//! Builds the description of one route: what all routes have in common is added here.

use std::collections::BTreeMap;

use eyego_log_core::wire::ErrorResponse;
use http::StatusCode;
use utoipa::openapi::link::Link;
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, Parameter};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{AnyOf, Schema};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, Header, Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::access::Scope;

pub(super) const JSON: &str = "application/json";

/// Name of the security scheme.
pub(super) const BEARER: &str = "key";

/// Named schemas of bodies.
pub(super) type Schemas = Vec<(String, RefOr<Schema>)>;

/// The failures that a route can have, with the names of their responses.
pub(super) const FAILURES: [(StatusCode, &str, &str); 17] = [
    (StatusCode::BAD_REQUEST, "Invalid", "The request or a field is invalid."),
    (
        StatusCode::UNAUTHORIZED,
        "Unauthenticated",
        "The server has keys, and the token is missing, malformed, unknown or expired, or is in the \
         query string.",
    ),
    (
        StatusCode::FORBIDDEN,
        "Forbidden",
        "The key does not have the scope that the message names, or a page of another origin sent \
         the request.",
    ),
    (StatusCode::NOT_FOUND, "NotFound", "No such route, event, erasure or dead letter."),
    (
        StatusCode::METHOD_NOT_ALLOWED,
        "MethodNotAllowed",
        "No such method on this route. The header `Allow` lists the methods.",
    ),
    (
        StatusCode::REQUEST_TIMEOUT,
        "TooSlow",
        "The head or the body of the request arrived too slowly.",
    ),
    (
        StatusCode::CONFLICT,
        "Conflict",
        "Only the beginning of the dead letter was kept, so it cannot be replayed.",
    ),
    (
        StatusCode::GONE,
        "TokenTooOld",
        "The store cannot return what followed the token. The message says how to go on.",
    ),
    (
        StatusCode::PAYLOAD_TOO_LARGE,
        "TooLarge",
        "The body, the event or the batch is too large. The message names the limit.",
    ),
    (StatusCode::URI_TOO_LONG, "TargetTooLong", "The request target is too long."),
    (
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "Unsupported",
        "`Content-Type`, its charset or `Content-Encoding` is not supported.",
    ),
    (StatusCode::MISDIRECTED_REQUEST, "Misdirected", "`Host` is not a name of this server."),
    (
        StatusCode::TOO_MANY_REQUESTS,
        "RateLimited",
        "The events or the concurrent requests of the caller are over their limit.",
    ),
    (
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "HeadTooLarge",
        "The head of the request has more than 64 KiB or 100 headers.",
    ),
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        "Failed",
        "The server failed. Its log has the details under the request id.",
    ),
    (
        StatusCode::NOT_IMPLEMENTED,
        "NotSupported",
        "The store cannot do this: a tail needs a replica set, also one of a single member.",
    ),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "Unavailable",
        "The server cannot do this now: retry after `Retry-After` seconds. The message names the \
         reason.",
    ),
];

/// Failures of every route: of the request's head, of the checks before routing, and of a server that
/// is busy.
const OF_EVERY_ROUTE: [u16; 8] = [400, 403, 408, 414, 421, 431, 500, 503];

/// Failures of a route that requires a key.
const OF_KEYS: [u16; 2] = [401, 429];

/// Failures of a route that reads a body.
const OF_BODIES: [u16; 2] = [413, 415];

/// The description of one route.
pub(super) struct Route {
    pub(super) method: HttpMethod,
    pub(super) path: &'static str,
    operation: OperationBuilder,
    responses: BTreeMap<u16, RefOr<Response>>,
    schemas: Schemas,
}

impl Route {
    /// Creates the description of a route. `summary` is one line, and `id` is the name of
    /// the function in generated clients.
    pub(super) fn new(
        method: HttpMethod,
        path: &'static str,
        tag: &str,
        id: &str,
        summary: &str,
    ) -> Self {
        let operation = OperationBuilder::new().tag(tag).operation_id(Some(id));
        let operation = operation.summary(Some(summary));
        let (responses, schemas) = (BTreeMap::new(), Vec::new());
        Self { method, path, operation, responses, schemas }.fails(&OF_EVERY_ROUTE)
    }

    pub(super) fn describe(self, description: &str) -> Self {
        Self { operation: self.operation.description(Some(description)), ..self }
    }

    /// Requires a key with this scope, if the server has keys.
    pub(super) fn key(self, scope: Scope) -> Self {
        let none = SecurityRequirement::default();
        let key = SecurityRequirement::new(BEARER, [scope.to_string()]);
        let operation = self.operation.security(key).security(none);
        Self { operation, ..self }.fails(&OF_KEYS)
    }

    pub(super) fn parameters(self, parameters: impl IntoIterator<Item = Parameter>) -> Self {
        let operation = parameters.into_iter().fold(self.operation, OperationBuilder::parameter);
        Self { operation, ..self }
    }

    pub(super) fn body(self, body: RequestBody) -> Self {
        let operation = self.operation.request_body(Some(body));
        Self { operation, ..self }.fails(&OF_BODIES)
    }

    /// Adds failures with these statuses and the envelope.
    pub(super) fn fails(mut self, statuses: &[u16]) -> Self {
        for &status in statuses {
            let (_, name, _) = FAILURES
                .iter()
                .find(|(code, ..)| *code == status)
                .copied()
                .unwrap_or((StatusCode::INTERNAL_SERVER_ERROR, "Failed", ""));
            self.responses.insert(status, RefOr::Ref(Ref::from_response_name(name)));
        }
        self
    }

    /// Adds a response with a JSON body.
    pub(super) fn responds<T: ToSchema>(mut self, status: u16, description: &str) -> Self {
        let content = Content::new(Some(self.reference::<T>()));
        self.with(status, response(description).content(JSON, content))
    }

    /// Adds a failure whose body is the envelope or contains more.
    pub(super) fn fails_with<T: ToSchema>(mut self, status: u16, description: &str) -> Self {
        let either =
            AnyOf::builder().item(self.reference::<T>()).item(self.reference::<ErrorResponse>());
        let content = Content::new(Some(Schema::from(either)));
        let response = with_failure_headers(response(description), status);
        self.with(status, response.content(JSON, content))
    }

    /// Adds a link from the response with this status to the operation that reads the
    /// resource whose id it contains.
    pub(super) fn links(mut self, status: u16, name: &str, operation: &str, id: &str) -> Self {
        if let Some(RefOr::T(response)) = self.responses.get_mut(&status) {
            let link = Link::builder().operation_id(operation).parameter("id", id).build();
            response.links.insert(name.to_owned(), link.into());
        }
        self
    }

    /// Responds as described.
    pub(super) fn with(mut self, status: u16, response: ResponseBuilder) -> Self {
        self.responses.insert(status, RefOr::T(response.build()));
        self
    }

    /// Returns a reference to the schema of a type.
    pub(super) fn reference<T: ToSchema>(&mut self) -> RefOr<Schema> {
        self.schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(&mut self.schemas);
        RefOr::Ref(Ref::from_schema_name(T::name()))
    }

    /// Returns the operation and the schemas of its bodies.
    pub(super) fn build(self) -> (Operation, Schemas) {
        let mut operation = self.operation;
        for (status, response) in self.responses {
            operation = operation.response(status.to_string(), response);
        }
        (operation.build(), self.schemas)
    }
}

/// Returns a response with the header that all have.
pub(super) fn response(description: &str) -> ResponseBuilder {
    let id = Header::builder().schema(Some(String::schema())).description(Some(
        "The `x-request-id` of the request if it has 1 to 128 visible ASCII characters, otherwise a \
         generated id. It leads to the lines about the request in the server's log. Missing if the \
         head of the request could not be read.",
    ));
    ResponseBuilder::new().description(description).header("x-request-id", id.build())
}

/// Returns the response of a failure with the envelope.
pub(super) fn failure(status: StatusCode, description: &str) -> Response {
    let schema = RefOr::<Schema>::Ref(Ref::from_schema_name(ErrorResponse::name()));
    let response = response(description).content(JSON, Content::new(Some(schema)));
    with_failure_headers(response, status.as_u16()).build()
}

fn with_failure_headers(response: ResponseBuilder, status: u16) -> ResponseBuilder {
    match status {
        401 => response.header("www-authenticate", text_header("`Bearer`.")),
        405 => response.header("allow", text_header("The methods of this route.")),
        429 | 503 => {
            let seconds = "Seconds until a retry can succeed.";
            let header = Header::builder().schema(Some(u32::schema()));
            response.header("retry-after", header.description(Some(seconds)).build())
        }
        _ => response,
    }
}

/// Returns a header of a response that contains text.
pub(super) fn text_header(description: &str) -> Header {
    Header::builder().schema(Some(String::schema())).description(Some(description)).build()
}
