//! OpenAPI schemas of the types whose JSON form differs from their structure, and of the fields of a
//! request, which are stricter than those of a response. The other types derive theirs.

use utoipa::openapi::schema::{
    AdditionalProperties, Array, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::limits::{
    MAX_ACTION_CHARS, MAX_DEPTH, MAX_FIELD_ERRORS, MAX_NAME_CHARS, MAX_USER_ID_CHARS,
};
use crate::{Action, FieldError, FieldErrors, LogId, Metadata, Timestamp, UserId};

const ID_EXAMPLE: &str = "69682d8d81847b87ab93264b";
const TIMESTAMP_EXAMPLE: &str = "2026-01-14T23:58:05.442Z";

fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// A string of which `null` is the same as leaving it out.
fn optional_string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null]))
}

fn date_time(schema: ObjectBuilder) -> ObjectBuilder {
    schema.format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

impl PartialSchema for LogId {
    fn schema() -> RefOr<Schema> {
        let schema = string().description(Some("24 hexadecimal digits."));
        schema.pattern(Some("^[0-9a-f]{24}$")).examples([ID_EXAMPLE]).into()
    }
}

impl ToSchema for LogId {}

impl PartialSchema for UserId {
    fn schema() -> RefOr<Schema> {
        string().min_length(Some(1)).examples(["user-123"]).into()
    }
}

impl ToSchema for UserId {}

impl PartialSchema for Action {
    fn schema() -> RefOr<Schema> {
        string().min_length(Some(1)).examples(["CLICK_BUTTON"]).into()
    }
}

impl ToSchema for Action {}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        let schema = date_time(string()).description(Some("UTC, with milliseconds."));
        schema.examples([TIMESTAMP_EXAMPLE]).into()
    }
}

impl ToSchema for Timestamp {}

impl PartialSchema for Metadata {
    fn schema() -> RefOr<Schema> {
        let schema = ObjectBuilder::new().schema_type(Type::Object);
        schema.additional_properties(Some(AdditionalProperties::FreeForm(true))).into()
    }
}

impl ToSchema for Metadata {}

impl PartialSchema for FieldError {
    fn schema() -> RefOr<Schema> {
        let path = string().description(Some(format!(
            "Path of the field, such as `userId` or `metadata.items[2].price`. A path of more than \
             {MAX_NAME_CHARS} characters is cut. Empty if the error concerns the input as a whole."
        )));
        let message =
            string().description(Some("Says how to fix the field. It starts with the path."));
        ObjectBuilder::new()
            .description(Some("One invalid field."))
            .property("path", path)
            .required("path")
            .property("message", message)
            .required("message")
            .into()
    }
}

impl ToSchema for FieldError {}

impl PartialSchema for FieldErrors {
    fn schema() -> RefOr<Schema> {
        let item = Ref::from_schema_name(FieldError::name());
        let list = Array::builder().items(RefOr::<Schema>::Ref(item));
        list.max_items(Some(MAX_FIELD_ERRORS + 1))
            .description(Some(format!(
                "The invalid fields in the order of the input: up to {MAX_FIELD_ERRORS}. If there \
                 are more, a last entry without a path counts the rest."
            )))
            .into()
    }
}

impl ToSchema for FieldErrors {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((FieldError::name().into_owned(), FieldError::schema()));
    }
}

/// Returns the schema of the `id` of a request.
pub(crate) fn requested_id() -> Schema {
    let schema = optional_string().description(Some(
        "Unique event id: 24 hexadecimal digits. If absent, the server generates one.",
    ));
    schema.pattern(Some("^[0-9a-fA-F]{24}$")).examples([ID_EXAMPLE]).into()
}

/// Returns the schema of the `userId` of a request.
pub(crate) fn requested_user_id() -> Schema {
    let schema = string().description(Some("The user who did it. U+0000 is invalid."));
    let schema = schema.min_length(Some(1)).max_length(Some(MAX_USER_ID_CHARS));
    schema.pattern(Some("^[^\\u0000]*$")).examples(["user-123"]).into()
}

/// Returns the schema of the `action` of a request.
pub(crate) fn requested_action() -> Schema {
    let schema = string().description(Some("The action the user took. U+0000 is invalid."));
    let schema = schema.min_length(Some(1)).max_length(Some(MAX_ACTION_CHARS));
    schema.pattern(Some("^[^\\u0000]*$")).examples(["CLICK_BUTTON"]).into()
}

/// Returns the schema of the `timestamp` of a request.
pub(crate) fn requested_timestamp() -> Schema {
    let schema = date_time(optional_string()).description(Some(
        "Time of the event: RFC 3339 with a zone, at most 24 hours in the future. A fraction of any \
         length is truncated to milliseconds. If absent, the time of receipt.",
    ));
    schema.examples([TIMESTAMP_EXAMPLE]).into()
}

/// Returns the schema of the `metadata` of a request.
pub(crate) fn requested_metadata() -> Schema {
    let schema =
        ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Object, Type::Null]));
    schema
        .additional_properties(Some(AdditionalProperties::FreeForm(true)))
        .description(Some(format!(
            "Arbitrary metadata, up to {MAX_DEPTH} levels including the object itself. Invalid \
             anywhere: a lone surrogate, a number outside the range of a double, an integer outside \
             64 bits signed, U+0000 in a key, and a repeated key in an object."
        )))
        .into()
}
