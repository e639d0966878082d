//! Behaviour specific to this adapter. The conformance suite covers the port.

mod damage;
mod failure;

use std::ops::ControlFlow;
use std::path::Path;

use eyego_log_core::Timestamp;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::domain::subscription::Signal;

const TIMEOUT: Duration = Duration::from_secs(20);

fn open(dir: &Path, max_bytes: u64) -> Arc<SqliteQueue> {
    let options =
        SqliteQueueOptions { max_bytes, append_timeout: TIMEOUT, ..SqliteQueueOptions::default() };
    SqliteQueue::open(&DataDir::open(dir).unwrap(), options).unwrap()
}

fn fresh() -> (TempDir, Arc<SqliteQueue>) {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path(), 1 << 30);
    (dir, queue)
}

async fn close(queue: Arc<SqliteQueue>) {
    queue.close(Instant::now() + TIMEOUT).await;
}

fn batch(values: &[&[u8]]) -> RecordBatch {
    let mut batch = RecordBatch::default();
    for value in values {
        batch.push_encoded(b"key", value);
    }
    batch
}

async fn append(queue: &SqliteQueue, value: &[u8]) -> Result<(), AppendError> {
    queue.append(batch(&[value])).await.remove(0).map(drop)
}

/// Reads all records that are available now, with their offsets.
fn read(subscription: &mut dyn Subscription) -> Vec<(Offset, Vec<u8>)> {
    let (records, lost) = read_with_losses(subscription);
    assert_eq!(lost, 0);
    records
}

/// Reads all available records, and counts those reported as lost.
fn read_with_losses(subscription: &mut dyn Subscription) -> (Vec<(Offset, Vec<u8>)>, u64) {
    let (mut records, mut lost) = (Vec::new(), 0);
    loop {
        let before = records.len();
        let signal = subscription.poll(Duration::ZERO, &mut |record| {
            records.push((record.offset, record.value.unwrap_or_default().to_vec()));
            ControlFlow::Continue(())
        });
        match signal.unwrap() {
            Signal::Expired(_, records) => lost += records,
            Signal::None if records.len() == before => return (records, lost),
            _ => {}
        }
    }
}

async fn wait_until(condition: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting until {condition}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns bytes that do not compress.
fn random_bytes(length: usize) -> Vec<u8> {
    std::iter::repeat_with(|| fastrand::u8(..)).take(length).collect()
}

fn file_bytes(dir: &Path, name: &str) -> u64 {
    std::fs::metadata(dir.join(name)).map_or(0, |file| file.len())
}

/// Opens a second connection to the queue's file.
fn file(dir: &Path) -> Connection {
    Connection::open(dir.join("queue.db")).unwrap()
}

#[tokio::test]
async fn full_queue_refuses_records_until_it_is_drained() {
    const MAX: u64 = 4 << 20;
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path(), MAX);
    let mut subscription = queue.subscribe().unwrap();
    let value = random_bytes(10_000);
    for _ in 0..3 {
        let mut accepted = 0;
        let refusal = loop {
            match append(&queue, &value).await {
                Ok(()) => accepted += 1,
                Err(refusal) => break refusal,
            }
        };
        assert!(matches!(&refusal, AppendError::Full(_)), "{refusal}");
        assert!(matches!(queue.refusal(), Some(AppendError::Full(_))));
        assert!((300..=420).contains(&accepted), "{accepted} records of 10 kB");
        assert!(matches!(queue.health().state, PartState::Down(reason) if reason.contains("full")));

        let records = read(&mut *subscription);
        assert_eq!(records.len(), accepted);
        subscription.commit(&[(0, records.last().unwrap().0 + 1)]).unwrap();
        wait_until("the queue is up again", || queue.health().state.is_up()).await;
    }
    assert!(file_bytes(dir.path(), "queue.db") <= MAX + (1 << 20));
}

/// Fills the queue and commits slowly, so that storing lags by seconds.
async fn fall_behind(queue: &SqliteQueue) -> Box<dyn Subscription> {
    let mut subscription = queue.subscribe().unwrap();
    for _ in 0..7 {
        for result in queue.append(batch(&vec![&b"x"[..]; 10_000])).await {
            result.unwrap();
        }
    }
    subscription.commit(&[(0, 2)]).unwrap();
    // The store's rate appears to be at most 4,000 records per second.
    tokio::time::sleep(Duration::from_millis(250)).await;
    subscription.commit(&[(0, 1_002)]).unwrap();
    subscription
}

#[tokio::test]
async fn records_are_refused_while_storing_is_seconds_behind() {
    let (_dir, queue) = fresh();
    let mut subscription = fall_behind(&queue).await;
    let refusal = append(&queue, b"x").await.unwrap_err();
    assert!(matches!(refusal, AppendError::Lagging(_)), "{refusal}");
    assert!(matches!(queue.refusal(), Some(AppendError::Lagging(_))));
    assert!(queue.health().state.is_up());

    subscription.commit(&[(0, 60_001)]).unwrap();
    append(&queue, b"x").await.unwrap();
}

#[tokio::test]
async fn fallback_accepts_records_however_long_it_takes_to_drain() {
    let dir = tempfile::tempdir().unwrap();
    let options = SqliteQueueOptions { is_fallback: true, ..SqliteQueueOptions::default() };
    let queue = SqliteQueue::open(&DataDir::open(dir.path()).unwrap(), options).unwrap();
    let _subscription = fall_behind(&queue).await;
    append(&queue, b"x").await.unwrap();
}

#[tokio::test]
async fn files_stay_small_while_records_pass_through() {
    const MAX: u64 = 8 << 20;
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path(), MAX);
    let mut subscription = queue.subscribe().unwrap();
    let values = random_bytes(500 * 1_000);
    let values: Vec<&[u8]> = values.chunks(1_000).collect();
    // Ten times the queue's limit.
    for _ in 0..160 {
        for result in queue.append(batch(&values)).await {
            result.unwrap();
        }
        let records = read(&mut *subscription);
        assert_eq!(records.len(), 500);
        subscription.commit(&[(0, records.last().unwrap().0 + 1)]).unwrap();
    }
    assert_eq!(subscription.lag(), [(0, 0)]);
    let (file, log) = (file_bytes(dir.path(), "queue.db"), file_bytes(dir.path(), "queue.db-wal"));
    assert!(file < MAX / 2, "{file}");
    // A log that was larger is cut to exactly this size.
    assert!(log <= MAX / 2, "{log}");
}

#[tokio::test]
async fn offsets_continue_after_all_records_were_deleted() {
    let (dir, queue) = fresh();
    let mut subscription = queue.subscribe().unwrap();
    for value in [b"a", b"b", b"c"] {
        append(&queue, value).await.unwrap();
    }
    assert_eq!(read(&mut *subscription).last().unwrap().0, 3);
    subscription.commit(&[(0, 4)]).unwrap();
    drop(subscription);
    let rows = || {
        let count = "SELECT count(*) FROM chunks";
        file(dir.path()).query_row(count, [], |row| row.get::<_, i64>(0))
    };
    wait_until("the rows are deleted", || rows().unwrap() == 0).await;
    close(queue).await;

    let queue = open(dir.path(), 1 << 30);
    append(&queue, b"d").await.unwrap();
    let mut subscription = queue.subscribe().unwrap();
    assert_eq!(read(&mut *subscription), [(4, b"d".to_vec())]);
}

#[tokio::test]
async fn commit_beyond_the_end_does_not_skip_later_records() {
    let (_dir, queue) = fresh();
    append(&queue, b"a").await.unwrap();
    let mut subscription = queue.subscribe().unwrap();
    subscription.commit(&[(0, 1_000)]).unwrap();
    drop(subscription);
    append(&queue, b"b").await.unwrap();
    assert_eq!(read(&mut *queue.subscribe().unwrap()), [(2, b"b".to_vec())]);
}

#[tokio::test]
async fn second_subscription_is_refused_until_the_first_is_closed() {
    let (_dir, queue) = fresh();
    let first = queue.subscribe().unwrap();
    assert!(queue.subscribe().is_err());
    first.close();
    queue.subscribe().unwrap();
}

/// Each chunk here is one transaction, and one sync of the disk.
#[tokio::test]
async fn callers_that_append_repeatedly_share_transactions() {
    const CALLERS: u32 = 64;
    const TIMES: u32 = 20;
    let (dir, queue) = fresh();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move {
                for _ in 0..TIMES {
                    append(&queue, b"a").await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let (chunks, records): (u32, u32) = file(dir.path())
        .query_row("SELECT count(*), sum(records) FROM chunks", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(records, CALLERS * TIMES);
    assert!(chunks < records / 8, "{records} records took {chunks} transactions");
}

#[tokio::test]
async fn append_wakes_a_waiting_poll() {
    let (_dir, queue) = fresh();
    let mut subscription = queue.subscribe().unwrap();
    let waiting = std::thread::spawn(move || {
        let mut woken = None;
        while woken.is_none() {
            let polled = subscription.poll(TIMEOUT, &mut |_| {
                woken = Some(Instant::now());
                ControlFlow::Continue(())
            });
            polled.unwrap();
        }
        woken.unwrap()
    });
    // Gives the poll time to start waiting.
    tokio::time::sleep(Duration::from_millis(100)).await;
    append(&queue, b"a").await.unwrap();
    let appended = Instant::now();
    let woken = waiting.join().unwrap();
    assert!(woken.saturating_duration_since(appended) < TIMEOUT / 4);
}

/// Regression test: two commits between the statements that searched for the
/// next chunk made the reader skip the first of them.
#[test]
fn reader_at_the_end_skips_no_chunk_committed_meanwhile() {
    const CHUNKS: Offset = 20_000;

    let dir = tempfile::tempdir().unwrap();
    let writer = file(dir.path());
    // Without syncs, more commits happen during each search.
    writer.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF").unwrap();
    writer.execute_batch(rows::SCHEMA).unwrap();
    let reader = file(dir.path());
    let writing = std::thread::spawn(move || {
        let mut extent = rows::Extent::read(&writer).unwrap();
        let mut chunk = chunk::Chunk::default();
        for _ in 0..CHUNKS {
            let batches = [batch(&[b"x"])];
            let batches = batches.iter();
            extent.insert(&writer, &mut chunk, batches, u64::MAX, Timestamp::MIN).unwrap();
        }
    });
    let mut next_offset = 1;
    while next_offset <= CHUNKS {
        if let Some(chunk) = rows::chunk_at(&reader, next_offset).unwrap() {
            assert_eq!(chunk.first_offset, next_offset);
            next_offset += Offset::from(chunk.records);
        }
    }
    writing.join().unwrap();
}
