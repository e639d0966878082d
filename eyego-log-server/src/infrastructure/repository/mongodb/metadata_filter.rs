//! Converts a metadata filter into a MongoDB condition that matches exactly where
//! core's [`MetadataFilter::matches`] does. This module does no I/O.
//!
//! MongoDB's paths do not support keys with dots, and treat a missing value as
//! null. Only a single plain key is therefore a condition in its query language,
//! which can use an index on `metadata.<key>`. All other paths become an
//! expression that walks the document as core walks the map.

use bson::{Bson, Document, doc};
use eyego_log_core::query::{MetadataFilter, Scalar};

/// Returns the condition of a filter.
pub(super) fn of(filter: &MetadataFilter) -> Document {
    let path = filter.path();
    if path.is_empty() || path.contains('.') || path.starts_with('$') {
        let matches = doc! { "$let": {
            "vars": { "object": "$metadata" },
            "in": is_object_and(|| below("$$object", path, &accepted_values(filter))),
        } };
        return doc! { "$expr": matches };
    }
    let member = format!("metadata.{path}");
    let mut values = vec![Bson::from(filter.text())];
    let mut conditions = Vec::new();
    match filter.scalar() {
        // In MongoDB, a missing value equals null.
        Some(Scalar::Null) => conditions.push(doc! { &member: { "$type": "null" } }),
        scalar => values.extend(scalar.map(scalar_value)),
    }
    conditions.push(doc! { &member: { "$in": values } });
    let is_array = doc! { "metadata": { "$not": { "$type": "array" } } };
    match conditions.len() {
        1 => doc! { "$and": [conditions.swap_remove(0), is_array] },
        _ => doc! { "$and": [{ "$or": conditions }, is_array] },
    }
}

fn accepted_values(filter: &MetadataFilter) -> Document {
    let mut values = vec![Bson::from(filter.text())];
    values.extend(filter.scalar().map(scalar_value));
    doc! { "$literal": values }
}

fn scalar_value(scalar: Scalar) -> Bson {
    match scalar {
        Scalar::Null => Bson::Null,
        Scalar::Bool(value) => Bson::from(value),
        Scalar::Integer(value) => Bson::from(value),
        Scalar::Float(value) => Bson::from(value),
    }
}

/// Returns the condition that `object` contains one of `values` at `path`. It
/// tries every way to split the path.
fn below(object: &str, path: &str, values: &Document) -> Bson {
    let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
    let splits: Vec<Bson> = ends
        .map(|end| {
            let member =
                doc! { "$getField": { "field": { "$literal": &path[..end] }, "input": object } };
            match path.get(end + 1..) {
                None => any_element(member, doc! { "$in": ["$$object", values] }),
                Some(rest) => {
                    any_element(member, is_object_and(|| below("$$object", rest, values)))
                }
            }
        })
        .collect();
    Bson::from(doc! { "$or": splits })
}

/// Returns the condition that `condition` holds for the member or, if it is an
/// array, for one of its elements. It never holds for a missing member.
/// `condition` refers to the value as `$$object`.
fn any_element(member: Document, condition: Document) -> Bson {
    let elements = doc! { "$switch": {
        "branches": [
            { "case": { "$isArray": "$$member" }, "then": "$$member" },
            { "case": { "$eq": [{ "$type": "$$member" }, "missing"] }, "then": [] },
        ],
        "default": ["$$member"],
    } };
    let holds = doc! { "$anyElementTrue": [
        { "$map": { "input": elements, "as": "object", "in": condition } },
    ] };
    Bson::from(doc! { "$let": { "vars": { "member": member }, "in": holds } })
}

fn is_object_and(condition: impl FnOnce() -> Bson) -> Document {
    doc! { "$cond": [{ "$eq": [{ "$type": "$$object" }, "object"] }, condition(), false] }
}
