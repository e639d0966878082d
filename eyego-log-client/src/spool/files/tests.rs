//! The spool compared with a simple model, in a temporary directory.

use std::time::Duration;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn options(dir: &Path) -> SpoolOptions {
    let sync = SpoolSync::Every(Duration::from_secs(1));
    SpoolOptions { dir: dir.to_owned(), max_bytes: 4096, sync, max_age: None }
}

/// Returns why the directory cannot be used.
fn config_error(dir: &Path) -> ConfigError {
    match Spool::open(&options(dir)) {
        Err(SetupError::Config(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn open(dir: &Path) -> (Spool, Recovered) {
    Spool::open(&options(dir)).unwrap()
}

/// Returns the lines of record `n`, with this many events.
fn record(n: usize, events: usize) -> Vec<u8> {
    (0..events).flat_map(|event| format!("{n}.{event}\n").into_bytes()).collect()
}

fn append(spool: &mut Spool, lines: &[u8], is_held: bool) -> u64 {
    let events = lines.iter().filter(|byte| **byte == b'\n').count();
    spool.append(lines, events, is_held, Instant::now()).unwrap()
}

/// Reads all unread records. Returns their file numbers and lines, and what was
/// lost.
fn read_all(spool: &mut Spool) -> (Vec<(u64, Vec<u8>)>, Extent) {
    let (mut read, mut total_lost) = (Vec::new(), Extent::default());
    while let Some(unread) = spool.read() {
        match unread {
            Unread::Lines { segment, lines, .. } => read.push((segment, lines)),
            Unread::Lost { lost, .. } => total_lost.add(lost),
            Unread::Unavailable { message } => panic!("{message}"),
        }
    }
    (read, total_lost)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    spool_files(dir).unwrap().into_iter().map(|(_, path)| path).collect()
}

#[test]
fn settled_events_leave_no_file() {
    let dir = TempDir::new().unwrap();
    let (mut spool, _) = open(dir.path());
    for round in 0..100 {
        let lines = record(round, 20);
        let segment = append(&mut spool, &lines, round % 2 == 0);
        let (read, _) = read_all(&mut spool);
        assert_eq!(read.len(), round % 2);
        spool.settle(segment, 20);
        assert_eq!(spool.bytes(), MAGIC.len() as u64);
    }
    drop(spool);
    assert!(files(dir.path()).is_empty());
}

#[test]
fn a_directory_in_use_is_a_config_error() {
    let dir = TempDir::new().unwrap();
    let (first, _) = open(dir.path());
    let error = config_error(dir.path());
    assert_eq!(error.option(), "spool_dir");
    assert!(error.to_string().contains("in use by another client"), "{error}");
    drop(first);
    open(dir.path());
}

#[test]
fn an_unusable_directory_is_a_config_error() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [&file, &file.join("below")] {
        let error = config_error(path);
        assert_eq!(error.option(), "spool_dir");
        assert!(error.to_string().contains("cannot be used"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_read_only_directory_is_a_config_error() {
    use std::os::unix::fs::PermissionsExt;

    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    // Permissions do not apply to root, which cannot write to /proc either.
    let is_root = fs::write(dir.path().join("probe"), "").is_ok();
    let read_only = if is_root { Path::new("/proc/self/fdinfo") } else { dir.path() };
    let error = config_error(read_only);
    assert_eq!(error.option(), "spool_dir");
}

#[test]
fn an_unreadable_file_is_quarantined() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("00000000000000000007.spool");
    fs::write(&path, b"eyegosp2\nand\nso on\n").unwrap();
    fs::create_dir(dir.path().join("00000000000000000008.spool")).unwrap();
    let (_, recovered) = open(dir.path());
    let lost: Vec<_> = recovered.lost.iter().map(|lost| (lost.reason, lost.events)).collect();
    assert_eq!(lost, [(LossReason::Damaged, 3), (LossReason::Damaged, 1)]);
    assert!(recovered.lost[0].message.contains("it is kept as"), "{recovered:?}");
    assert!(!path.exists() && path.with_extension("quarantined").exists());
}

/// Writes a file of three records, the second of which has a damaged header. Returns its path.
fn damaged_file(dir: &Path) -> PathBuf {
    let (mut spool, _) = open(dir);
    for lines in [b"first\n".as_slice(), b"second\n", b"third\n"] {
        append(&mut spool, lines, false);
    }
    drop(spool);
    let path = files(dir).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let second = MAGIC.len() + HEADER_BYTES + b"first\n".len();
    bytes[second..second + HEADER_BYTES].fill(0xff);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn the_undamaged_records_of_a_file_are_read_even_if_it_cannot_be_copied() {
    for has_room in [true, false] {
        let dir = TempDir::new().unwrap();
        let path = damaged_file(dir.path());
        if !has_room {
            // The copy cannot be created, as on a full disk.
            fs::create_dir(path.with_extension("copy")).unwrap();
        }
        let (mut spool, recovered) = open(dir.path());
        assert_eq!(recovered.lost.len(), 1, "{recovered:?}");
        assert_eq!((recovered.lost[0].events, recovered.found.events), (1, 2));
        let is_kept = path.with_extension("quarantined").exists();
        assert_eq!(is_kept, has_room, "{recovered:?}");
        let (read, lost) = read_all(&mut spool);
        let read: Vec<_> = read.into_iter().map(|(_, lines)| lines).collect();
        assert_eq!((read, lost.events), (vec![b"first\n".to_vec(), b"third\n".to_vec()], 0));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_kept() {
    let dir = TempDir::new().unwrap();
    let (mut spool, _) = open(dir.path());
    append(&mut spool, b"first\n", false);
    append(&mut spool, b"second\n", false);
    let path = files(dir.path()).remove(0);
    // Reading a directory fails, and not for want of descriptors or memory.
    fs::rename(&path, dir.path().join("moved")).unwrap();
    fs::create_dir(&path).unwrap();
    let (read, lost) = read_all(&mut spool);
    assert_eq!((read.len(), lost.events), (0, 2));
    assert!(!path.exists() && path.with_extension("quarantined").exists());
}

#[test]
fn only_the_latest_quarantined_files_are_kept() {
    let dir = TempDir::new().unwrap();
    for n in 0..20 {
        fs::write(dir.path().join(format!("{n:020}.spool")), "damaged").unwrap();
    }
    let (spool, recovered) = open(dir.path());
    assert_eq!(recovered.lost.len(), 20);
    drop(spool);
    let quarantined = fs::read_dir(dir.path()).unwrap().count() - 1;
    assert_eq!(quarantined, 8, "apart from the lock file");
}

#[test]
fn a_deleted_directory_is_noticed_and_created_again() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("spool");
    let (mut spool, _) = open(&path);
    append(&mut spool, &record(0, 3), false);
    fs::remove_dir_all(&path).unwrap();
    let error = spool.sync_if_due(Instant::now()).unwrap_err();
    assert_eq!(error.to_string(), "its files were deleted, and 3 events that were only there");
    let (read, lost) = read_all(&mut spool);
    assert_eq!((read.len(), lost.events), (0, 3));
    append(&mut spool, &record(1, 4), false);
    assert!(Spool::open(&options(&path)).is_err(), "the new directory is locked");
    assert_eq!(read_all(&mut spool).0.len(), 1);
}

#[test]
fn records_that_are_too_old_expire() {
    let dir = TempDir::new().unwrap();
    let (mut spool, _) = open(dir.path());
    append(&mut spool, &record(0, 3), false);
    append(&mut spool, &record(1, 2), false);
    drop(spool);
    let mut options = options(dir.path());
    options.max_age = Some(Duration::from_secs(3600));
    let (mut spool, _) = Spool::open(&options).unwrap();
    let Some(Unread::Lines { expires_at, .. }) = spool.read() else { panic!() };
    assert!(expires_at.unwrap() > Instant::now() + Duration::from_secs(3500));
    drop(spool);
    let file = File::options().write(true).open(&files(dir.path())[0]).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3601)).unwrap();
    let (mut spool, _) = Spool::open(&options).unwrap();
    let Some(Unread::Lost { lost, reason, .. }) = spool.read() else { panic!() };
    assert_eq!((lost, reason), (Extent { records: 2, events: 5 }, LossReason::Expired));
    assert!(spool.read().is_none());
}

#[cfg(unix)]
#[test]
fn only_this_user_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;

    let dir = TempDir::new().unwrap();
    let path = dir.path().join("spool");
    let _spool = open(&path);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&files(&path)[0])), (0o700, 0o600));
}

#[test]
fn events_of_a_deleted_file_are_counted() {
    let dir = TempDir::new().unwrap();
    let (mut spool, _) = open(dir.path());
    append(&mut spool, &record(0, 3), false);
    append(&mut spool, &record(1, 4), false);
    files(dir.path()).iter().for_each(|path| fs::remove_file(path).unwrap());
    let (read, lost) = read_all(&mut spool);
    assert!(read.is_empty());
    assert_eq!(lost, Extent { records: 2, events: 7 });
    assert!(!spool.has_unread());
}

/// A line break is destroyed, or one is created. The header has the number of
/// events.
#[test]
fn a_damaged_line_break_does_not_change_the_number_of_events() {
    for (at, bit) in [(3, 0x01), (2, 0x40)] {
        let dir = TempDir::new().unwrap();
        let (mut spool, _) = open(dir.path());
        append(&mut spool, b"11J\n22J\n33J\n", false);
        append(&mut spool, b"44J\n", false);
        drop(spool);
        let path = files(dir.path()).remove(0);
        let mut bytes = fs::read(&path).unwrap();
        bytes[MAGIC.len() + HEADER_BYTES + at] ^= bit;
        fs::write(&path, &bytes).unwrap();
        for _ in 0..2 {
            // The process that reads the record may die before it settles the others.
            let (mut spool, recovered) = open(dir.path());
            assert_eq!(recovered.found, Extent { records: 2, events: 4 });
            let Some(Unread::Lost { lost, message, .. }) = spool.read() else { panic!() };
            assert_eq!(lost, Extent::record(3));
            assert!(message.contains("it is kept as"), "{message}");
        }
        let (mut spool, _) = open(dir.path());
        let (read, _) = read_all(&mut spool);
        assert_eq!(read.len(), 1);
        spool.settle(read[0].0, 1);
        assert!(!path.exists());
    }
}

#[test]
fn a_file_that_was_moved_away_counts_as_deleted() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("spool");
    let (mut spool, _) = open(&path);
    let number = append(&mut spool, &record(0, 3), false);
    assert!(spool.has_file(number));
    fs::rename(&path, dir.path().join("moved")).unwrap();
    spool.check_writer().unwrap_err();
    assert!(!spool.has_file(number));
    let (mut empty, _) = open(&dir.path().join("empty"));
    fs::remove_dir_all(dir.path().join("empty")).unwrap();
    assert_eq!(empty.check_writer().unwrap_err().to_string(), "its files were deleted");
    assert_eq!(spool.unread(), [(Extent { records: 1, events: 3 }, false)]);
    spool.prepare_to_write().unwrap();
    assert!(spool.has_file(number + 1) && files(&path).len() == 1);
}

#[derive(Debug, Clone)]
enum Action {
    Append { events: usize, is_held: bool },
    Read,
    Settle(prop::sample::Index),
    Restart,
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (1_usize..40, any::<bool>()).prop_map(|(events, is_held)| Action::Append { events, is_held }),
        4 => Just(Action::Read),
        6 => any::<prop::sample::Index>().prop_map(Action::Settle),
        1 => Just(Action::Restart),
    ]
}

proptest! {
    /// Whenever the process restarts, all unsettled events are read again, in
    /// order, and the spool never exceeds its maximum size.
    #[test]
    fn unsettled_events_survive_a_restart(actions in prop::collection::vec(any_action(), 0..60)) {
        let dir = TempDir::new().unwrap();
        let (mut spool, _) = open(dir.path());
        let mut next = 0;
        let mut unread: VecDeque<Vec<u8>> = VecDeque::new();
        let mut handed_out: Vec<(u64, Vec<u8>)> = Vec::new();
        for action in actions {
            match action {
                Action::Append { events, is_held } => {
                    let lines = record(next, events);
                    next += 1;
                    if !spool.has_room(lines.len()) {
                        continue;
                    }
                    let is_held = is_held && unread.is_empty();
                    let segment = append(&mut spool, &lines, is_held);
                    if is_held {
                        handed_out.push((segment, lines));
                    } else {
                        unread.push_back(lines);
                    }
                }
                Action::Read => match spool.read() {
                    Some(Unread::Lines { segment, lines, .. }) => {
                        prop_assert_eq!(Some(&lines), unread.front());
                        unread.pop_front();
                        handed_out.push((segment, lines));
                    }
                    Some(Unread::Lost { message, .. } | Unread::Unavailable { message }) => {
                        panic!("{message}")
                    }
                    None => prop_assert!(unread.is_empty()),
                },
                Action::Settle(index) => if !handed_out.is_empty() {
                    let (segment, lines) = handed_out.swap_remove(index.index(handed_out.len()));
                    let events = lines.iter().filter(|byte| **byte == b'\n').count();
                    spool.settle(segment, events as u64);
                },
                Action::Restart => {
                    drop(spool);
                    let recovered;
                    (spool, recovered) = open(dir.path());
                    prop_assert!(recovered.lost.is_empty());
                    let (read, lost) = read_all(&mut spool);
                    prop_assert_eq!(lost, Extent::default());
                    prop_assert_eq!(read.len() as u64, recovered.found.records);
                    let number = |lines: &[u8]| -> usize {
                        let text = std::str::from_utf8(lines).unwrap();
                        text.split('.').next().unwrap().parse().unwrap()
                    };
                    prop_assert!(read.is_sorted_by_key(|(_, lines)| number(lines)));
                    let unsettled = unread.iter().chain(handed_out.iter().map(|(_, lines)| lines));
                    for lines in unsettled {
                        prop_assert!(read.iter().any(|(_, found)| found == lines), "{lines:?}");
                    }
                    unread.clear();
                    handed_out = read;
                }
            }
            prop_assert!(spool.bytes() <= 4096 + MAGIC.len() as u64);
            prop_assert_eq!(spool.has_unread(), !unread.is_empty());
            let files = files(dir.path());
            let on_disk: u64 = files.iter().map(|path| path.metadata().unwrap().len()).sum();
            prop_assert_eq!(spool.bytes(), on_disk);
        }
    }

    /// A flipped bit anywhere costs at most the record that contains it, and a
    /// file that was cut off anywhere costs only what is missing. Both are
    /// counted.
    #[test]
    fn damage_is_limited_and_counted(
        events in prop::collection::vec(1_usize..5, 1..10),
        at: prop::sample::Index,
        bit in prop::option::of(0_u8..8),
        is_open: bool,
    ) {
        let dir = TempDir::new().unwrap();
        let (mut spool, _) = open(dir.path());
        let records: Vec<_> = events.iter().enumerate().map(|(n, events)| record(n, *events)).collect();
        for lines in &records {
            append(&mut spool, lines, false);
        }
        let path = files(dir.path()).remove(0);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        match bit {
            Some(bit) => bytes[at] ^= 1 << bit,
            None => bytes.truncate(at),
        }
        fs::write(&path, &bytes).unwrap();
        let mut recovered = Recovered::default();
        if !is_open {
            drop(spool);
            (spool, recovered) = open(dir.path());
        }
        let (read, lost) = read_all(&mut spool);
        let read: Vec<_> = read.into_iter().map(|(_, lines)| lines).collect();
        let mut end = MAGIC.len();
        let mut ends = Vec::new();
        for lines in &records {
            ends.push((end + HEADER_BYTES, end + HEADER_BYTES + lines.len()));
            end += HEADER_BYTES + lines.len();
        }
        let is_untouched = |&(start, end): &(usize, usize)| match bit {
            Some(_) => !(start..end).contains(&at),
            None => end <= at,
        };
        let untouched: Vec<_> = records.iter().zip(&ends).filter(|(_, ends)| is_untouched(ends)).map(|(lines, _)| lines).collect();
        prop_assert!(untouched.iter().all(|lines| read.contains(lines)), "{read:?}");
        let is_intact = |lines: &Vec<u8>| records.contains(lines);
        prop_assert!(read.iter().all(is_intact));
        if bit.is_some() || is_open {
            let counted = lost.events + recovered.lost.iter().map(|lost| lost.events).sum::<u64>();
            let missing = records.iter().filter(|lines| !read.contains(lines));
            let missing = missing.flatten().filter(|byte| **byte == b'\n').count() as u64;
            // The header has the number of events, also if a line break is damaged.
            prop_assert_eq!(counted, missing);
        }
    }
}
