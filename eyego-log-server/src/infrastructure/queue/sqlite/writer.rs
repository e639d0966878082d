//! The thread that owns the queue's file: takes all requests that wait, writes
//! them as one transaction, answers them together. It also deletes what is
//! committed, and goes on by itself when a disk that failed works again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvError, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant, SystemTime};

use eyego_log_core::Timestamp;
use rusqlite::{ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::super::answers::Answers;
use super::rows::{self, Extent};
use super::status::Status;
use super::{Append, Inbox, Job};
use crate::domain::queue::{AppendError, Offset};
use crate::infrastructure::embedded::{self, DataDir, EmbeddedError, FileFormat, WriterConnection};

/// A transaction ends at so many bytes, so that nobody waits for long.
const MAX_ROUND_BYTES: usize = 16 << 20;

/// Rows deleted in one transaction while nobody waits.
const IDLE_DELETIONS: i64 = 4096;

/// With so many appends in a round the next one waits for its callers to come
/// back, as long as they keep coming within this time: two halves that take
/// turns would sync twice as often.
const BUSY_APPENDS: usize = 8;
const GATHERING: Duration = Duration::from_micros(20);

/// How often a file that failed is tried again while nobody asks for it: an
/// unready server gets no requests that would.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    inbox: Inbox,
    status: Arc<Status>,
    file: WriterConnection,
    max_bytes: u64,
    /// As of the last transaction.
    extent: Extent,
    /// Something was refused, and there is no tenth of room since.
    is_full: bool,
    /// The last round had many callers, who are about to come again.
    is_busy: bool,
}

/// The requests of one transaction.
#[derive(Default)]
struct Round {
    appends: Vec<Append>,
    commits: Vec<(Offset, Sender<Result<(), String>>)>,
    bytes: usize,
    close: Option<oneshot::Sender<()>>,
}

impl Writer {
    pub(super) fn open(
        data_dir: &Arc<DataDir>,
        path: PathBuf,
        max_bytes: u64,
        inbox: Inbox,
        status: Arc<Status>,
    ) -> Result<Self, EmbeddedError> {
        let checkpoint_pages = max_bytes / 8 / u64::from(embedded::PAGE_BYTES);
        let format = FileFormat {
            application_id: 0x4579_6551, // "EyeQ"
            version: 1,
            schema: rows::SCHEMA,
            checkpoint_pages: u32::try_from(checkpoint_pages).unwrap_or(u32::MAX).clamp(64, 4000),
            cache_kib: 8 << 10,
        };
        let mut file = WriterConnection::open(data_dir, path.clone(), format)?;
        let extent =
            Extent::read(file.get()?).map_err(|source| EmbeddedError::Sqlite { path, source })?;
        status.advance(extent.positions);
        Ok(Self { inbox, status, file, max_bytes, extent, is_full: false, is_busy: false })
    }

    /// Works until it is told to close, or nobody is left who could ask.
    pub(super) fn run(mut self) {
        while let Ok(mut round) = self.next_round() {
            self.write(&mut round);
            if let Some(done) = round.close {
                // Who hears of it may open the file again.
                drop(self);
                let _ = done.send(());
                return;
            }
        }
    }

    /// Waits for requests and takes all there are.
    fn next_round(&mut self) -> Result<Round, RecvError> {
        let mut round = Round::default();
        round.add(self.next_job()?);
        let mut last_arrival = Instant::now();
        while round.bytes < MAX_ROUND_BYTES && round.close.is_none() {
            match self.inbox.jobs.try_recv() {
                Ok(job) => {
                    round.add(job);
                    last_arrival = Instant::now();
                }
                Err(_) if self.is_busy && last_arrival.elapsed() < GATHERING => {
                    std::thread::yield_now();
                }
                Err(_) => break,
            }
        }
        self.is_busy = round.appends.len() >= BUSY_APPENDS;
        Ok(round)
    }

    /// Waits for a request; deletes, or tries to mend, meanwhile.
    fn next_job(&mut self) -> Result<Job, RecvError> {
        loop {
            if !self.file.is_open() {
                match self.inbox.jobs.recv_timeout(RETRY_INTERVAL) {
                    Ok(job) => return Ok(job),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Err(RecvError),
                }
            } else if self.extent.has_deletable() {
                match self.inbox.jobs.try_recv() {
                    Ok(job) => return Ok(job),
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => return Err(RecvError),
                }
            } else {
                return self.inbox.jobs.recv();
            }
            self.write(&mut Round::default());
        }
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
        round.withdraw_expired(Instant::now(), &self.inbox.answers);
        if has_failed {
            rows::probe(connection)?;
        }
        let mut extent = self.extent;
        let batches = round.appends.iter().map(|append| &append.batch);
        let now = Timestamp::from(SystemTime::now());
        let had_room = extent.insert(connection, batches, self.max_bytes, now)?;
        if let Some(next_offset) = round.commits.iter().map(|(offset, _)| *offset).max() {
            extent.commit(connection, next_offset)?;
        }
        // Twice as many as came: however busy it is, what is done goes first.
        let added = extent.positions.end - self.extent.positions.end;
        extent.delete(connection, if added == 0 { IDLE_DELETIONS } else { 2 * added })?;
        extent.measure(connection)?;
        transaction.commit()?;
        self.extent = extent;
        Ok(had_room)
    }

    fn succeed(&mut self, round: &mut Round, had_room: &[bool]) {
        self.status.advance(self.extent.positions);
        let has_refused = had_room.contains(&false);
        self.is_full =
            has_refused || (self.is_full && self.extent.used_bytes > self.max_bytes / 10 * 9);
        let reason = || format!("its {} bytes are in use", self.max_bytes);
        self.status.report(self.is_full.then(|| format!("the queue is full: {}", reason())));
        for (append, had_room) in round.appends.drain(..).zip(had_room) {
            let outcome = if *had_room { Ok(()) } else { Err(AppendError::Full(reason())) };
            append.answer(outcome, &self.inbox.answers);
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
            append.answer(Err(error), &self.inbox.answers);
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
            Job::Close { done } => self.close = Some(done),
        }
    }

    fn withdraw_expired(&mut self, now: Instant, answers: &Answers<Result<(), AppendError>>) {
        for expired in self.appends.extract_if(.., |append| append.deadline <= now) {
            let error = AppendError::Unavailable("withdrawn: it waited too long".into());
            expired.answer(Err(error), answers);
        }
    }
}

impl Append {
    fn answer(self, outcome: Result<(), AppendError>, answers: &Answers<Result<(), AppendError>>) {
        // First the memory: the caller may come with the next batch at once.
        drop(self.batch);
        answers.send(self.reply, outcome);
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
