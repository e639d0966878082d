//! Files that cannot be written, and killed processes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;

/// Takes the file's write lock, which blocks the writer as a hung disk would.
fn lock(dir: &Path) -> Connection {
    let connection = file(dir);
    connection.busy_timeout(TIMEOUT).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

#[tokio::test]
async fn failed_file_is_retried_until_it_works() {
    let (dir, queue) = fresh();
    append(&queue, b"before").await.unwrap();
    let locked = lock(dir.path());
    let refusal = append(&queue, b"meanwhile").await.unwrap_err();
    assert!(matches!(&refusal, AppendError::Unavailable(_)), "{refusal}");
    assert!(matches!(queue.health().state, PartState::Down(_)));

    drop(locked);
    // Nothing is appended, because a server that is not ready receives no requests.
    wait_until("the queue is up again", || queue.health().state.is_up()).await;
    append(&queue, b"after").await.unwrap();
    let records = read(&mut *queue.subscribe().unwrap());
    assert_eq!(records, [(1, b"before".to_vec()), (2, b"after".to_vec())]);
}

#[tokio::test]
async fn append_that_times_out_is_withdrawn() {
    let dir = tempfile::tempdir().unwrap();
    let options = SqliteQueueOptions {
        append_timeout: Duration::from_millis(200),
        ..SqliteQueueOptions::default()
    };
    let queue = SqliteQueue::open(&DataDir::open(dir.path()).unwrap(), options).unwrap();
    let locked = lock(dir.path());
    // The first blocks the writer; the second waits behind it.
    let (first, second) = tokio::join!(append(&queue, b"first"), async {
        wait_until("the writer has taken the first append", || queue.submitter.is_empty()).await;
        append(&queue, b"second").await
    });
    assert!(matches!(first, Err(AppendError::Unavailable(_))));
    assert!(matches!(second, Err(AppendError::Unavailable(_))));
    drop(locked);
    let deadline = Instant::now() + TIMEOUT;
    while append(&queue, b"third").await.is_err() {
        assert!(Instant::now() < deadline);
    }
    let values: Vec<_> =
        read(&mut *queue.subscribe().unwrap()).into_iter().map(|(_, value)| value).collect();
    assert!(values.iter().all(|value| value == b"third"), "{values:?}");
}

/// Names the child's data directory.
const CHILD_DIR: &str = "EYEGO_TEST_CHILD_DIR";

#[tokio::test]
#[ignore = "run as a child process by acknowledged_records_survive_a_kill"]
async fn child_appends_until_it_is_killed() {
    let dir = std::env::var_os(CHILD_DIR).unwrap();
    let queue = open(Path::new(&dir), 1 << 30);
    let mut out = std::io::stdout();
    for n in 0.. {
        append(&queue, format!("{n}").as_bytes()).await.unwrap();
        writeln!(out, "acknowledged {n}").unwrap();
    }
}

#[tokio::test]
async fn acknowledged_records_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg(concat!(
            "infrastructure::queue::sqlite::tests::failure::",
            "child_appends_until_it_is_killed"
        ))
        .env(CHILD_DIR, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = 0;
    while acknowledged < 200 {
        if lines.next().unwrap().unwrap().contains("acknowledged") {
            acknowledged += 1;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged += lines.filter(|line| line.as_ref().unwrap().contains("acknowledged")).count();

    let queue = open(dir.path(), 1 << 30);
    let records = read(&mut *queue.subscribe().unwrap());
    assert!(records.len() >= acknowledged);
    for (n, (offset, value)) in (0..).zip(&records) {
        assert_eq!((*offset, value.as_slice()), (n + 1, n.to_string().as_bytes()));
    }
}
