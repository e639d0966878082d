//! Erasure of users.

use utoipa::openapi::path::HttpMethod;

use super::parameters::{cursor, id, limit, non_empty, path};
use super::route::Route;
use crate::domain::access::Scope;
use crate::interface::http::erasures::{ErasureResponse, ListResponse};

const TAG: &str = "Erasure";

pub(super) fn routes() -> Vec<Route> {
    let user = path("userId", "Any non-empty user id, percent-encoded.", non_empty());
    vec![
        Route::new(
            HttpMethod::Delete,
            "/api/v1/users/{userId}/logs",
            TAG,
            "eraseUser",
            "Erases a user",
        )
        .describe(
            "Removes every event of the user that was received before now. Requesting it again is \
             safe.",
        )
        .key(Scope::Erase)
        .parameters([user])
        .responds::<ErasureResponse>(202, "The request is durable.")
        .links(202, "erasure", "getErasure", "$response.body#/data/id"),
        Route::new(
            HttpMethod::Get,
            "/api/v1/erasures",
            TAG,
            "listErasures",
            "Lists erasures, the latest request first",
        )
        .key(Scope::Erase)
        .parameters([limit(), cursor()])
        .responds::<ListResponse>(200, "A page of erasures."),
        Route::new(
            HttpMethod::Get,
            "/api/v1/erasures/{id}",
            TAG,
            "getErasure",
            "Reads one erasure",
        )
        .key(Scope::Erase)
        .parameters([id()])
        .responds::<ErasureResponse>(200, "The erasure.")
        .fails(&[404]),
    ]
}
