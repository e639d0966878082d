//! `GET /api/v1/logs/export`: all matching events as a stream.
//!
//! A task reads the next page while the client receives the current one, so an
//! export holds up to two pages. Both are part of the read budget. A failure
//! after the head of the response aborts it.

pub(super) mod csv;
mod encoding;
mod pages;

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use eyego_log_core::query::Order;
use eyego_log_core::{FieldErrors, LogEntry, LogQuery, Timestamp};
use http::header::{CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use self::csv::Columns;
use self::encoding::{Compressor, Encoding};
use self::pages::{FetchedPage, Pages};
use super::api::Api;
use super::error::ApiError;
use super::{held_body, selection};
use crate::application::read_budget::ReadShare;
use crate::domain::read::ReadError;

/// Size at which rows are compressed and handed to the connection.
const PIECE_BYTES: usize = 64 << 10;

/// Number of events of a page. A page ends at 8 MiB, too.
const PAGE_LIMIT: u32 = 1000;

/// How the events are written.
#[derive(Debug, PartialEq)]
enum Format {
    Ndjson,
    Csv(Columns),
}

/// `GET /api/v1/logs/export`
pub(super) async fn export(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    start(api, query.as_deref(), &headers).await.unwrap_or_else(IntoResponse::into_response)
}

async fn start(
    api: Arc<Api>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let (query, format) = parse(query)?;
    let encoding = Encoding::accepted(headers);
    let compressor = Compressor::new(encoding).map_err(|e| ApiError::internal(e.to_string()))?;
    let permit = api.streams.start_export()?;
    let stop = api.stop.clone();
    let mut pages = Pages::new(api, query);
    // Failures before the first page have a status of their own.
    let first = pages.next().await?;
    let (sender, receiver) = mpsc::channel(1);
    if !first.is_last {
        tokio::spawn(pages.send_to(sender));
    }
    let head = head(&format, encoding)?;
    let export = Export::new(format, compressor, first, Source { receiver, stop, _permit: permit });
    let body = futures_util::stream::try_unfold(export, async |mut export| {
        Ok::<_, io::Error>(export.next().await?.map(|piece| (piece, export)))
    });
    Ok((StatusCode::OK, head, Body::from_stream(body)).into_response())
}

/// Parses the parameters.
fn parse(query: Option<&str>) -> Result<(LogQuery, Format), FieldErrors> {
    let (mut is_csv, mut columns, mut order) = (false, None, Order::Descending);
    let mut has_columns = false;
    let query = selection::parse(query, "format, columns, order", |name, value| {
        let mut set = || match (name, value) {
            ("format", "ndjson" | "csv") => {
                is_csv = value == "csv";
                Ok(())
            }
            ("format", _) => Err("must be ndjson or csv".to_owned()),
            ("columns", _) => {
                has_columns = true;
                columns = Some(Columns::parse(value)?);
                Ok(())
            }
            ("order", "desc") => Ok(()),
            ("order", "asc") => {
                order = Order::Ascending;
                Ok(())
            }
            _ => Err("must be desc or asc".to_owned()),
        };
        matches!(name, "format" | "columns" | "order").then(&mut set)
    })?;
    if has_columns && !is_csv {
        let error = eyego_log_core::FieldError::new("columns", "requires format=csv");
        return Err(error.into());
    }
    let format = if is_csv { Format::Csv(columns.unwrap_or_default()) } else { Format::Ndjson };
    Ok((LogQuery { limit: PAGE_LIMIT, order, ..query }, format))
}

/// Returns the headers of the response.
fn head(format: &Format, encoding: Encoding) -> Result<HeaderMap, ApiError> {
    let (media_type, extension) = match format {
        Format::Ndjson => ("application/x-ndjson", "ndjson"),
        Format::Csv(_) => ("text/csv; charset=utf-8; header=present", "csv"),
    };
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

/// Where the pages come from. Dropping it ends the task that reads them.
struct Source {
    receiver: mpsc::Receiver<Result<FetchedPage, ReadError>>,
    stop: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Source {
    async fn next(&mut self) -> io::Result<FetchedPage> {
        tokio::select! {
            biased;
            _ = self.stop.wait_for(|stop| *stop) => Err(io::Error::other("the server is stopping")),
            page = self.receiver.recv() => match page {
                Some(Ok(page)) => Ok(page),
                Some(Err(error)) => Err(io::Error::other(error)),
                None => Err(io::Error::other("the task that reads the pages has failed")),
            }
        }
    }
}

/// The rest of an export.
struct Export {
    format: Format,
    compressor: Compressor,
    /// Rows that are not compressed yet.
    rows: Vec<u8>,
    entries: std::vec::IntoIter<LogEntry>,
    share: Arc<ReadShare>,
    is_last_page: bool,
    is_finished: bool,
    source: Source,
}

impl Export {
    fn new(format: Format, compressor: Compressor, first: FetchedPage, source: Source) -> Self {
        let mut rows = Vec::new();
        if let Format::Csv(columns) = &format {
            columns.write_header(&mut rows);
        }
        let FetchedPage { entries, share, is_last: is_last_page } = first;
        let entries = entries.into_iter();
        Self { format, compressor, rows, entries, share, is_last_page, is_finished: false, source }
    }

    /// Returns the next piece of the body, or `None` at its end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let piece = self.next_piece().await;
        if let Err(error) = &piece {
            tracing::warn!(%error, "an export was cut off");
        }
        piece
    }

    async fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        while !self.is_finished {
            if *self.source.stop.borrow() {
                return Err(io::Error::other("the server is stopping"));
            }
            while self.rows.len() < PIECE_BYTES
                && let Some(entry) = self.entries.next()
            {
                self.format.write(&mut self.rows, &entry)?;
            }
            let is_page_done = self.entries.as_slice().is_empty();
            self.is_finished = is_page_done && self.is_last_page;
            self.compressor.write(&self.rows)?;
            self.rows.clear();
            let bytes = self.compressor.take(self.is_finished)?;
            let share = Arc::clone(&self.share);
            if is_page_done && !self.is_last_page {
                let FetchedPage { entries, share, is_last } = self.source.next().await?;
                (self.entries, self.share) = (entries.into_iter(), share);
                self.is_last_page = is_last;
            }
            if !bytes.is_empty() {
                return Ok(Some(held_body::hold(bytes, share)));
            }
        }
        Ok(None)
    }
}

impl Format {
    fn write(&self, rows: &mut Vec<u8>, entry: &LogEntry) -> io::Result<()> {
        match self {
            Self::Csv(columns) => columns.write_row(rows, entry),
            Self::Ndjson => {
                let start = rows.len();
                serde_json::to_writer(&mut *rows, entry)?;
                // Metadata keeps the line breaks between its tokens.
                for byte in &mut rows[start..] {
                    if matches!(*byte, b'\n' | b'\r') {
                        *byte = b' ';
                    }
                }
                rows.push(b'\n');
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_invalid_parameter_says_what_is_possible() {
        for (query, message) in [
            ("format=parquet", "format must be ndjson or csv"),
            ("order=up", "order must be desc or asc"),
            ("columns=metadata.a", "columns requires format=csv"),
            ("format=csv&columns=page", "columns must be a list such as metadata.page"),
            ("limit=10", "limit is not a known parameter of this route (those are userId"),
            ("format=csv&format=csv", "format must not be repeated"),
            ("userId=", "userId must not be empty"),
        ] {
            let message_of = parse(Some(query)).unwrap_err().to_string();
            assert!(message_of.starts_with(message), "{query}: {message_of}");
        }
        let (query, format) = parse(Some("userId=u&order=asc")).unwrap();
        assert_eq!((query.user_id.as_deref(), query.order), (Some("u"), Order::Ascending));
        assert_eq!(format, Format::Ndjson);
    }
}
