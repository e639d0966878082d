//! The thread that owns the queue's file. It takes all waiting jobs, writes them
//! in one transaction (group commit) and replies to all of them. It also deletes
//! committed chunks, and reopens a file that failed.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime};

use eyego_log_core::Timestamp;
use rusqlite::{ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::checkpointer::Checkpointer;
use super::chunk::Chunk;
use super::purge::Purge;
use super::rows::{self, Extent};
use super::status::Status;
use super::submissions::Submissions;
use super::{Append, Job, SqliteQueueOptions, recovery};
use crate::domain::position::Offset;
use crate::domain::queue::AppendError;
use crate::infrastructure::embedded::{self, DataDir, EmbeddedError, FileFormat, WriterConnection};

/// Size at which a group accepts no more jobs, so that its commit does not take
/// too long.
const MAX_GROUP_BYTES: usize = 16 << 20;

/// Chunks deleted per transaction while no jobs are waiting, and along with
/// other work. The latter is more than a transaction usually appends, so that
/// deleting keeps up.
const IDLE_DELETIONS: u32 = 64;
const BUSY_DELETIONS: u32 = 4;

/// After a group with at least this many appends, the writer waits for their
/// callers to append again. Otherwise callers split into two halves that take
/// turns, and the disk is synced twice as often.
const BUSY_APPENDS: usize = 8;

/// Maximum time the writer waits for those callers (ADR 0008).
const GATHER_TIMEOUT: Duration = Duration::from_millis(1);

/// Number of groups committed without waiting after a wait that brought few
/// appends.
const GROUPS_WITHOUT_WAIT: u32 = 32;

/// Interval at which a file that failed is retried. Requests cannot trigger the
/// retry, because a server that is not ready receives none.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    submissions: Submissions,
    /// Jobs that were taken but did not fit into the last group.
    waiting: VecDeque<Job>,
    status: Arc<Status>,
    /// Declared, and so dropped, before `file`: the last connection to close
    /// removes the write-ahead log.
    checkpointer: Checkpointer,
    file: WriterConnection,
    max_bytes: u64,
    chunk: Chunk,
    purge: Purge,
    /// State after the last transaction.
    extent: Extent,
    /// Records were refused, and less than a tenth of the limit has been freed
    /// since.
    is_full: bool,
    /// Number of appends in the last group.
    last_appends: usize,
    /// Number of groups to commit without waiting for callers.
    groups_without_wait: u32,
}

/// The jobs of one transaction.
#[derive(Default)]
struct Group {
    appends: Vec<Append>,
    commits: Vec<(Offset, Sender<Result<(), String>>)>,
    quarantined: Vec<Offset>,
    bytes: usize,
    close: Option<oneshot::Sender<()>>,
}

impl Writer {
    pub(super) fn open(
        data_dir: &Arc<DataDir>,
        path: &Path,
        options: SqliteQueueOptions,
        submissions: Submissions,
        status: Arc<Status>,
    ) -> Result<Self, EmbeddedError> {
        let max_bytes = options.max_bytes;
        let log_pages = max_bytes / 8 / u64::from(embedded::PAGE_BYTES);
        let log_pages = u32::try_from(log_pages).unwrap_or(u32::MAX).clamp(64, 4000);
        let format = FileFormat {
            application_id: 0x4579_6551, // "EyeQ"
            version: rows::VERSION,
            schema: rows::SCHEMA,
            // Applies only if the checkpointer does not keep up.
            checkpoint_pages: 2 * log_pages,
            cache_kib: 8 << 10,
            // It would double the writes; `purge` overwrites everything at once.
            is_overwriting: false,
        };
        let damaged = if options.is_fallback { recovery::quarantine(path) } else { None };
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
                recovery::import(&damaged, connection).map_err(in_sqlite)?;
            }
            extent = Extent::read(connection).map_err(in_sqlite)?;
            status.advance(extent.positions);
        }
        let checkpointer =
            Checkpointer::start(options.name, path, log_pages).map_err(EmbeddedError::Thread)?;
        Ok(Self {
            submissions,
            waiting: VecDeque::new(),
            status,
            checkpointer,
            file,
            max_bytes,
            chunk: Chunk::default(),
            purge: Purge::new(Instant::now()),
            extent,
            is_full: false,
            last_appends: 0,
            groups_without_wait: 0,
        })
    }

    /// Runs until the queue is closed or all submitters are dropped.
    pub(super) fn run(mut self) {
        while let Some(mut group) = self.next_group() {
            self.write(&mut group);
            self.purge_if_due();
            if let Some(done) = group.close {
                // Closes the file first: the caller may open it again.
                drop(self);
                let _ = done.send(());
                return;
            }
        }
    }

    /// Waits for jobs and takes as many as fit into a group. Returns `None` if
    /// no submitters are left.
    fn next_group(&mut self) -> Option<Group> {
        if self.waiting.is_empty() {
            self.gather()?;
        }
        let mut group = Group::default();
        while group.bytes < MAX_GROUP_BYTES && group.close.is_none() {
            let Some(job) = self.waiting.pop_front() else { break };
            group.add(job);
        }
        self.last_appends = group.appends.len();
        Some(group)
    }

    /// Fills `waiting`. Meanwhile, deletes committed chunks or retries a file
    /// that failed.
    fn gather(&mut self) -> Option<()> {
        if self.last_appends >= BUSY_APPENDS && self.groups_without_wait == 0 {
            self.wait_for_callers()?;
        }
        self.groups_without_wait = self.groups_without_wait.saturating_sub(1);
        while self.waiting.is_empty() {
            let timeout = if !self.file.is_open() {
                Some(RETRY_INTERVAL)
            } else if self.extent.has_deletable() {
                Some(Duration::ZERO)
            } else {
                // An idle queue notices changes to its files, too.
                let purge = self.purge.wait(Instant::now());
                Some(purge.unwrap_or(embedded::CHECK_INTERVAL).min(embedded::CHECK_INTERVAL))
            };
            self.waiting.extend(self.submissions.take(1, timeout)?);
            if self.waiting.is_empty() {
                self.write_idle();
            }
        }
        Some(())
    }

    /// Takes jobs once most callers of the last group have appended again.
    fn wait_for_callers(&mut self) -> Option<()> {
        let arrived = self.submissions.len();
        // More arrive until this thread runs, so it waits for 5/8 of them only
        // (ADR 0008).
        let minimum = (arrived + self.last_appends) * 5 / 8;
        if arrived >= minimum {
            return Some(());
        }
        let jobs = self.submissions.take(minimum, Some(GATHER_TIMEOUT))?;
        if jobs.len() < arrived + BUSY_APPENDS / 2 {
            self.groups_without_wait = GROUPS_WITHOUT_WAIT;
        }
        self.waiting.extend(jobs);
        Some(())
    }

    /// Deletes committed chunks, retries a file that failed, or purges the file.
    fn write_idle(&mut self) {
        if !self.file.is_open() || self.extent.has_deletable() {
            self.write(&mut Group::default());
        }
        self.purge_if_due();
    }

    fn purge_if_due(&mut self) {
        if self.file.is_open()
            && let Ok(connection) = self.file.get()
        {
            self.purge.run(connection, &self.extent, Instant::now());
        }
    }

    /// Writes the group and replies to its jobs.
    fn write(&mut self, group: &mut Group) {
        match self.try_write(group) {
            Ok(had_room) => self.succeed(group, &had_room),
            Err(error) => self.fail(group, &error),
        }
    }

    /// Writes the group durably. Returns, for each append, whether there was
    /// room for it.
    fn try_write(&mut self, group: &mut Group) -> Result<Vec<bool>, WriteError> {
        let has_failed = !self.file.is_open();
        self.file.check()?;
        let connection = self.file.get()?;
        if has_failed {
            // The transaction that failed may be durable nevertheless.
            self.extent = Extent::read(connection)?;
            self.status.advance(self.extent.positions);
        }
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        // Opening and locking the file may have taken a while.
        group.withdraw_expired(Instant::now());
        if has_failed {
            rows::probe(connection)?;
        }
        let mut extent = self.extent;
        let batches = group.appends.iter().map(|append| &append.batch);
        let now = Timestamp::from(SystemTime::now());
        let inserted = extent.insert(connection, &mut self.chunk, batches, self.max_bytes, now)?;
        if let Some(next_offset) = group.commits.iter().map(|(offset, _)| *offset).max() {
            extent.commit(connection, next_offset)?;
        }
        for offset in &group.quarantined {
            rows::quarantine(connection, *offset)?;
        }
        let is_idle = group.appends.is_empty();
        if extent.has_deletable() {
            self.purge.note_deleted();
        }
        extent.delete(connection, if is_idle { IDLE_DELETIONS } else { BUSY_DELETIONS })?;
        extent.measure(connection, self.max_bytes)?;
        transaction.commit()?;
        self.checkpointer.after_write(connection, inserted.bytes);
        self.extent = extent;
        Ok(inserted.had_room)
    }

    fn succeed(&mut self, group: &mut Group, had_room: &[bool]) {
        // This precedes the replies, because an acknowledged record must be readable.
        self.status.advance(self.extent.positions);
        let has_refused = had_room.contains(&false);
        self.is_full =
            has_refused || (self.is_full && self.extent.used_bytes > self.max_bytes / 10 * 9);
        let reason = || format!("its {} bytes are in use", self.max_bytes);
        self.status.is_full.store(self.is_full, Ordering::Relaxed);
        self.status.report(self.is_full.then(|| format!("the queue is full: {}", reason())));
        for (append, had_room) in group.appends.drain(..).zip(had_room) {
            let outcome = if *had_room { Ok(()) } else { Err(AppendError::Full(reason())) };
            append.complete(outcome);
        }
        for (_, reply) in group.commits.drain(..) {
            let _ = reply.send(Ok(()));
        }
    }

    fn fail(&mut self, group: &mut Group, error: &WriteError) {
        self.file.discard();
        let reason = error.to_string();
        self.status.report(Some(reason.clone()));
        for append in group.appends.drain(..) {
            let error = if error.is_disk_full() {
                AppendError::Full(reason.clone())
            } else {
                AppendError::Unavailable(reason.clone())
            };
            append.complete(Err(error));
        }
        for (_, reply) in group.commits.drain(..) {
            let _ = reply.send(Err(reason.clone()));
        }
    }
}

impl Group {
    fn add(&mut self, job: Job) {
        match job {
            Job::Append(append) => {
                self.bytes += append.batch.size();
                self.appends.push(append);
            }
            Job::Commit { next_offset, reply } => self.commits.push((next_offset, reply)),
            Job::Quarantine { offset } => self.quarantined.push(offset),
            Job::Close { done } => self.close = Some(done),
        }
    }

    fn withdraw_expired(&mut self, now: Instant) {
        for expired in self.appends.extract_if(.., |append| append.deadline <= now) {
            let error = AppendError::Unavailable("withdrawn: not written in time".into());
            expired.complete(Err(error));
        }
    }
}

impl Append {
    fn complete(self, outcome: Result<(), AppendError>) {
        // Frees the batch's share of the memory budget before the caller sends
        // the next batch.
        drop(self.batch);
        // The caller may have stopped waiting.
        let _ = self.reply.send(outcome);
    }
}

/// The reason a group was not written.
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
