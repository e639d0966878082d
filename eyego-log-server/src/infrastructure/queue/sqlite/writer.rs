//! The thread that owns the queue's file: takes all requests that wait, writes
//! them as one transaction, answers them together. It also deletes what is
//! committed, and goes on by itself when a disk that failed works again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant, SystemTime};

use eyego_log_core::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::status::{Positions, Status};
use super::{Append, Job};
use crate::domain::queue::{AppendError, Offset, RecordBatch};
use crate::infrastructure::embedded::{self, DataDir, EmbeddedError, FileFormat, WriterConnection};

/// Offsets are ours to give, from 1, without gaps: the larger of one past the
/// last row and the committed offset. Rows are deleted below the committed
/// offset only, so none is given twice, also after all rows are gone. (SQLite's
/// AUTOINCREMENT promises the same for a fifth of the throughput.) The key is
/// not kept: with one partition it decides nothing, and the value has it.
const SCHEMA: &str = "
    CREATE TABLE records (
        offset    INTEGER PRIMARY KEY,
        queued_at INTEGER NOT NULL,
        value     BLOB
    );
    CREATE TABLE committed (
        only_row    INTEGER PRIMARY KEY CHECK (only_row = 0),
        next_offset INTEGER NOT NULL
    );
    INSERT INTO committed VALUES (0, 1);
";

/// What a row takes beside its value.
const ROW_BYTES: u64 = 16;

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
    jobs: Receiver<Job>,
    status: Arc<Status>,
    file: WriterConnection,
    max_bytes: u64,
    positions: Positions,
    /// There is no row below this offset.
    deleted_below: Offset,
    /// What the rows take on disk.
    used_bytes: u64,
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

/// What a transaction did, once it is durable.
struct Written {
    positions: Positions,
    deleted_below: Offset,
    /// Per append, whether there was room for it.
    had_room: Vec<bool>,
    /// What the rows take on disk, these included.
    used_bytes: u64,
}

impl Writer {
    pub(super) fn open(
        data_dir: &Arc<DataDir>,
        path: PathBuf,
        max_bytes: u64,
        jobs: Receiver<Job>,
        status: Arc<Status>,
    ) -> Result<Self, EmbeddedError> {
        let checkpoint_pages = max_bytes / 8 / u64::from(embedded::PAGE_BYTES);
        let format = FileFormat {
            application_id: 0x4579_6551, // "EyeQ"
            version: 1,
            schema: SCHEMA,
            checkpoint_pages: u32::try_from(checkpoint_pages).unwrap_or(u32::MAX).clamp(64, 4000),
            cache_kib: 8 << 10,
        };
        let mut file = WriterConnection::open(data_dir, path.clone(), format)?;
        let connection = file.get()?;
        let state = read_positions(connection)
            .and_then(|positions| Ok((positions, used_bytes(connection)?)));
        let ((positions, deleted_below), used_bytes) =
            state.map_err(|source| EmbeddedError::Sqlite { path, source })?;
        status.advance(positions);
        let (is_full, is_busy) = (false, false);
        Ok(Self {
            jobs,
            status,
            file,
            max_bytes,
            positions,
            deleted_below,
            used_bytes,
            is_full,
            is_busy,
        })
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
            match self.jobs.try_recv() {
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
                match self.jobs.recv_timeout(RETRY_INTERVAL) {
                    Ok(job) => return Ok(job),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Err(RecvError),
                }
            } else if self.deleted_below < self.positions.committed {
                match self.jobs.try_recv() {
                    Ok(job) => return Ok(job),
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => return Err(RecvError),
                }
            } else {
                return self.jobs.recv();
            }
            self.write(&mut Round::default());
        }
    }

    /// Writes the round and answers it.
    fn write(&mut self, round: &mut Round) {
        match self.try_write(round) {
            Ok(written) => self.succeed(round, &written),
            Err(error) => self.fail(round, &error),
        }
    }

    fn try_write(&mut self, round: &mut Round) -> Result<Written, WriteError> {
        let has_failed = !self.file.is_open();
        let connection = self.file.get()?;
        if has_failed {
            // What failed may have become durable nevertheless.
            (self.positions, self.deleted_below) = read_positions(connection)?;
            self.used_bytes = used_bytes(connection)?;
            self.status.advance(self.positions);
        }
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        // Opening and locking may have taken their time.
        round.withdraw_expired(Instant::now());
        let mut written = Written {
            positions: self.positions,
            deleted_below: self.deleted_below,
            had_room: Vec::with_capacity(round.appends.len()),
            used_bytes: self.used_bytes,
        };
        if has_failed {
            // Some write has to show that the disk is good again.
            connection.execute("UPDATE committed SET next_offset = next_offset", [])?;
        }
        insert(connection, &round.appends, self.max_bytes, &mut written)?;
        commit_offset(connection, &round.commits, &mut written.positions)?;

        // Twice as many as came: however busy it is, what is done goes first.
        let rows = match written.positions.end - self.positions.end {
            0 => IDLE_DELETIONS,
            added => 2 * added,
        };
        let below = written.positions.committed.min(written.deleted_below + rows);
        if below > written.deleted_below {
            connection.prepare_cached("DELETE FROM records WHERE offset < ?1")?.execute([below])?;
            written.deleted_below = below;
        }
        written.used_bytes = used_bytes(connection)?;
        transaction.commit()?;
        Ok(written)
    }

    fn succeed(&mut self, round: &mut Round, written: &Written) {
        self.positions = written.positions;
        self.deleted_below = written.deleted_below;
        self.used_bytes = written.used_bytes;
        self.status.advance(self.positions);

        let was_refused = written.had_room.contains(&false);
        self.is_full =
            was_refused || (self.is_full && written.used_bytes > self.max_bytes / 10 * 9);
        let reason = || format!("its {} bytes are in use", self.max_bytes);
        self.status.report(self.is_full.then(|| format!("the queue is full: {}", reason())));
        for (append, had_room) in round.appends.drain(..).zip(&written.had_room) {
            append.answer(if *had_room { Ok(()) } else { Err(AppendError::Full(reason())) });
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
            append.answer(Err(if error.is_disk_full() {
                AppendError::Full(reason.clone())
            } else {
                AppendError::Unavailable(reason.clone())
            }));
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

    fn withdraw_expired(&mut self, now: Instant) {
        for expired in self.appends.extract_if(.., |append| append.deadline <= now) {
            expired.answer(Err(AppendError::Unavailable("withdrawn: it waited too long".into())));
        }
    }
}

impl Append {
    fn answer(self, outcome: Result<(), AppendError>) {
        // First the memory: the caller may come with the next batch at once.
        drop(self.batch);
        let _ = self.reply.send(outcome);
    }
}

fn insert(
    connection: &Connection,
    appends: &[Append],
    max_bytes: u64,
    written: &mut Written,
) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached("INSERT INTO records VALUES (?1, ?2, ?3)")?;
    let queued_at = Timestamp::from(SystemTime::now()).as_millis();
    for append in appends {
        let bytes = disk_bytes(&append.batch);
        let has_room = written.used_bytes.saturating_add(bytes) <= max_bytes;
        written.had_room.push(has_room);
        if !has_room {
            continue;
        }
        written.used_bytes += bytes;
        for record in append.batch.iter() {
            insert.raw_bind_parameter(1, written.positions.end)?;
            insert.raw_bind_parameter(2, queued_at)?;
            insert.raw_bind_parameter(3, record.value)?;
            insert.raw_execute()?;
            written.positions.end += 1;
        }
    }
    Ok(())
}

/// About what the batch will take. At the end of the round it is counted what
/// it did take: the difference is how far the file may overshoot.
fn disk_bytes(batch: &RecordBatch) -> u64 {
    let records = u64::try_from(batch.len()).unwrap_or(u64::MAX);
    let bytes = u64::try_from(batch.size()).unwrap_or(u64::MAX);
    bytes.saturating_add(records.saturating_mul(ROW_BYTES))
}

fn commit_offset(
    connection: &Connection,
    commits: &[(Offset, Sender<Result<(), String>>)],
    positions: &mut Positions,
) -> rusqlite::Result<()> {
    let Some(asked) = commits.iter().map(|(offset, _)| *offset).max() else { return Ok(()) };
    // Past the end it would jump over records that are yet to come.
    let committed = asked.min(positions.end);
    if committed > positions.committed {
        connection.prepare_cached("UPDATE committed SET next_offset = ?1")?.execute([committed])?;
        positions.committed = committed;
    }
    Ok(())
}

/// The pages that hold something. Cheaper than a sum over the values, which a
/// start would have to count, and it is what the disk sees.
fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let ask = |sql: &str| -> rusqlite::Result<u32> {
        connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
    };
    let pages = ask("PRAGMA page_count")?.saturating_sub(ask("PRAGMA freelist_count")?);
    Ok(u64::from(pages) * u64::from(embedded::PAGE_BYTES))
}

fn read_positions(connection: &Connection) -> rusqlite::Result<(Positions, Offset)> {
    let ask = |sql: &str| -> rusqlite::Result<Option<Offset>> {
        connection.query_row(sql, [], |row| row.get(0)).optional()
    };
    let committed = ask("SELECT next_offset FROM committed")?.unwrap_or(1);
    let last = ask("SELECT offset FROM records ORDER BY offset DESC LIMIT 1")?;
    let first = ask("SELECT offset FROM records ORDER BY offset LIMIT 1")?;
    let end = last.map_or(committed, |last| committed.max(last + 1));
    Ok((Positions { end, committed }, first.unwrap_or(end)))
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
