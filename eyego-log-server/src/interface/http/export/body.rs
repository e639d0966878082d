//! The body of an export, piece by piece.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use eyego_log_core::LogEntry;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::compressor::Compressor;
use super::pages::FetchedPage;
use super::rows::Rows;
use crate::application::read_budget::ReadShare;
use crate::domain::read::ReadError;
use crate::interface::http::access::AuditedStream;
use crate::interface::http::held_body;

/// Size at which rows are compressed and handed to the connection.
const PIECE_BYTES: usize = 64 << 10;

/// The last event of a piece may exceed it. If it is not larger than this, the piece is
/// not copied to make room.
const USUAL_EVENT_BYTES: usize = 16 << 10;

/// Where the pages come from. Dropping it ends the task that reads them.
pub(super) struct Source {
    pub(super) receiver: mpsc::Receiver<Result<FetchedPage, ReadError>>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) _permit: OwnedSemaphorePermit,
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
pub(super) struct Export {
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
    pub(super) fn new(
        rows: Rows,
        compressor: Compressor,
        first: FetchedPage,
        source: Source,
        audited: Arc<AuditedStream>,
    ) -> Self {
        let mut bytes = Vec::new();
        rows.write_header(&mut bytes);
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
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
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
            self.bytes.reserve(PIECE_BYTES + USUAL_EVENT_BYTES);
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
            self.compressor.write(&mut self.bytes)?;
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
