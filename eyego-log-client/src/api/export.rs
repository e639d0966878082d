//! Exports: all events of a query as the bytes of a file.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;

use eyego_log_core::FieldError;
use futures_core::Stream;
use tokio::sync::oneshot;

use crate::api::caller::StreamedBody;
use crate::api::path;
use crate::api::query::Query;
use crate::model::errors::{ExportError, RequestError};
use crate::transport::Bytes;

/// The format of an [`Export`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ExportFormat {
    /// One event per line, as JSON.
    #[default]
    Ndjson,
    /// A table for spreadsheets, with a header.
    Csv,
    /// Apache Parquet. The server may be built without it.
    Parquet,
}

/// An export of all events of a query; see [`Query::export`](crate::Query::export).
///
/// The server and the client hold only a small part of an export at a time, so its
/// size is not limited. **An export that ends early is an error**
/// ([`RequestError::Incomplete`](crate::RequestError::Incomplete)): if the stream
/// ends without an error, or [`save`](Self::save) returns `Ok`, it is complete.
///
/// The API key needs the scope `read`. The transport must stream
/// ([`Transport::send_streaming`](crate::transport::Transport::send_streaming)).
///
/// ```no_run
/// use eyego_log_client::{Client, ExportFormat};
///
/// # async fn run(client: Client) -> Result<(), eyego_log_client::ExportError> {
/// let clicks = client.query().action("CLICK_BUTTON").export(ExportFormat::Csv);
/// let bytes = clicks.columns(["page", "cart.total"]).save("clicks.csv").await?;
/// println!("{bytes} bytes were written");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is exported until the export is started, written or saved"]
pub struct Export {
    query: Query,
    format: ExportFormat,
    columns: Option<String>,
}

impl Query {
    /// Exports all matching events as bytes, in constant memory. The filters and
    /// the order apply: the server refuses a limit, a page or a cursor with status 400.
    /// See [`Export`].
    pub fn export(self, format: ExportFormat) -> Export {
        Export::new(self, format)
    }
}

impl Export {
    pub(super) fn new(query: Query, format: ExportFormat) -> Self {
        Self { query, format, columns: None }
    }

    /// Sets the columns of metadata in a CSV or Parquet file, as paths such as
    /// `cart.total`. Up to 50, each once. Defaults to one column with all metadata as
    /// JSON. The export is refused with status 400 if the format is NDJSON, if the list
    /// is empty or too long, or if a path is not valid or has a comma.
    pub fn columns<P: AsRef<str>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        let mut columns = Vec::new();
        for path in paths {
            let path = path.as_ref();
            if path.contains(',') {
                // It would be the separator of the request.
                let reason = format!("must be paths without a comma, not {path:?}");
                self.query.reject(FieldError::new("columns", reason));
            }
            columns.push(format!("metadata.{path}"));
        }
        self.columns = Some(columns.join(","));
        self
    }

    /// Starts the export, and returns its bytes as a stream.
    ///
    /// The server cuts off a client that takes less than 32 KiB/s for longer than
    /// 30 s, so take the pieces without long pauses.
    ///
    /// # Errors
    /// Returns [`RequestError::Status`] if the server refuses the export: with
    /// status 400 if a parameter is invalid, and with 503 if too many exports run.
    /// Returns another [`RequestError`] if there is no valid response.
    pub async fn start(&self) -> Result<ExportStream, RequestError> {
        self.query.check()?;
        let mut parameters = self.query.parameters();
        let (format, media_type) = match self.format {
            ExportFormat::Ndjson => ("ndjson", "application/x-ndjson"),
            ExportFormat::Csv => ("csv", "text/csv"),
            ExportFormat::Parquet => ("parquet", "application/vnd.apache.parquet"),
        };
        parameters.push(("format".to_owned(), format.to_owned()));
        parameters.extend(self.columns.clone().map(|columns| ("columns".to_owned(), columns)));
        let path = path::with_query("/logs/export", &parameters);
        let body = self.query.caller().stream(&path, media_type).await?;
        Ok(ExportStream { body: Some(body) })
    }

    /// Writes the export to `writer`, and returns the number of bytes. The writer
    /// is used on a thread of its own, so it may block. It is flushed at the end. If
    /// the future is dropped, the export is cancelled.
    ///
    /// # Errors
    /// Returns [`ExportError::Request`] if the server refuses the export or if it is
    /// not complete. What `writer` has received until then is only a part. Returns
    /// [`ExportError::Write`] if `writer` fails or if the thread cannot be started.
    pub async fn write_to(&self, writer: impl Write + Send + 'static) -> Result<u64, ExportError> {
        self.copy(move |stream, done| stream.copy(writer, done)).await
    }

    /// Saves the export as a file, and returns the number of bytes. The file appears,
    /// or is replaced, only when the export is complete; until then, the bytes are in
    /// a file beside it whose name also has a number and `.part`. Each call has a file
    /// of its own, so of concurrent calls with the same path the last one prevails.
    ///
    /// # Errors
    /// Returns the errors of [`write_to`](Self::write_to). The unfinished file is
    /// removed.
    pub async fn save(&self, path: impl Into<PathBuf>) -> Result<u64, ExportError> {
        let path = path.into();
        self.copy(move |stream, done| save(stream, &path, done)).await
    }

    /// Starts the export, and runs `work` with it on a thread.
    async fn copy(
        &self,
        work: impl FnOnce(ExportStream, &Done) -> Result<u64, ExportError> + Send + 'static,
    ) -> Result<u64, ExportError> {
        let stream = self.start().await?;
        let (done, receiver) = oneshot::channel();
        let thread = thread::Builder::new().name("eyego-log-export".to_owned());
        let started = thread.spawn(move || {
            let result = work(stream, &done);
            // The caller may have dropped its future.
            let _ = done.send(result);
        });
        started.map_err(ExportError::Write)?;
        let panicked = || Err(ExportError::Write(io::Error::other("the writer panicked")));
        receiver.await.unwrap_or_else(|_| panicked())
    }
}

type Done = oneshot::Sender<Result<u64, ExportError>>;

/// The bytes of an export, as they arrive; see [`Export::start`]. Dropping it
/// cancels the export.
///
/// This is a [`Stream`]. [`next_piece`](Self::next_piece) works without a crate for
/// streams. After an error, or at the end of a complete export, there are no more
/// pieces.
///
/// ```no_run
/// # async fn run(client: eyego_log_client::Client) -> Result<(), eyego_log_client::RequestError> {
/// let mut export = client.query().user("user-123").export(Default::default()).start().await?;
/// let mut bytes = 0;
/// while let Some(piece) = export.next_piece().await {
///     bytes += piece?.len();
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a stream does nothing until it is polled"]
pub struct ExportStream {
    /// `None` after the end.
    body: Option<StreamedBody>,
}

impl ExportStream {
    /// Returns the next piece, or `None` after the last one or an error.
    pub async fn next_piece(&mut self) -> Option<Result<Bytes, RequestError>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Ends the stream after its last piece or an error.
    fn accept(
        &mut self,
        piece: Result<Option<Bytes>, RequestError>,
    ) -> Option<Result<Bytes, RequestError>> {
        if !matches!(piece, Ok(Some(_))) {
            self.body = None;
        }
        piece.transpose()
    }

    /// Writes all pieces, unless the caller is gone.
    fn copy(mut self, writer: impl Write, done: &Done) -> Result<u64, ExportError> {
        let mut writer = BufWriter::new(writer);
        let mut written = 0;
        while let Some(body) = &mut self.body {
            let piece = body.blocking_next();
            let Some(piece) = self.accept(piece) else { break };
            let piece = piece?;
            writer.write_all(&piece).map_err(ExportError::Write)?;
            written += piece.len() as u64;
            if done.is_closed() {
                let cancelled = io::Error::other("the export was cancelled");
                return Err(ExportError::Write(cancelled));
            }
        }
        writer.flush().map_err(ExportError::Write)?;
        Ok(written)
    }
}

impl Stream for ExportStream {
    type Item = Result<Bytes, RequestError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        body.poll_next(context).map(|piece| self.accept(piece))
    }
}

fn save(stream: ExportStream, path: &Path, done: &Done) -> Result<u64, ExportError> {
    // Unique, so that no other call or process writes to the same file.
    let mut part = OsString::from(path);
    part.push(format!(".{}-{:016x}.part", std::process::id(), fastrand::u64(..)));
    let mut file = File::create_new(&part).map_err(ExportError::Write)?;
    let saved = stream.copy(&mut file, done).and_then(|written| {
        file.sync_all().and_then(|()| fs::rename(&part, path)).map_err(ExportError::Write)?;
        Ok(written)
    });
    if saved.is_err() {
        // The error is more useful than one of removing the file.
        let _ = fs::remove_file(&part);
    }
    saved
}
