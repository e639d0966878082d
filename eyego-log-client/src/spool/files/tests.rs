//! The spool compared with a simple model, in a temporary directory.

use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::spool::record::Extent;

fn options(dir: &Path) -> SpoolOptions {
    let sync = SpoolSync::Every(Duration::from_secs(1));
    SpoolOptions { dir: dir.to_owned(), max_bytes: 4096, sync }
}

fn open(dir: &Path) -> (Spool, Recovered) {
    Spool::open(options(dir)).unwrap()
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
            Unread::Lines { segment, lines } => read.push((segment, lines)),
            Unread::Lost { segment, lost, .. } => {
                total_lost.add(lost);
                spool.settle(segment, lost.events);
            }
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
    let error = Spool::open(options(dir.path())).unwrap_err();
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
        let error = Spool::open(options(path)).unwrap_err();
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
    let error = Spool::open(options(read_only)).unwrap_err();
    assert_eq!(error.option(), "spool_dir");
}

#[test]
fn a_file_of_a_later_version_is_a_config_error() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("00000000000000000007.spool");
    fs::write(&path, b"eyegosp2and so on").unwrap();
    let error = Spool::open(options(dir.path())).unwrap_err();
    assert!(error.to_string().contains("later version"), "{error}");
    assert!(path.exists());
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
                    Some(Unread::Lines { segment, lines }) => {
                        prop_assert_eq!(Some(&lines), unread.front());
                        unread.pop_front();
                        handed_out.push((segment, lines));
                    }
                    Some(Unread::Lost { message, .. }) => panic!("{message}"),
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
                    prop_assert_eq!(recovered.damaged, 0);
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

    /// A damaged byte costs its record, or also the records after it in the same
    /// file, and the loss is counted.
    #[test]
    fn damage_is_counted(
        events in prop::collection::vec(1_usize..5, 1..10),
        at: prop::sample::Index,
        flip in 1_u8..,
    ) {
        let dir = TempDir::new().unwrap();
        let (mut spool, _) = open(dir.path());
        let records: Vec<_> = events.iter().enumerate().map(|(n, events)| record(n, *events)).collect();
        for lines in &records {
            append(&mut spool, lines, false);
        }
        drop(spool);
        let path = files(dir.path()).remove(0);
        let mut bytes = fs::read(&path).unwrap();
        let at = MAGIC.len() + at.index(bytes.len() - MAGIC.len());
        bytes[at] ^= flip;
        fs::write(&path, &bytes).unwrap();

        let (mut spool, recovered) = open(dir.path());
        let (read, lost) = read_all(&mut spool);
        prop_assert!(recovered.damaged + lost.events > 0);
        let read: Vec<_> = read.into_iter().map(|(_, lines)| lines).collect();
        let mut end = MAGIC.len();
        let before = records.iter().take_while(|lines| {
            end += HEADER_BYTES + lines.len();
            end <= at
        });
        let before = before.count();
        prop_assert_eq!(&read[..before], &records[..before]);
        prop_assert!(!read.contains(&records[before]));
        prop_assert!(read.iter().all(|lines| records.contains(lines)));
    }
}
