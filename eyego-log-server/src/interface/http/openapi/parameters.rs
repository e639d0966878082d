//! Parameters, and the filters that the reading routes share.

use eyego_log_core::limits::{DEFAULT_LIMIT, MAX_LIMIT, MAX_METADATA_FILTERS};
use serde_json::json;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn, ParameterStyle};
use utoipa::openapi::schema::{
    AdditionalProperties, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type,
};
use utoipa::openapi::{RefOr, Required};

/// Builds an optional parameter of the query string.
pub(super) fn query(
    name: &str,
    description: &str,
    schema: impl Into<RefOr<Schema>>,
) -> ParameterBuilder {
    parameter(ParameterIn::Query, name, description, schema).required(Required::False)
}

/// Builds an optional header.
pub(super) fn header(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    parameter(ParameterIn::Header, name, description, schema).required(Required::False).build()
}

/// Builds a parameter of the path.
pub(super) fn path(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    parameter(ParameterIn::Path, name, description, schema).required(Required::True).build()
}

fn parameter(
    place: ParameterIn,
    name: &str,
    description: &str,
    schema: impl Into<RefOr<Schema>>,
) -> ParameterBuilder {
    ParameterBuilder::new()
        .parameter_in(place)
        .name(name)
        .description(Some(description))
        .schema(Some(schema))
}

pub(super) fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

pub(super) fn non_empty() -> ObjectBuilder {
    string().min_length(Some(1))
}

/// Returns the schema of a string that is one of these. The first is the default.
pub(super) fn one_of(values: &[&str]) -> ObjectBuilder {
    let default = values.first().map(|&value| json!(value));
    string().enum_values(Some(values.iter().copied())).default(default)
}

pub(super) fn integer(min: u32, max: Option<u32>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(min)).maximum(max)
}

/// Returns the parameter `{id}` of a path.
pub(super) fn id() -> Parameter {
    path("id", "24 hexadecimal digits.", string().pattern(Some("^[0-9a-fA-F]{24}$")))
}

pub(super) fn limit() -> Parameter {
    let schema = integer(1, Some(MAX_LIMIT)).default(Some(json!(DEFAULT_LIMIT)));
    query("limit", "Maximum number of results. A page also ends at 8 MiB.", schema).build()
}

pub(super) fn cursor() -> Parameter {
    let schema = string().pattern(Some("^[0-9a-f]{50}$"));
    query("cursor", "`nextCursor` of the previous response, unchanged.", schema).build()
}

pub(super) fn order() -> Parameter {
    query("order", "Order by (`timestamp`, `id`).", one_of(&["desc", "asc"])).build()
}

/// Returns the parameters `from` and `to`.
pub(super) fn range(of: &str, required: &Required) -> [Parameter; 2] {
    let time = |name, text: String| {
        let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        query(name, &text, string().format(Some(format))).required(required.clone()).build()
    };
    [
        time("from", format!("Only {of} at or after this time: RFC 3339 with a zone.")),
        time("to", format!("Only {of} before this time: RFC 3339 with a zone.")),
    ]
}

/// Returns the filters that the reading routes share, except `from` and `to`.
pub(super) fn filters() -> [Parameter; 3] {
    let metadata = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(string().pattern(Some("^metadata\\..+"))))
        .additional_properties(Some(AdditionalProperties::RefOr(string().into())))
        .max_properties(Some(MAX_METADATA_FILTERS))
        .examples([json!({"metadata.page": "home"})]);
    [
        query("userId", "Only events of this user.", non_empty()).build(),
        query("action", "Only events with this action.", non_empty()).build(),
        query(
            "metadata",
            "Only events whose metadata has these values. Each property is a parameter of its own, \
             named `metadata.<path>`: `metadata.cart.items=2`. A path has up to 8 segments. A value \
             matches as a string and, if it reads as one, as a number, boolean or null.",
            metadata,
        )
        .style(Some(ParameterStyle::Form))
        .explode(Some(true))
        .build(),
    ]
}
