//! The spool before a queue that fails on command.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::infrastructure::embedded::DataDir;
use crate::infrastructure::queue::noise;
use crate::infrastructure::queue::sqlite::SqliteQueueOptions;

const WAIT: Duration = Duration::from_secs(20);

/// A queue in memory, as well or ill as it is told to be.
#[derive(Debug, Default)]
struct Moody {
    mood: Mutex<Mood>,
    records: Mutex<Vec<Vec<u8>>>,
    appends: AtomicU64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Mood {
    #[default]
    Well,
    Down,
    /// Takes what it is given, and does not answer.
    Mute,
    /// Takes every other record only.
    Half,
}

impl Moody {
    fn set(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    fn values(&self) -> Vec<String> {
        let records = self.records.lock();
        records.iter().map(|record| String::from_utf8(record.clone()).unwrap()).collect()
    }
}

#[async_trait]
impl LogQueue for Moody {
    async fn append(&self, batch: RecordBatch) -> Vec<AppendResult> {
        self.appends.fetch_add(1, Ordering::Relaxed);
        let mood = *self.mood.lock();
        let down = || Err(AppendError::Unavailable("told to be down".to_owned()));
        let mut results = Vec::new();
        for (index, record) in batch.iter().enumerate() {
            let result = match mood {
                Mood::Down => down(),
                Mood::Half if index % 2 == 1 => down(),
                _ if record.value.starts_with(b"huge") => {
                    Err(AppendError::TooLarge("told so".to_owned()))
                }
                Mood::Well | Mood::Mute | Mood::Half => Ok(Durable::Queue),
            };
            if result.is_ok() {
                self.records.lock().push(record.value.to_vec());
            }
            results.push(result);
        }
        if mood == Mood::Mute {
            std::future::pending::<()>().await;
        }
        results
    }

    fn subscribe(&self) -> Result<Box<dyn Subscription>, QueueError> {
        Err(QueueError::new("nobody reads this"))
    }

    fn health(&self) -> PartHealth {
        let state = match *self.mood.lock() {
            Mood::Well => PartState::Up,
            _ => PartState::Down("told to be ill".to_owned()),
        };
        PartHealth { name: "moody", state }
    }

    async fn close(&self, _deadline: Instant) {}
}

struct House {
    dir: TempDir,
    moody: Arc<Moody>,
    queue: Arc<SpooledQueue>,
}

impl House {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let moody = Arc::new(Moody::default());
        let queue = spooled(dir.path(), &moody, 1 << 30);
        Self { dir, moody, queue }
    }

    async fn restart(&mut self) {
        self.queue.close(Instant::now() + WAIT).await;
        self.queue = spooled(self.dir.path(), &self.moody, 1 << 30);
    }

    async fn append(&self, values: &[&str]) -> Vec<AppendResult> {
        self.queue.append(batch(values)).await
    }

    async fn until(&self, what: &str, is_so: impl Fn(SpoolCounts) -> bool) {
        let deadline = Instant::now() + WAIT;
        loop {
            let counts = self.queue.spool().unwrap();
            if is_so(counts) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {counts:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_drained(&self) {
        self.until("the spool is drained", |counts| counts.records == 0).await;
    }
}

fn spooled(dir: &Path, moody: &Arc<Moody>, max_bytes: u64) -> Arc<SpooledQueue> {
    let options =
        SqliteQueueOptions { name: "spool", is_fallback: true, max_bytes, append_timeout: WAIT };
    let spool = SqliteQueue::open(&DataDir::open(dir).unwrap(), options).unwrap();
    SpooledQueue::start(Arc::clone(moody) as Arc<dyn LogQueue>, spool).unwrap()
}

fn batch(values: &[&str]) -> RecordBatch {
    let mut batch = RecordBatch::default();
    for value in values {
        batch.push_encoded(b"user", value.as_bytes());
    }
    batch
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_well_keeps_the_spool_empty() {
    let house = House::open();
    assert_eq!(house.append(&["a", "b"]).await, [Ok(Durable::Queue), Ok(Durable::Queue)]);
    assert_eq!(house.moody.values(), ["a", "b"]);
    assert_eq!(house.queue.spool().unwrap(), SpoolCounts::default());
    assert_eq!(house.queue.health().state, PartState::Up);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_queue_refuses_is_spooled_and_moved_in_order_when_it_is_back() {
    let house = House::open();
    house.moody.set(Mood::Down);
    let start = Instant::now();
    for n in 0..50 {
        assert_eq!(house.append(&[&n.to_string()]).await, [Ok(Durable::Spool)]);
    }
    let counts = house.queue.spool().unwrap();
    assert!(counts.is_in_use);
    assert_eq!(counts.records, 50);
    let probes = start.elapsed().as_secs() / breaker::PROBE_INTERVAL.as_secs() + 2;
    assert!(house.moody.appends.load(Ordering::Relaxed) <= probes, "it is left alone");
    let state = house.queue.health().state;
    assert!(matches!(&state, PartState::Warning(why) if why.contains("spool")), "{state:?}");

    house.moody.set(Mood::Well);
    house.until_drained().await;
    let expected: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(house.moody.values(), expected);
    let counts = house.queue.spool().unwrap();
    assert_eq!((counts.is_in_use, counts.moved), (false, 50));
    assert_eq!(house.append(&["new"]).await, [Ok(Durable::Queue)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_records_that_were_refused_are_spooled() {
    let house = House::open();
    house.moody.set(Mood::Half);
    let results = house.append(&["a", "b", "huge", "d"]).await;
    assert_eq!(results[..2], [Ok(Durable::Queue), Ok(Durable::Spool)]);
    assert!(matches!(results[2], Err(AppendError::TooLarge(_))));
    assert_eq!(results[3], Ok(Durable::Spool));
    house.moody.set(Mood::Well);
    house.until_drained().await;
    assert_eq!(house.moody.values(), ["a", "b", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_does_not_answer_is_not_waited_for() {
    let house = House::open();
    house.moody.set(Mood::Mute);
    let start = Instant::now();
    assert_eq!(house.append(&["a"]).await, [Ok(Durable::Spool)]);
    assert!(start.elapsed() < PATIENCE * 5);
    assert_eq!(house.append(&["b"]).await, [Ok(Durable::Spool)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let moody = Arc::new(Moody::default());
    moody.set(Mood::Down);
    let queue = spooled(dir.path(), &moody, 1 << 20);
    let value: String = noise(10_000).iter().map(|byte| format!("{byte:02X}")).collect();
    let mut taken = 0;
    let refusal = loop {
        match queue.append(batch(&[&value])).await.remove(0) {
            Ok(place) => {
                assert_eq!(place, Durable::Spool);
                taken += 1;
            }
            Err(refusal) => break refusal,
        }
        assert!(taken < 1000);
    };
    assert!(matches!(refusal, AppendError::Full(_)), "{refusal}");
    assert!(!queue.health().state.is_up());
    moody.set(Mood::Well);
    let deadline = Instant::now() + WAIT;
    while moody.values().len() < taken {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_process_left_is_moved() {
    let mut house = House::open();
    house.moody.set(Mood::Down);
    house.append(&["a", "b"]).await;
    house.restart().await;
    assert_eq!(house.queue.spool().unwrap().records, 2);
    house.moody.set(Mood::Well);
    house.until_drained().await;
    assert_eq!(house.moody.values(), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_queue_will_never_take_does_not_hold_up_the_rest() {
    let house = House::open();
    house.moody.set(Mood::Down);
    house.append(&["a", "huge", "b"]).await;
    house.moody.set(Mood::Well);
    house.until_drained().await;
    assert_eq!(house.moody.values(), ["a", "b"]);
    let counts = house.queue.spool().unwrap();
    assert_eq!((counts.moved, counts.quarantined), (2, 1));
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Become(Mood),
    Restart,
    Rest,
}

fn some_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..6_usize).prop_map(Step::Append),
        2 => prop::sample::select(vec![Mood::Well, Mood::Down, Mood::Half]).prop_map(Step::Become),
        1 => Just(Step::Restart),
        1 => Just(Step::Rest),
    ];
    prop::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// The model is a set: what was acknowledged, wherever it lay meanwhile, is
    /// in the queue in the end, and nothing else is.
    #[test]
    fn each_acknowledged_record_gets_into_the_queue(steps in some_steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut house = House::open();
            let mut acknowledged = BTreeSet::new();
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Append(records) => {
                        let values: Vec<_> =
                            (0..records).map(|n| (next + n).to_string()).collect();
                        next += records;
                        let texts: Vec<_> = values.iter().map(String::as_str).collect();
                        let results = house.append(&texts).await;
                        for (value, result) in values.into_iter().zip(results) {
                            assert!(result.is_ok(), "there is room: {result:?}");
                            acknowledged.insert(value);
                        }
                    }
                    Step::Become(mood) => house.moody.set(mood),
                    Step::Restart => house.restart().await,
                    Step::Rest => tokio::time::sleep(Duration::from_millis(30)).await,
                }
            }
            house.moody.set(Mood::Well);
            house.until_drained().await;
            let there: BTreeSet<_> = house.moody.values().into_iter().collect();
            assert_eq!(there, acknowledged);
        });
    }
}
