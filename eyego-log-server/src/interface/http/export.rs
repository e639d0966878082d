//! `GET /api/v1/logs/export`: all matching events as a stream.
//!
//! A task reads the next page while the client receives the current one, so an
//! export holds up to two pages. Both are part of the read budget. A failure
//! after the head of the response aborts it.

pub(super) mod csv;
mod encoding;
mod pages;
#[cfg(feature = "parquet")]
mod parquet;

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
#[cfg(feature = "parquet")]
use self::parquet::ParquetFile;
use super::access::{Audited, AuditedStream};
use super::api::Api;
use super::error::ApiError;
use super::{held_body, selection};
use crate::application::read_budget::ReadShare;
use crate::domain::read::ReadError;

/// Size at which rows are compressed and handed to the connection.
const PIECE_BYTES: usize = 64 << 10;

/// Number of events of a page. A page ends at 8 MiB, too.
const PAGE_LIMIT: u32 = 1000;

/// The values of `format`.
pub(super) const FORMATS: &[&str] =
    if cfg!(feature = "parquet") { &["ndjson", "csv", "parquet"] } else { &["ndjson", "csv"] };

/// Media type of a Parquet file.
pub(super) const PARQUET: &str = "application/vnd.apache.parquet";

/// The reason another value of `format` is invalid.
const OTHER_FORMAT: &str = if cfg!(feature = "parquet") {
    "must be ndjson, csv or parquet"
} else {
    "must be ndjson or csv; parquet needs a server that is built with the cargo feature `parquet`"
};

/// How the events are to be written.
#[derive(Debug, PartialEq)]
enum Format {
    Ndjson,
    Csv(Columns),
    #[cfg(feature = "parquet")]
    Parquet(Columns),
}

/// Writes events in a format.
enum Rows {
    Ndjson,
    Csv(Columns),
    #[cfg(feature = "parquet")]
    Parquet {
        /// `None` only while a group is being encoded.
        file: Option<Box<ParquetFile>>,
        /// The memory of the file.
        _share: Arc<ReadShare>,
    },
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
    let encoding =
        if format.is_compressed() { Encoding::Identity } else { Encoding::accepted(headers) };
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
    let (media_type, extension) = match format {
        Format::Ndjson => ("application/x-ndjson", "ndjson"),
        Format::Csv(_) => ("text/csv; charset=utf-8; header=present", "csv"),
        #[cfg(feature = "parquet")]
        Format::Parquet(_) => (PARQUET, "parquet"),
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
    rows: Rows,
    compressor: Compressor,
    /// Bytes that are not compressed yet.
    bytes: Vec<u8>,
    entries: std::vec::IntoIter<LogEntry>,
    share: Arc<ReadShare>,
    is_last_page: bool,
    is_finished: bool,
    source: Source,
    audited: Arc<AuditedStream>,
}

impl Export {
    fn new(
        rows: Rows,
        compressor: Compressor,
        first: FetchedPage,
        source: Source,
        audited: Arc<AuditedStream>,
    ) -> Self {
        let mut bytes = Vec::new();
        if let Rows::Csv(columns) = &rows {
            columns.write_header(&mut bytes);
        }
        let FetchedPage { entries, share, is_last: is_last_page } = first;
        let entries = entries.into_iter();
        Self {
            rows,
            compressor,
            bytes,
            entries,
            share,
            is_last_page,
            is_finished: false,
            source,
            audited,
        }
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
            while self.bytes.len() < PIECE_BYTES
                && !self.rows.is_group_full()
                && let Some(entry) = self.entries.next()
            {
                self.rows.write(&mut self.bytes, &entry)?;
                self.audited.add(1);
            }
            let is_page_done = self.entries.as_slice().is_empty();
            self.is_finished = is_page_done && self.is_last_page;
            self.rows.write_group(&mut self.bytes, self.is_finished).await?;
            self.compressor.write(&self.bytes)?;
            self.bytes.clear();
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
        self.audited.complete();
        Ok(None)
    }
}

impl Format {
    fn named(name: &str) -> Option<Self> {
        match name {
            "ndjson" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv(Columns::default())),
            #[cfg(feature = "parquet")]
            "parquet" => Some(Self::Parquet(Columns::default())),
            _ => None,
        }
    }

    /// Returns the format with these columns, or `None` if it has no columns.
    fn with_columns(self, columns: Columns) -> Option<Self> {
        match self {
            Self::Ndjson => None,
            Self::Csv(_) => Some(Self::Csv(columns)),
            #[cfg(feature = "parquet")]
            Self::Parquet(_) => Some(Self::Parquet(columns)),
        }
    }

    /// Returns whether compressing it again would gain nothing.
    fn is_compressed(&self) -> bool {
        match self {
            Self::Ndjson | Self::Csv(_) => false,
            #[cfg(feature = "parquet")]
            Self::Parquet(_) => true,
        }
    }
}

impl Rows {
    fn new(format: Format, _api: &Api) -> Result<Self, ApiError> {
        Ok(match format {
            Format::Ndjson => Self::Ndjson,
            Format::Csv(columns) => Self::Csv(columns),
            #[cfg(feature = "parquet")]
            Format::Parquet(columns) => {
                use crate::domain::read::ReadMemory as _;

                let share = _api.read_budget.start()?;
                share.reserve(parquet::MEMORY_BYTES)?;
                let file = ParquetFile::new(columns);
                let file = file.map_err(|error| ApiError::internal(error.to_string()))?;
                Self::Parquet { file: Some(Box::new(file)), _share: share }
            }
        })
    }

    /// Returns whether [`write_group`](Self::write_group) has to be called.
    fn is_group_full(&self) -> bool {
        match self {
            Self::Ndjson | Self::Csv(_) => false,
            #[cfg(feature = "parquet")]
            Self::Parquet { file, .. } => file.as_ref().is_some_and(|file| file.is_group_full()),
        }
    }

    /// Writes the current group if it is full or the last one. Formats without
    /// groups have nothing to write.
    #[cfg_attr(
        not(feature = "parquet"),
        expect(clippy::unused_async, reason = "only Parquet has groups")
    )]
    async fn write_group(&mut self, _bytes: &mut Vec<u8>, _is_last: bool) -> io::Result<()> {
        #[cfg(feature = "parquet")]
        if (_is_last || self.is_group_full())
            && let Self::Parquet { file, .. } = self
            && let Some(mut encoding) = file.take()
        {
            let encode = move || {
                let written = encoding.write_group(_is_last);
                (encoding, written)
            };
            let (encoding, written) = tokio::task::spawn_blocking(encode).await?;
            *file = Some(encoding);
            _bytes.append(&mut written?);
        }
        Ok(())
    }

    fn write(&mut self, rows: &mut Vec<u8>, entry: &LogEntry) -> io::Result<()> {
        match self {
            #[cfg(feature = "parquet")]
            Self::Parquet { file, .. } => {
                if let Some(file) = file {
                    file.push(entry);
                }
            }
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
