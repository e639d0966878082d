//! Files and directories of the spool that are damaged, deleted or blocked.

use eyego_log_client::{Loss, Overflow};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_record_loses_only_its_incomplete_event() {
    let dir = TempDir::new().unwrap();
    let file = leave_ten_records(dir.path()).await;
    let length = file.metadata().unwrap().len();
    fs::File::options().write(true).open(&file).unwrap().set_len(length - 7).unwrap();

    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let reported = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reported);
    let hook = move |loss: &Loss<'_>| {
        assert_eq!((loss.reason, loss.events().count()), (LossReason::Interrupted, 0));
        counter.fetch_add(loss.count(), Ordering::SeqCst);
    };
    let client = spooling(&server.server.uri(), dir.path()).on_loss(hook).build().unwrap();
    assert!(client.flush().await.is_settled());
    let stats = client.stats();
    assert_eq!((stats.recovered, stats.delivered), (100, 99), "{stats:?}");
    assert_eq!(stats.lost.get(LossReason::Interrupted), 1, "the event that was cut off");
    eventually("the loss is reported", || reported.load(Ordering::SeqCst) == 1);
    assert!(
        stats.is_balanced() && stats.last_problem.unwrap().message.contains("while it was writing")
    );
}

/// The files are deleted while the client runs. Events that were only in them
/// are counted as lost, and their `send` fails.
#[tokio::test(flavor = "multi_thread")]
async fn events_in_deleted_files_are_counted() {
    let dir = TempDir::new().unwrap();
    let (server, is_up) = server_that_is_down().await;
    let client = spooling(&server.server.uri(), dir.path())
        .max_event_bytes(1024)
        .max_batch_bytes(1024)
        .max_buffer_bytes(8192)
        // More requests in flight would keep more events in memory.
        .max_in_flight(1)
        .spool_max_bytes(64 << 10)
        .overflow(Overflow::Block(TIMEOUT))
        .build()
        .unwrap();
    for n in 0..100 {
        client.log(event(n)).unwrap();
    }
    // Unlike `log`, `send` does not block.
    eventually("there is room", || client.stats().pending_bytes < 4096);
    let delivery = client.send(event(100));
    eventually("all events are on disk", || events_on_disk(dir.path()) == 101);
    files(dir.path()).iter().for_each(|file| fs::remove_file(file).unwrap());
    is_up.store(true, Ordering::SeqCst);
    let result = delivery.await;
    assert!(
        matches!(result, Err(SendError::Lost { reason: LossReason::Damaged, .. })),
        "{result:?}"
    );
    let report = client.flush_within(TIMEOUT).await;
    assert!(report.is_settled() && report.stats.is_balanced(), "{report:?}");
    assert!(report.stats.lost.get(LossReason::Damaged) > 50, "{report:?}");
    client.send(event(101)).await.unwrap();
}

/// The directory is deleted while the server is down.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_directory_is_reported_counted_and_created_again() {
    let root = TempDir::new().unwrap();
    let dir = root.path().join("spool");
    let (server, is_up) = server_that_is_down().await;
    let reported = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reported);
    let hook = move |problem: &str| {
        counter.fetch_add(usize::from(problem.contains("files were deleted")), Ordering::SeqCst);
    };
    let client = spooling(&server.server.uri(), &dir)
        .max_event_bytes(1024)
        .max_batch_bytes(1024)
        .max_buffer_bytes(8192)
        .spool_max_bytes(64 << 10)
        .overflow(Overflow::Block(TIMEOUT))
        .on_problem(hook)
        .build()
        .unwrap();
    for n in 0..100 {
        client.log(event(n)).unwrap();
    }
    eventually("all events are on disk", || events_on_disk(&dir) == 100);
    fs::remove_dir_all(&dir).unwrap();
    eventually("it is reported", || reported.load(Ordering::SeqCst) == 1);
    is_up.store(true, Ordering::SeqCst);
    let report = client.flush_within(TIMEOUT).await;
    assert!(report.is_settled() && report.stats.is_balanced(), "{report:?}");
    assert!(report.stats.lost.get(LossReason::Damaged) > 50, "{report:?}");
    is_up.store(false, Ordering::SeqCst);
    eventually("the directory is used again", || {
        let _ = client.log(event(100));
        dir.exists() && events_on_disk(&dir) > 0
    });
}

/// The server is down, and the directory is deleted shortly before the shutdown.
#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_spools_what_is_in_memory_although_the_directory_was_deleted() {
    let root = TempDir::new().unwrap();
    let dir = root.path().join("spool");
    let client = spooling(UNREACHABLE, &dir).max_batch_events(10).build().unwrap();
    for n in 0..400 {
        client.log(event(n)).unwrap();
    }
    eventually("all events are on disk", || events_on_disk(&dir) == 400);
    fs::remove_dir_all(&dir).unwrap();
    let report = client.shutdown_within(Duration::from_millis(50)).await;
    assert_eq!((report.stats.pending, report.stats.lost.total()), (400, 0), "{report:?}");

    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let client = spooling(&server.server.uri(), &dir).build().unwrap();
    assert_eq!(client.stats().recovered, 400);
    assert!(client.flush_within(TIMEOUT).await.all_delivered());
}

/// The spool cannot be written for some time while the server is down.
#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_spools_events_that_could_not_be_written_before() {
    let root = TempDir::new().unwrap();
    let dir = root.path().join("spool");
    let is_reported = Arc::new(AtomicBool::new(false));
    let reported = Arc::clone(&is_reported);
    let hook = move |problem: &str| {
        reported.fetch_or(problem.contains("the spool accepts no events"), Ordering::SeqCst);
    };
    let client = spooling(UNREACHABLE, &dir).max_batch_events(10).on_problem(hook);
    let client = client.build().unwrap();
    client.log(event(0)).unwrap();
    eventually("the event is on disk", || events_on_disk(&dir) == 1);
    fs::remove_dir_all(&dir).unwrap();
    fs::write(&dir, "").unwrap();
    for n in 1..100 {
        client.log(event(n)).unwrap();
    }
    eventually("it is reported", || is_reported.load(Ordering::SeqCst));
    fs::remove_file(&dir).unwrap();
    let report = client.shutdown_within(Duration::from_millis(50)).await;
    assert_eq!((report.stats.pending, report.stats.lost.total()), (100, 0), "{report:?}");
    assert_eq!(events_on_disk(&dir), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_line_break_loses_only_its_batch() {
    let dir = TempDir::new().unwrap();
    let file = leave_ten_records(dir.path()).await;
    let mut bytes = fs::read(&file).unwrap();
    // After an event in the middle of the second batch.
    let (at, _) = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(14).unwrap();
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();

    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let client = spooling(&server.server.uri(), dir.path()).build().unwrap();
    let report = client.flush_within(TIMEOUT).await;
    assert!(report.is_settled() && report.stats.is_balanced(), "{report:?}");
    assert_eq!(report.stats.delivered, 90);
    assert_eq!(report.stats.lost.get(LossReason::Damaged), 10, "{report:?}");
    let _ = client.shutdown().await;
    assert!(!file.exists());
}
