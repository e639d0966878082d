//! Writes events in the format of an export.

use std::io;
#[cfg(feature = "parquet")]
use std::sync::Arc;

use eyego_log_core::LogEntry;

use super::csv::Columns;
use super::format::Format;
#[cfg(feature = "parquet")]
use super::parquet::{self, ParquetFile};
#[cfg(feature = "parquet")]
use crate::application::read_budget::ReadShare;
use crate::interface::http::api::Api;
use crate::interface::http::error::ApiError;

/// Writes events in a format.
pub(super) enum Rows {
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

impl Rows {
    pub(super) fn new(format: Format, _api: &Api) -> Result<Self, ApiError> {
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
    pub(super) fn is_group_full(&self) -> bool {
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
    pub(super) async fn write_group(
        &mut self,
        _bytes: &mut Vec<u8>,
        _is_last: bool,
    ) -> io::Result<()> {
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

    pub(super) fn write(&mut self, rows: &mut Vec<u8>, entry: &LogEntry) -> io::Result<()> {
        match self {
            #[cfg(feature = "parquet")]
            Self::Parquet { file, .. } => {
                if let Some(file) = file {
                    file.push(entry);
                }
            }
            Self::Csv(columns) => columns.write_row(rows, entry),
            Self::Ndjson => {
                let mut start = rows.len();
                entry.append_json(rows);
                // Metadata keeps the line breaks between its tokens.
                while let Some(place) = memchr::memchr2(b'\n', b'\r', &rows[start..]) {
                    start += place;
                    rows[start] = b' ';
                }
                rows.push(b'\n');
            }
        }
        Ok(())
    }

    /// Writes what precedes the first event.
    pub(super) fn write_header(&self, bytes: &mut Vec<u8>) {
        if let Self::Csv(columns) = self {
            columns.write_header(bytes);
        }
    }
}
