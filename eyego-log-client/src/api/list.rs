//! A query for one of the server's lists, by page.

use std::fmt;

use eyego_log_core::query::Cursor;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::api::caller::Caller;
use crate::api::path;
use crate::model::errors::RequestError;

#[derive(Clone)]
pub(super) struct ListQuery {
    caller: Caller,
    path: &'static str,
    parameters: Vec<(&'static str, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListResponse<T> {
    data: Vec<T>,
    next_cursor: Option<String>,
}

impl ListQuery {
    /// Creates a query for the list at `path`.
    pub(super) fn new(caller: &Caller, path: &'static str) -> Self {
        Self { caller: caller.clone(), path, parameters: Vec::new() }
    }

    /// Sets a parameter, and replaces an earlier value of it.
    pub(super) fn set(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        path::set(&mut self.parameters, name, value.to_string());
        self
    }

    /// Reads one page and the position of the next one.
    pub(super) async fn fetch<T: DeserializeOwned>(
        &self,
    ) -> Result<(Vec<T>, Option<Cursor>), RequestError> {
        let path = path::with_query(self.path, &self.parameters);
        let ListResponse { data, next_cursor } = self.caller.get(&path).await?;
        Ok((data, path::next_cursor(next_cursor)?))
    }
}

impl fmt::Debug for ListQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caller: _, path, parameters } = self;
        f.debug_struct("ListQuery")
            .field("path", path)
            .field("parameters", parameters)
            .finish_non_exhaustive()
    }
}
