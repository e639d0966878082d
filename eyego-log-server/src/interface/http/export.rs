//! `GET /api/v1/logs/export`: all matching events as a stream.
//!
//! A task reads the next page while the client receives the current one, so an
//! export holds up to two pages. Both are part of the read budget. A failure
//! after the head of the response aborts it.

mod body;
mod compressor;
pub(super) mod csv;
pub(super) mod format;
mod pages;
#[cfg(feature = "parquet")]
mod parquet;
mod rows;

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use eyego_log_core::query::Order;
use eyego_log_core::{FieldErrors, LogQuery, Timestamp};
use http::header::{CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use tokio::sync::mpsc;

use self::body::{Export, Source};
use self::compressor::Compressor;
use self::csv::Columns;
use self::format::{Format, OTHER_FORMAT};
use self::pages::Pages;
use self::rows::Rows;
use super::access::{Audited, AuditedStream};
use super::api::Api;
use super::content_encoding::Encoding;
use super::error::ApiError;
use super::{selection, streams};

/// Number of events of a page. A page ends at 8 MiB, too. Between two pages, the thread
/// that reads them waits for the next request.
const PAGE_LIMIT: u32 = 4000;

/// `GET /api/v1/logs/export`
pub(super) async fn export(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
    version: Version,
    headers: HeaderMap,
) -> Response {
    if let Err(error) = streams::require_version(version) {
        return error.into_response();
    }
    start(api, query.as_deref(), &headers).await.unwrap_or_else(IntoResponse::into_response)
}

async fn start(
    api: Arc<Api>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let (query, format) = parse(query)?;
    let available: &[_] =
        if format.is_compressed() { &[] } else { &[Encoding::Zstd, Encoding::Gzip] };
    let encoding = Encoding::preferred(headers, available);
    let compressor = Compressor::new(encoding).map_err(|e| ApiError::internal(e.to_string()))?;
    let permit = api.streams.start_export()?;
    let stop = api.stop.clone();
    let head = head(&format, encoding)?;
    let rows = Rows::new(format, &api)?;
    let mut pages = Pages::new(api, query);
    // Failures before the first page have a status of their own.
    let first = pages.next().await?;
    let (sender, receiver) = mpsc::channel(1);
    if !first.is_last {
        tokio::spawn(pages.send_to(sender));
    }
    let audited = Arc::new(AuditedStream::default());
    let count = Audited::stream(&audited);
    let source = Source { receiver, stop, _permit: permit };
    let export = Export::new(rows, compressor, first, source, audited);
    let body = futures_util::stream::try_unfold(export, async |mut export| {
        Ok::<_, io::Error>(export.next().await?.map(|piece| (piece, export)))
    });
    Ok((StatusCode::OK, count, head, Body::from_stream(body)).into_response())
}

/// Parses the parameters.
fn parse(query: Option<&str>) -> Result<(LogQuery, Format), FieldErrors> {
    let (mut format, mut columns, mut order) = (Format::Ndjson, None, Order::Descending);
    let query = selection::parse(query, "format, columns, order", |name, value| {
        let mut set = || {
            match (name, value) {
                ("format", _) => format = Format::named(value).ok_or(OTHER_FORMAT)?,
                ("columns", _) => columns = Some(Columns::parse(value)?),
                ("order", "desc") => order = Order::Descending,
                ("order", "asc") => order = Order::Ascending,
                _ => return Err("must be desc or asc".to_owned()),
            }
            Ok(())
        };
        matches!(name, "format" | "columns" | "order").then(&mut set)
    })?;
    if let Some(columns) = columns {
        format = format.with_columns(columns).ok_or_else(|| {
            let reason = if cfg!(feature = "parquet") {
                "requires format=csv or format=parquet"
            } else {
                "requires format=csv"
            };
            FieldErrors::from(eyego_log_core::FieldError::new("columns", reason))
        })?;
    }
    Ok((LogQuery { limit: PAGE_LIMIT, order, ..query }, format))
}

/// Returns the headers of the response.
fn head(format: &Format, encoding: Encoding) -> Result<HeaderMap, ApiError> {
    let (media_type, extension) = format.media_type();
    let now = Timestamp::from(SystemTime::now()).to_string();
    // A colon is not allowed in the file names of Windows.
    let now: String = now.chars().take(19).filter(|c| !matches!(c, '-' | ':')).collect();
    let name = format!("attachment; filename=\"eyego-logs-{now}Z.{extension}\"");
    let name = HeaderValue::try_from(name).map_err(|e| ApiError::internal(e.to_string()))?;
    let mut head = HeaderMap::new();
    head.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    head.insert(CONTENT_DISPOSITION, name);
    head.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(encoding) = encoding.name() {
        head.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_invalid_parameter_says_what_is_possible() {
        for (query, message) in [
            ("format=xlsx", "format must be ndjson"),
            ("order=up", "order must be desc or asc"),
            ("columns=metadata.a", "columns requires format=csv"),
            ("format=csv&columns=metadata.a&order=up", "order must be desc or asc"),
            ("format=csv&columns=page", "columns must be a list such as metadata.page"),
            ("limit=10", "limit is not a known parameter of this route (those are userId"),
            ("format=csv&format=csv", "format must not be repeated"),
            ("userId=", "userId must not be empty"),
        ] {
            let message_of = parse(Some(query)).unwrap_err().to_string();
            assert!(message_of.starts_with(message), "{query}: {message_of}");
        }
        let parquet = parse(Some("format=parquet"));
        if cfg!(feature = "parquet") {
            assert!(parquet.is_ok());
        } else {
            let message = parquet.unwrap_err().to_string();
            assert!(message.contains("ndjson or csv") && message.contains("feature"), "{message}");
        }
        let (query, format) = parse(Some("userId=u&order=asc")).unwrap();
        assert_eq!((query.user_id.as_deref(), query.order), (Some("u"), Order::Ascending));
        assert_eq!(format, Format::Ndjson);
    }
}
