//! The batch source with a spool in a temporary directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::delivery::batch_source::spooling::PAUSE_AFTER_FAILURE;
use crate::model::loss_reason::LossReason;
use crate::spool::{SpoolOptions, SpoolSync};

const MAX_AGE: Duration = Duration::from_secs(3600);

fn open(dir: &Path) -> BatchSource {
    let sync = SpoolSync::Every(Duration::from_secs(1));
    let options =
        SpoolOptions { dir: dir.to_owned(), max_bytes: 1 << 20, sync, max_age: Some(MAX_AGE) };
    let (spool, recovered) = Spool::open(&options).unwrap();
    assert!(recovered.lost.is_empty(), "{recovered:?}");
    BatchSource::from_spool(spool, recovered.found, 0, 100, 1000)
}

/// Returns a source whose directory is within another one.
fn with_removable_directory() -> (TempDir, PathBuf, BatchSource) {
    let root = TempDir::new().unwrap();
    let dir = root.path().join("spool");
    let source = open(&dir);
    (root, dir, source)
}

fn batch(lines: &str) -> Batch {
    Batch::from_lines(lines.as_bytes().to_vec())
}

fn next_batch(source: &mut BatchSource, now: Instant) -> Option<Batch> {
    match source.next(0, now) {
        (Next::Batch(batch), _) => Some(batch),
        _ => None,
    }
}

/// Returns the lines that another client finds in the directory.
fn recover(dir: &Path) -> Vec<String> {
    let mut source = open(dir);
    let batches = std::iter::from_fn(|| {
        let batch = next_batch(&mut source, Instant::now())?;
        source.settle(batch.segment, batch.len() as u64);
        Some(batch)
    });
    batches.map(|batch| String::from_utf8(batch.bytes().to_vec()).unwrap()).collect()
}

fn spool_file(dir: &Path) -> PathBuf {
    let mut paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.find(|path| path.extension().is_some()).unwrap()
}

/// Replaces the directory by a file, so that the spool cannot be written.
fn block(dir: &Path) {
    fs::remove_dir_all(dir).unwrap();
    fs::write(dir, "").unwrap();
}

#[test]
fn a_held_batch_expires_without_an_attempt() {
    let dir = TempDir::new().unwrap();
    let mut source = open(dir.path());
    let now = Instant::now();
    assert!(source.spool(batch("1\n2\n"), now).is_none());
    let cannot_send = |_: Instant| None;
    assert!(source.maintain(now).is_empty());
    source.maintain(now + Duration::from_secs(2));
    assert_eq!(source.wake_at(None, 0, now, cannot_send), Some(now + MAX_AGE));
    let effects = source.maintain(now + MAX_AGE);
    assert!(matches!(&effects[..], [Effect::Expired(batch)] if batch.len() == 2), "{effects:?}");
    assert!(next_batch(&mut source, now + MAX_AGE).is_none());
    source.close(Vec::new(), now);
    assert!(recover(dir.path()).is_empty());
}

#[test]
fn an_expired_batch_is_not_handed_out() {
    let dir = TempDir::new().unwrap();
    let mut source = open(dir.path());
    let now = Instant::now();
    source.spool(batch("1\n"), now);
    let (next, effects) = source.next(0, now + MAX_AGE);
    assert!(matches!(next, Next::Nothing));
    assert!(matches!(&effects[..], [Effect::Expired(_)]), "{effects:?}");
}

#[test]
fn a_batch_that_could_not_be_written_is_written_after_the_pause() {
    let (_root, dir, mut source) = with_removable_directory();
    let now = Instant::now();
    source.spool(batch("1\n"), now);
    block(&dir);
    let effect = source.spool(batch("2\n"), now);
    assert!(matches!(effect, Some(Effect::SpoolFailed(_))), "{effect:?}");
    let later = now + PAUSE_AFTER_FAILURE;
    let effects = source.maintain(later);
    assert!(matches!(&effects[..], [Effect::SpoolFailed(_)]), "still blocked: {effects:?}");
    fs::remove_file(&dir).unwrap();
    let later = later + PAUSE_AFTER_FAILURE;
    assert!(source.maintain(later - Duration::from_millis(1)).is_empty());
    assert!(source.is_spool_failing() && !source.accepts_batches());
    assert!(source.maintain(later).is_empty());
    assert!(!source.is_spool_failing() && source.accepts_batches());
    assert!(source.spool(batch("3\n"), later).is_none());
    let first = next_batch(&mut source, later).unwrap();
    assert_eq!(first.bytes(), b"1\n");
    let remaining = source.close(vec![first], later);
    assert_eq!((remaining.spooled.len(), remaining.unspooled.len()), (3, 0));
    assert_eq!(recover(&dir), ["1\n", "2\n", "3\n"]);
}

#[test]
fn the_problem_remains_until_a_batch_is_written() {
    let (_root, dir, mut source) = with_removable_directory();
    let now = Instant::now();
    block(&dir);
    source.spool(batch("1\n"), now);
    // It is sent from memory.
    assert!(next_batch(&mut source, now).unwrap().segment.is_none());
    fs::remove_file(&dir).unwrap();
    let later = now + PAUSE_AFTER_FAILURE;
    source.maintain(later);
    assert!(source.accepts_batches() && source.is_spool_failing());
    source.spool(batch("2\n"), later);
    assert!(!source.is_spool_failing());
}

#[test]
fn batches_in_memory_are_spooled_again_when_the_client_ends() {
    let (_root, dir, mut source) = with_removable_directory();
    let now = Instant::now();
    for n in 0..3 {
        source.spool(batch(&format!("{n}\n")), now);
    }
    let handed_out = next_batch(&mut source, now).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    let effects = source.prepare_to_close(now);
    assert!(matches!(&effects[..], [Effect::SpoolFailed(_)]), "{effects:?}");
    let remaining = source.close(vec![handed_out], now);
    assert_eq!((remaining.spooled.len(), remaining.unspooled.len()), (3, 0));
    let mut recovered = recover(&dir);
    recovered.sort_unstable();
    assert_eq!(recovered, ["0\n", "1\n", "2\n"]);
}

#[test]
fn events_that_were_only_in_deleted_files_are_lost_when_the_client_ends() {
    let (_root, dir, mut source) = with_removable_directory();
    let now = Instant::now();
    let line = format!("{}\n", "x".repeat(150));
    assert!(source.spool(batch(&line), now).is_none());
    for _ in 0..2 {
        let effect = source.spool(batch(&line), now);
        assert!(matches!(effect, Some(Effect::Spilled(_))), "{effect:?}");
    }
    fs::remove_dir_all(&dir).unwrap();
    source.prepare_to_close(now);
    let remaining = source.close(Vec::new(), now);
    assert_eq!((remaining.spooled.len(), remaining.unspooled.len()), (1, 0));
    let Effect::Unreadable { events, reason, .. } = &remaining.effects[0] else { panic!() };
    assert_eq!((*events, *reason, remaining.effects.len()), (2, LossReason::Damaged, 1));
    assert_eq!(recover(&dir), [line]);
}

#[test]
fn batches_that_cannot_be_spooled_are_not_pending_when_the_client_ends() {
    let (_root, dir, mut source) = with_removable_directory();
    let now = Instant::now();
    source.spool(batch("1\n"), now);
    block(&dir);
    source.prepare_to_close(now);
    let remaining = source.close(Vec::new(), now);
    assert_eq!((remaining.spooled.len(), remaining.unspooled.len()), (0, 1));
}

#[test]
fn a_file_that_was_exchanged_settles_exactly_the_pending_events() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for (dir, records) in [(&dir, ["1\n2\n3\n", "4\n"]), (&other, ["5\n", "6\n"])] {
        let mut source = open(dir.path());
        for lines in records {
            source.spool(batch(lines), Instant::now());
        }
        source.close(Vec::new(), Instant::now());
    }
    let mut source = open(dir.path());
    fs::copy(spool_file(other.path()), spool_file(dir.path())).unwrap();
    let now = Instant::now();
    let first = next_batch(&mut source, now).unwrap();
    let (Next::Batch(second), effects) = source.next(0, now) else { panic!() };
    let unreadable: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Unreadable { events, .. } => Some(*events),
            _ => None,
        })
        .collect();
    assert_eq!((first.len(), second.len(), unreadable), (1, 1, vec![2]));
    for batch in [first, second] {
        source.settle(batch.segment, batch.len() as u64);
    }
    assert!(next_batch(&mut source, now).is_none());
    assert!(source.close(Vec::new(), now).spooled_acks.is_empty());
    assert!(recover(dir.path()).is_empty());
}
