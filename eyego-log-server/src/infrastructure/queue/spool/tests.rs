//! The spool in front of a queue that fails on command.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::infrastructure::embedded::DataDir;
use crate::infrastructure::queue::sqlite::SqliteQueueOptions;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A queue in memory that fails as its mode says.
#[derive(Debug, Default)]
struct FlakyQueue {
    mode: Mutex<Mode>,
    records: Mutex<Vec<Vec<u8>>>,
    appends: AtomicU64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Mode {
    #[default]
    Up,
    Down,
    /// Accepts records and does not respond.
    Hung,
    /// Accepts every other record.
    Partial,
}

impl FlakyQueue {
    fn set(&self, mode: Mode) {
        *self.mode.lock() = mode;
    }

    fn values(&self) -> Vec<String> {
        let records = self.records.lock();
        records.iter().map(|record| String::from_utf8(record.clone()).unwrap()).collect()
    }
}

#[async_trait]
impl LogQueue for FlakyQueue {
    async fn append(&self, batch: RecordBatch) -> Vec<AppendResult> {
        self.appends.fetch_add(1, Ordering::Relaxed);
        let mode = *self.mode.lock();
        let down = || Err(AppendError::Unavailable("the mode is down".to_owned()));
        let mut results = Vec::new();
        for (index, record) in batch.iter().enumerate() {
            let result = match mode {
                Mode::Down => down(),
                Mode::Partial if index % 2 == 1 => down(),
                _ if record.value.starts_with(b"huge") => {
                    Err(AppendError::TooLarge("huge".to_owned()))
                }
                Mode::Up | Mode::Hung | Mode::Partial => Ok(Durable::Queue),
            };
            if result.is_ok() {
                self.records.lock().push(record.value.to_vec());
            }
            results.push(result);
        }
        if mode == Mode::Hung {
            std::future::pending::<()>().await;
        }
        results
    }

    fn subscribe(&self) -> Result<Box<dyn Subscription>, QueueError> {
        Err(QueueError::new("not implemented"))
    }

    fn health(&self) -> PartHealth {
        let state = match *self.mode.lock() {
            Mode::Up => PartState::Up,
            _ => PartState::Down("the mode is not up".to_owned()),
        };
        PartHealth { name: "flaky", state }
    }

    async fn close(&self, _deadline: Instant) {}
}

struct Fixture {
    dir: TempDir,
    flaky: Arc<FlakyQueue>,
    queue: Arc<SpooledQueue>,
}

impl Fixture {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let flaky = Arc::new(FlakyQueue::default());
        let queue = spooled(dir.path(), &flaky, 1 << 30);
        Self { dir, flaky, queue }
    }

    async fn restart(&mut self) {
        self.queue.close(Instant::now() + TIMEOUT).await;
        self.queue = spooled(self.dir.path(), &self.flaky, 1 << 30);
    }

    async fn append(&self, values: &[&str]) -> Vec<AppendResult> {
        self.queue.append(batch(values)).await
    }

    async fn wait_until(&self, condition: &str, holds: impl Fn(SpoolCounts) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let counts = self.queue.spool().unwrap();
            if holds(counts) {
                return;
            }
            assert!(Instant::now() < deadline, "timed out waiting until {condition}: {counts:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn wait_until_drained(&self) {
        self.wait_until("the spool is drained", |counts| counts.records == 0).await;
    }
}

fn spooled(dir: &Path, flaky: &Arc<FlakyQueue>, max_bytes: u64) -> Arc<SpooledQueue> {
    let options =
        SqliteQueueOptions { name: "spool", is_fallback: true, max_bytes, append_timeout: TIMEOUT };
    let spool = SqliteQueue::open(&DataDir::open(dir).unwrap(), options).unwrap();
    SpooledQueue::start(Arc::clone(flaky) as Arc<dyn LogQueue>, spool).unwrap()
}

fn batch(values: &[&str]) -> RecordBatch {
    let mut batch = RecordBatch::default();
    for value in values {
        batch.push_encoded(b"user", value.as_bytes());
    }
    batch
}

#[tokio::test(flavor = "multi_thread")]
async fn working_queue_keeps_the_spool_empty() {
    let fixture = Fixture::open();
    assert_eq!(fixture.append(&["a", "b"]).await, [Ok(Durable::Queue), Ok(Durable::Queue)]);
    assert_eq!(fixture.flaky.values(), ["a", "b"]);
    assert_eq!(fixture.queue.spool().unwrap(), SpoolCounts::default());
    assert_eq!(fixture.queue.health().state, PartState::Up);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_spooled_while_the_queue_is_down_and_moved_in_order() {
    let fixture = Fixture::open();
    fixture.flaky.set(Mode::Down);
    let start = Instant::now();
    for n in 0..50 {
        assert_eq!(fixture.append(&[&n.to_string()]).await, [Ok(Durable::Spool)]);
    }
    let counts = fixture.queue.spool().unwrap();
    assert!(counts.is_in_use);
    assert_eq!(counts.records, 50);
    let probes = start.elapsed().as_secs() / breaker::PROBE_INTERVAL.as_secs() + 2;
    assert!(
        fixture.flaky.appends.load(Ordering::Relaxed) <= probes,
        "the queue is tried once per interval"
    );
    let state = fixture.queue.health().state;
    assert!(matches!(&state, PartState::Warning(reason) if reason.contains("spool")), "{state:?}");

    fixture.flaky.set(Mode::Up);
    fixture.wait_until_drained().await;
    let expected: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(fixture.flaky.values(), expected);
    let counts = fixture.queue.spool().unwrap();
    assert_eq!((counts.is_in_use, counts.moved), (false, 50));
    assert_eq!(fixture.append(&["new"]).await, [Ok(Durable::Queue)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_refused_records_are_spooled() {
    let fixture = Fixture::open();
    fixture.flaky.set(Mode::Partial);
    let results = fixture.append(&["a", "b", "huge", "d"]).await;
    assert_eq!(results[..2], [Ok(Durable::Queue), Ok(Durable::Spool)]);
    assert!(matches!(results[2], Err(AppendError::TooLarge(_))));
    assert_eq!(results[3], Ok(Durable::Spool));
    fixture.flaky.set(Mode::Up);
    fixture.wait_until_drained().await;
    assert_eq!(fixture.flaky.values(), ["a", "b", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_spooled_while_the_queue_hangs() {
    let fixture = Fixture::open();
    fixture.flaky.set(Mode::Hung);
    let start = Instant::now();
    assert_eq!(fixture.append(&["a"]).await, [Ok(Durable::Spool)]);
    assert!(start.elapsed() < QUEUE_TIMEOUT * 5);
    assert_eq!(fixture.append(&["b"]).await, [Ok(Durable::Spool)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_spool_refuses_records() {
    let dir = tempfile::tempdir().unwrap();
    let flaky = Arc::new(FlakyQueue::default());
    flaky.set(Mode::Down);
    let queue = spooled(dir.path(), &flaky, 1 << 20);
    // Random, so that it does not compress.
    let value: String = std::iter::repeat_with(fastrand::alphanumeric).take(10_000).collect();
    let mut accepted = 0;
    let refusal = loop {
        match queue.append(batch(&[&value])).await.remove(0) {
            Ok(place) => {
                assert_eq!(place, Durable::Spool);
                accepted += 1;
            }
            Err(refusal) => break refusal,
        }
        assert!(accepted < 1000);
    };
    assert!(matches!(refusal, AppendError::Full(_)), "{refusal}");
    assert!(!queue.health().state.is_up());
    flaky.set(Mode::Up);
    let deadline = Instant::now() + TIMEOUT;
    while flaky.values().len() < accepted {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_left_by_an_earlier_process_are_moved() {
    let mut fixture = Fixture::open();
    fixture.flaky.set(Mode::Down);
    fixture.append(&["a", "b"]).await;
    fixture.restart().await;
    assert_eq!(fixture.queue.spool().unwrap().records, 2);
    fixture.flaky.set(Mode::Up);
    fixture.wait_until_drained().await;
    assert_eq!(fixture.flaky.values(), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_record_does_not_block_the_others() {
    let fixture = Fixture::open();
    fixture.flaky.set(Mode::Down);
    fixture.append(&["a", "huge", "b"]).await;
    fixture.flaky.set(Mode::Up);
    fixture.wait_until_drained().await;
    assert_eq!(fixture.flaky.values(), ["a", "b"]);
    let counts = fixture.queue.spool().unwrap();
    assert_eq!((counts.moved, counts.quarantined), (2, 1));
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    SetMode(Mode),
    Restart,
    Pause,
}

fn random_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..6_usize).prop_map(Step::Append),
        2 => prop::sample::select(vec![Mode::Up, Mode::Down, Mode::Partial]).prop_map(Step::SetMode),
        1 => Just(Step::Restart),
        1 => Just(Step::Pause),
    ];
    prop::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// In the end, the queue contains exactly the acknowledged records.
    #[test]
    fn queue_receives_exactly_the_acknowledged_records(steps in random_steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut fixture = Fixture::open();
            let mut acknowledged = BTreeSet::new();
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Append(records) => {
                        let values: Vec<_> =
                            (0..records).map(|n| (next + n).to_string()).collect();
                        next += records;
                        let texts: Vec<_> = values.iter().map(String::as_str).collect();
                        let results = fixture.append(&texts).await;
                        for (value, result) in values.into_iter().zip(results) {
                            assert!(result.is_ok(), "the spool is not full: {result:?}");
                            acknowledged.insert(value);
                        }
                    }
                    Step::SetMode(mode) => fixture.flaky.set(mode),
                    Step::Restart => fixture.restart().await,
                    Step::Pause => tokio::time::sleep(Duration::from_millis(30)).await,
                }
            }
            fixture.flaky.set(Mode::Up);
            fixture.wait_until_drained().await;
            let moved: BTreeSet<_> = fixture.flaky.values().into_iter().collect();
            assert_eq!(moved, acknowledged);
        });
    }
}
