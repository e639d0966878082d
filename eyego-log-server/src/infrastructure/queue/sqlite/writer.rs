//! The thread that owns the queue's file: takes all requests that wait, writes
//! them as one transaction, answers them together. It also deletes what is
//! committed, and goes on by itself when a disk that failed works again.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime};

use eyego_log_core::Timestamp;
use rusqlite::{ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::chunk::Chunk;
use super::inbox::Inbox;
use super::merger::Merger;
use super::rows::{self, Extent};
use super::status::Status;
use super::{Append, Job, SqliteQueueOptions, salvage};
use crate::domain::queue::{AppendError, Offset};
use crate::infrastructure::embedded::{self, DataDir, EmbeddedError, FileFormat, WriterConnection};

/// A transaction ends at so many bytes, so that nobody waits for long.
const MAX_ROUND_BYTES: usize = 16 << 20;

/// Chunks deleted in one transaction while nobody waits, and beside others'
/// work: more than come, so that however busy it is, what is done goes.
const IDLE_DELETIONS: u32 = 64;
const BUSY_DELETIONS: u32 = 4;

/// With so many appends in a round the next one waits for its callers to come
/// back: two halves that take turns would sync twice as often.
const BUSY_APPENDS: usize = 8;

/// How long it waits for them, at most: where requests take all cores, so long
/// that 64 of them come (measured: a fifth less CPU per event than without, and
/// callers wait less).
const GATHERING: Duration = Duration::from_millis(1);

/// After a wait that brought few (callers that have better to do than to come
/// back at once), so many rounds do without.
const ROUNDS_WITHOUT: u32 = 32;

/// How often a file that failed is tried again while nobody asks for it: an
/// unready server gets no requests that would.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    inbox: Inbox,
    /// Taken from the inbox, too much for the last round.
    waiting: VecDeque<Job>,
    status: Arc<Status>,
    /// Before the file: it has it open too, and who closes it last ends its log.
    merger: Merger,
    file: WriterConnection,
    max_bytes: u64,
    chunk: Chunk,
    /// As of the last transaction.
    extent: Extent,
    /// Something was refused, and there is no tenth of room since.
    is_full: bool,
    /// How many callers the last round answered.
    answered: usize,
    /// So many rounds do not wait.
    rounds_without: u32,
}

/// The requests of one transaction.
#[derive(Default)]
struct Round {
    appends: Vec<Append>,
    commits: Vec<(Offset, Sender<Result<(), String>>)>,
    /// Records that a reader could do nothing with.
    quarantined: Vec<Offset>,
    bytes: usize,
    close: Option<oneshot::Sender<()>>,
}

impl Writer {
    pub(super) fn open(
        data_dir: &Arc<DataDir>,
        path: &Path,
        options: SqliteQueueOptions,
        inbox: Inbox,
        status: Arc<Status>,
    ) -> Result<Self, EmbeddedError> {
        let max_bytes = options.max_bytes;
        let log_pages = max_bytes / 8 / u64::from(embedded::PAGE_BYTES);
        let log_pages = u32::try_from(log_pages).unwrap_or(u32::MAX).clamp(64, 4000);
        let format = FileFormat {
            application_id: 0x4579_6551, // "EyeQ"
            version: 3,
            schema: rows::SCHEMA,
            // Where the merger does not keep up.
            checkpoint_pages: 2 * log_pages,
            cache_kib: 8 << 10,
        };
        let damaged = if options.is_fallback { salvage::quarantined(path) } else { None };
        let mut file = match WriterConnection::open(data_dir, path.to_owned(), format) {
            Err(EmbeddedError::Sqlite { source, .. }) if options.is_fallback => {
                status.report(Some(format!("cannot open the file: {source}")));
                WriterConnection::closed(data_dir, path.to_owned(), format)
            }
            opened => opened?,
        };
        let mut extent = Extent::default();
        if file.is_open() {
            let connection = file.get()?;
            let in_sqlite = |source| EmbeddedError::Sqlite { path: path.to_owned(), source };
            if let Some(damaged) = damaged {
                salvage::take_over(&damaged, connection).map_err(in_sqlite)?;
            }
            extent = Extent::read(connection).map_err(in_sqlite)?;
            status.advance(extent.positions);
        }
        let merger = Merger::start(options.name, path, log_pages).map_err(EmbeddedError::Thread)?;
        Ok(Self {
            inbox,
            waiting: VecDeque::new(),
            status,
            merger,
            file,
            max_bytes,
            chunk: Chunk::default(),
            extent,
            is_full: false,
            answered: 0,
            rounds_without: 0,
        })
    }

    /// Works until it is told to close, or nobody is left who could ask.
    pub(super) fn run(mut self) {
        while let Some(mut round) = self.next_round() {
            self.write(&mut round);
            if let Some(done) = round.close {
                // Who hears of it may open the file again.
                drop(self);
                let _ = done.send(());
                return;
            }
        }
    }

    /// Waits for requests and takes all there are. `None`: nobody is left who
    /// could ask.
    fn next_round(&mut self) -> Option<Round> {
        if self.waiting.is_empty() {
            self.gather()?;
        }
        let mut round = Round::default();
        while round.bytes < MAX_ROUND_BYTES && round.close.is_none() {
            let Some(job) = self.waiting.pop_front() else { break };
            round.add(job);
        }
        self.answered = round.appends.len();
        Some(round)
    }

    /// Fills `waiting`; deletes, or tries to mend, as long as nobody asks.
    fn gather(&mut self) -> Option<()> {
        if self.answered >= BUSY_APPENDS && self.rounds_without == 0 {
            self.wait_for_callers()?;
        }
        self.rounds_without = self.rounds_without.saturating_sub(1);
        while self.waiting.is_empty() {
            let patience = if !self.file.is_open() {
                Some(RETRY_INTERVAL)
            } else if self.extent.has_deletable() {
                Some(Duration::ZERO)
            } else {
                None
            };
            self.waiting.extend(self.inbox.take(1, patience)?);
            if self.waiting.is_empty() {
                self.write(&mut Round::default());
            }
        }
        Some(())
    }

    /// Takes jobs once more than half of the callers that were just answered
    /// are back.
    fn wait_for_callers(&mut self) -> Option<()> {
        let here = self.inbox.len();
        // Until this thread runs, more will have come (measured: five eighths
        // beat a half and three quarters, by a tenth of all appends).
        let wanted = (here + self.answered) * 5 / 8;
        if here >= wanted {
            return Some(());
        }
        let jobs = self.inbox.take(wanted, Some(GATHERING))?;
        if jobs.len() < here + BUSY_APPENDS / 2 {
            self.rounds_without = ROUNDS_WITHOUT;
        }
        self.waiting.extend(jobs);
        Some(())
    }

    /// Writes the round and answers it.
    fn write(&mut self, round: &mut Round) {
        match self.try_write(round) {
            Ok(had_room) => self.succeed(round, &had_room),
            Err(error) => self.fail(round, &error),
        }
    }

    /// Writes the round durably; answers for which appends there was room.
    fn try_write(&mut self, round: &mut Round) -> Result<Vec<bool>, WriteError> {
        let has_failed = !self.file.is_open();
        let connection = self.file.get()?;
        if has_failed {
            // What failed may have become durable nevertheless.
            self.extent = Extent::read(connection)?;
            self.status.advance(self.extent.positions);
        }
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        // Opening and locking may have taken their time.
        round.withdraw_expired(Instant::now());
        if has_failed {
            rows::probe(connection)?;
        }
        let mut extent = self.extent;
        let batches = round.appends.iter().map(|append| &append.batch);
        let now = Timestamp::from(SystemTime::now());
        let inserted = extent.insert(connection, &mut self.chunk, batches, self.max_bytes, now)?;
        if let Some(next_offset) = round.commits.iter().map(|(offset, _)| *offset).max() {
            extent.commit(connection, next_offset)?;
        }
        for offset in &round.quarantined {
            rows::quarantined(connection, *offset)?;
        }
        let is_idle = round.appends.is_empty();
        extent.delete(connection, if is_idle { IDLE_DELETIONS } else { BUSY_DELETIONS })?;
        extent.measure(connection, self.max_bytes)?;
        transaction.commit()?;
        self.merger.written(connection, inserted.bytes);
        self.extent = extent;
        Ok(inserted.had_room)
    }

    fn succeed(&mut self, round: &mut Round, had_room: &[bool]) {
        // First: who hears that it is durable finds it there.
        self.status.advance(self.extent.positions);
        let has_refused = had_room.contains(&false);
        self.is_full =
            has_refused || (self.is_full && self.extent.used_bytes > self.max_bytes / 10 * 9);
        let reason = || format!("its {} bytes are in use", self.max_bytes);
        self.status.report(self.is_full.then(|| format!("the queue is full: {}", reason())));
        for (append, had_room) in round.appends.drain(..).zip(had_room) {
            let outcome = if *had_room { Ok(()) } else { Err(AppendError::Full(reason())) };
            append.answer(outcome);
        }
        for (_, reply) in round.commits.drain(..) {
            let _ = reply.send(Ok(()));
        }
    }

    fn fail(&mut self, round: &mut Round, error: &WriteError) {
        self.file.discard();
        let reason = error.to_string();
        self.status.report(Some(reason.clone()));
        for append in round.appends.drain(..) {
            let error = if error.is_disk_full() {
                AppendError::Full(reason.clone())
            } else {
                AppendError::Unavailable(reason.clone())
            };
            append.answer(Err(error));
        }
        for (_, reply) in round.commits.drain(..) {
            let _ = reply.send(Err(reason.clone()));
        }
    }
}

impl Round {
    fn add(&mut self, job: Job) {
        match job {
            Job::Append(append) => {
                self.bytes += append.batch.size();
                self.appends.push(append);
            }
            Job::Commit { next_offset, reply } => self.commits.push((next_offset, reply)),
            Job::SetAside { offset } => self.quarantined.push(offset),
            Job::Close { done } => self.close = Some(done),
        }
    }

    fn withdraw_expired(&mut self, now: Instant) {
        for expired in self.appends.extract_if(.., |append| append.deadline <= now) {
            let error = AppendError::Unavailable("withdrawn: it waited too long".into());
            expired.answer(Err(error));
        }
    }
}

impl Append {
    fn answer(self, outcome: Result<(), AppendError>) {
        // First the memory: the caller may come with the next batch at once.
        drop(self.batch);
        self.reply.send(outcome);
    }
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Open(#[from] EmbeddedError),
    #[error("cannot write the queue: {0}")]
    Write(#[from] rusqlite::Error),
}

impl WriteError {
    fn is_disk_full(&self) -> bool {
        let error = match self {
            Self::Write(error) | Self::Open(EmbeddedError::Sqlite { source: error, .. }) => error,
            Self::Open(_) => return false,
        };
        error.sqlite_error_code() == Some(ErrorCode::DiskFull)
    }
}
