//! What every [`LogQueue`] promises.

mod consumer;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use eyego_log_core::Timestamp;
use eyego_log_server::domain::queue::{AppendError, Durable, LogQueue};
use eyego_log_server::domain::record_batch::RecordBatch;
use tokio::sync::Semaphore;

use self::consumer::{Consumer, KEYS, Seen, append, append_one_per_key, batch};
use super::{Case, PATIENCE, blocking, run_cases};

/// An empty queue that takes records, alone with its consumers.
#[async_trait]
pub(crate) trait QueueFixture: Send + Sync + 'static {
    fn queue(&self) -> Arc<dyn LogQueue>;

    /// Closes the queue and opens it again, as after a restart.
    async fn restart(&mut self);

    /// Appends a record without a value, and answers whether that can be done.
    async fn append_null(&self, _key: &str) -> bool {
        false
    }
}

type Fixture = Box<dyn QueueFixture>;

/// Puts a queue to the test; `fresh` makes a new one for each case.
pub(crate) async fn run<Fresh>(at_once: usize, fresh: impl Fn() -> Fresh)
where
    Fresh: Future<Output = Fixture> + Send + 'static,
{
    run_cases(CASES, at_once, fresh).await;
}

const CASES: &[Case<Fixture>] = &[
    ("one result per record", |q| Box::pin(one_result_per_record(q))),
    ("each record is delivered once, in order per key", |q| {
        Box::pin(each_record_is_delivered_once_in_order_per_key(q))
    }),
    ("bytes come back as they were", |q| Box::pin(bytes_come_back_as_they_were(q))),
    ("partitions are assigned before they deliver", |q| {
        Box::pin(partitions_are_assigned_before_they_deliver(q))
    }),
    ("what was not committed is delivered again", |q| {
        Box::pin(what_was_not_committed_is_delivered_again(q))
    }),
    ("what was committed is not delivered again", |q| {
        Box::pin(what_was_committed_is_not_delivered_again(q))
    }),
    ("a commit never moves back", |q| Box::pin(a_commit_never_moves_back(q))),
    ("a sink may break at any record", |q| Box::pin(a_sink_may_break_at_any_record(q))),
    ("pause and resume", |q| Box::pin(pause_and_resume(q))),
    ("many callers at once", |q| Box::pin(many_callers_at_once(q))),
    ("a dropped append is settled nevertheless", |q| {
        Box::pin(a_dropped_append_is_settled_nevertheless(q))
    }),
    ("lag counts what is not committed", |q| Box::pin(lag_counts_what_is_not_committed(q))),
    ("close settles what was appended", |q| Box::pin(close_settles_what_was_appended(q))),
    ("an acknowledged record survives a restart", |q| {
        Box::pin(an_acknowledged_record_survives_a_restart(q))
    }),
    ("a poll ends when its time is up", |q| Box::pin(a_poll_ends_when_its_time_is_up(q))),
];

async fn one_result_per_record(fixture: Fixture) {
    let queue = fixture.queue();
    assert!(queue.append(RecordBatch::default()).await.is_empty());
    for records in [1, 2, 500] {
        let results = queue.append(batch((0..records).map(|n| ("user", n.to_string())))).await;
        assert_eq!(results, vec![Ok(Durable::Queue); records]);
    }
    assert!(queue.health().state.is_up());
}

async fn each_record_is_delivered_once_in_order_per_key(fixture: Fixture) {
    let queue = fixture.queue();
    let before = Timestamp::from(SystemTime::now());
    let mut appended: HashMap<&str, Vec<String>> = HashMap::new();
    for round in 0..20 {
        let records: Vec<_> =
            (0..60).map(|n| (KEYS[(n * 7 + round) % KEYS.len()], format!("{round}/{n}"))).collect();
        for (key, value) in &records {
            appended.entry(*key).or_default().push(format!("{key}:{value}"));
        }
        append(&queue, records).await;
    }
    let mut consumer = Consumer::of(&queue);
    consumer.read(1200);
    consumer.read_to_the_end(&queue, &KEYS).await;

    assert_eq!(consumer.values().len(), 1200, "each once");
    for (key, expected) in appended {
        let prefix = format!("{key}:");
        let of_key: Vec<_> =
            consumer.values().into_iter().filter(|value| value.starts_with(&prefix)).collect();
        assert_eq!(of_key, expected);
    }
    let after = Timestamp::from(SystemTime::now());
    for record in &consumer.records {
        // Brokers have clocks of their own.
        let slack = 60_000;
        assert!(record.queued_at.as_millis() >= before.as_millis() - slack);
        assert!(record.queued_at.as_millis() <= after.as_millis() + slack);
    }
    consumer.assert_offsets_ascend();
}

async fn bytes_come_back_as_they_were(fixture: Fixture) {
    let queue = fixture.queue();
    let large: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let values: [&[u8]; 4] = [b"", b"\0\xff not UTF-8 \xc3", &large, b"last"];
    let mut batch = RecordBatch::default();
    for value in values {
        batch.push_encoded(b"user", value);
    }
    assert_eq!(queue.append(batch).await, vec![Ok(Durable::Queue); 4]);
    let has_null = fixture.append_null("user").await;

    let mut consumer = Consumer::of(&queue);
    consumer.read(4 + usize::from(has_null));
    let mut expected: Vec<_> = values.into_iter().map(|value| Some(value.to_vec())).collect();
    if has_null {
        expected.push(None);
    }
    let delivered: Vec<_> = consumer.records.into_iter().map(|record| record.value).collect();
    assert!(delivered == expected, "the bytes differ");
}

async fn partitions_are_assigned_before_they_deliver(fixture: Fixture) {
    let queue = fixture.queue();
    append_one_per_key(&queue, "x").await;
    let mut consumer = Consumer::of(&queue);
    consumer.read(KEYS.len());
    assert!(consumer.delivered_unassigned.is_empty(), "{:?}", consumer.delivered_unassigned);
}

async fn what_was_not_committed_is_delivered_again(mut fixture: Fixture) {
    let queue = fixture.queue();
    append_one_per_key(&queue, "x").await;
    let expected: HashSet<String> = KEYS.iter().map(|key| format!("{key}:x")).collect();

    let mut consumer = Consumer::of(&queue);
    consumer.read(KEYS.len());
    consumer.close();
    let mut consumer = Consumer::of(&queue);
    consumer.read(KEYS.len());
    assert_eq!(consumer.value_set(), expected, "to a new subscription");
    consumer.close();

    drop(queue);
    fixture.restart().await;
    let queue = fixture.queue();
    let mut consumer = Consumer::of(&queue);
    consumer.read(KEYS.len());
    assert_eq!(consumer.value_set(), expected, "after a restart");
}

async fn what_was_committed_is_not_delivered_again(mut fixture: Fixture) {
    let queue = fixture.queue();
    for n in 0..10 {
        append_one_per_key(&queue, &n.to_string()).await;
    }
    let mut consumer = Consumer::of(&queue);
    consumer.read(10 * KEYS.len());
    // The first half of each partition.
    let mut halves = Vec::new();
    let mut rest = HashSet::new();
    for (partition, records) in consumer.by_partition() {
        let (done, open) = records.split_at(records.len() / 2);
        if let Some(next) = open.first() {
            halves.push((partition, next.offset));
        }
        assert!(done.len() <= open.len());
        rest.extend(open.iter().map(Seen::text));
    }
    consumer.commit(&halves);
    consumer.close();

    let mut consumer = Consumer::of(&queue);
    consumer.read(rest.len());
    assert_eq!(consumer.value_set(), rest, "to a new subscription");
    consumer.close();

    drop(queue);
    fixture.restart().await;
    let queue = fixture.queue();
    let mut consumer = Consumer::of(&queue);
    consumer.read(rest.len());
    assert_eq!(consumer.value_set(), rest, "after a restart");
    consumer.commit_all();
    consumer.close();

    drop(queue);
    fixture.restart().await;
    let queue = fixture.queue();
    let mut consumer = Consumer::of(&queue);
    consumer.read_to_the_end(&queue, &KEYS).await;
    assert_eq!(consumer.value_set(), HashSet::new(), "when all is committed");
}

async fn a_commit_never_moves_back(mut fixture: Fixture) {
    let queue = fixture.queue();
    append(&queue, (0..10).map(|n| ("user", n.to_string()))).await;
    let mut consumer = Consumer::of(&queue);
    consumer.read(10);
    let partition = consumer.records[0].partition;
    consumer.commit_all();
    // Whether it is an error is open; that it moves nothing is not.
    let third = consumer.records[2].offset;
    let _ = blocking(|| consumer.subscription.commit(&[(partition, third)]));
    consumer.wait_for_lag(0);
    consumer.close();

    drop(queue);
    fixture.restart().await;
    let queue = fixture.queue();
    let mut consumer = Consumer::of(&queue);
    consumer.read_to_the_end(&queue, &["user"]).await;
    assert_eq!(consumer.value_set(), HashSet::new());
}

async fn a_sink_may_break_at_any_record(fixture: Fixture) {
    let queue = fixture.queue();
    append(&queue, (0..200).map(|n| ("user", n.to_string()))).await;
    let mut consumer = Consumer::of(&queue);
    let deadline = Instant::now() + PATIENCE;
    let mut sizes = [1, 2, 3, 7, 50].into_iter().cycle();
    while consumer.records.len() < 200 {
        assert!(Instant::now() < deadline, "only {} of 200", consumer.records.len());
        let before = consumer.records.len();
        let at_most = sizes.next().unwrap();
        consumer.poll(at_most);
        assert!(consumer.records.len() <= before + at_most, "delivered after the break");
    }
    let expected: Vec<_> = (0..200).map(|n| format!("user:{n}")).collect();
    assert_eq!(consumer.values(), expected, "nothing is skipped or doubled");
}

async fn pause_and_resume(fixture: Fixture) {
    let queue = fixture.queue();
    append(&queue, (0..50).map(|n| ("user", n.to_string()))).await;
    let mut consumer = Consumer::of(&queue);
    let deadline = Instant::now() + PATIENCE;
    while consumer.records.is_empty() {
        assert!(Instant::now() < deadline, "nothing was delivered");
        consumer.poll(10);
    }
    let taken = consumer.records.len();
    consumer.subscription.pause().unwrap();
    append(&queue, (50..100).map(|n| ("user", n.to_string()))).await;
    for _ in 0..10 {
        consumer.poll(usize::MAX);
    }
    assert_eq!(consumer.records.len(), taken, "paused");

    consumer.subscription.resume().unwrap();
    consumer.read(100);
    let expected: Vec<_> = (0..100).map(|n| format!("user:{n}")).collect();
    assert_eq!(consumer.values(), expected);
}

async fn many_callers_at_once(fixture: Fixture) {
    let queue = fixture.queue();
    let mut consumer = Consumer::of(&queue);
    let callers: Vec<_> = (0..64)
        .map(|caller| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move {
                let key = format!("caller-{caller}");
                for n in 0..20 {
                    append(&queue, [(key.as_str(), n.to_string())]).await;
                }
            })
        })
        .collect();
    // Beside the callers, so that both ends work at once.
    consumer.read(64 * 20);
    for caller in callers {
        caller.await.unwrap();
    }
    let keys: Vec<_> = (0..64).map(|caller| format!("caller-{caller}")).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    consumer.read_to_the_end(&queue, &keys).await;
    assert_eq!(consumer.values().len(), 64 * 20);
    for key in keys {
        let prefix = format!("{key}:");
        let of_key: Vec<_> =
            consumer.values().into_iter().filter(|value| value.starts_with(&prefix)).collect();
        let expected: Vec<_> = (0..20).map(|n| format!("{key}:{n}")).collect();
        assert_eq!(of_key, expected, "acknowledged one after the other");
    }
}

async fn a_dropped_append_is_settled_nevertheless(fixture: Fixture) {
    let queue = fixture.queue();
    let budget = Arc::new(Semaphore::new(1));
    for n in 0..10 {
        let acquired = tokio::time::timeout(PATIENCE, Arc::clone(&budget).acquire_owned()).await;
        let mut batch = batch([("user", n.to_string())]);
        batch.hold_until_settled(acquired.expect("the permit was not given back").unwrap());
        // Polled once, so that it has begun; then its caller goes.
        let _ = tokio::time::timeout(Duration::ZERO, queue.append(batch)).await;
    }
    let all = tokio::time::timeout(PATIENCE, budget.acquire()).await;
    let _all = all.expect("the permit was not given back").unwrap();
    let mut consumer = Consumer::of(&queue);
    consumer.read(10);
    let expected: Vec<_> = (0..10).map(|n| format!("user:{n}")).collect();
    assert_eq!(consumer.values(), expected);
}

async fn lag_counts_what_is_not_committed(fixture: Fixture) {
    let queue = fixture.queue();
    append_one_per_key(&queue, "x").await;
    let mut consumer = Consumer::of(&queue);
    consumer.read(KEYS.len());
    let appended = KEYS.len() as u64;
    consumer.wait_for_lag(appended);
    append_one_per_key(&queue, "y").await;
    consumer.read(2 * KEYS.len());
    consumer.wait_for_lag(2 * appended);
    consumer.commit_all();
    consumer.wait_for_lag(0);
}

async fn close_settles_what_was_appended(fixture: Fixture) {
    let queue = fixture.queue();
    let appends: Vec<_> = (0..50)
        .map(|n| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.append(batch([("user", n.to_string())])).await })
        })
        .collect();
    queue.close(Instant::now() + PATIENCE).await;
    for append in appends {
        // Before the close or after: an answer comes.
        tokio::time::timeout(PATIENCE, append).await.expect("an answer").unwrap();
    }
    let late = tokio::time::timeout(PATIENCE, queue.append(batch([("user", "late".to_owned())])));
    let late = late.await.expect("an answer");
    assert!(matches!(late.as_slice(), [Err(AppendError::Unavailable(_))]), "{late:?}");
}

async fn an_acknowledged_record_survives_a_restart(mut fixture: Fixture) {
    let queue = fixture.queue();
    let appends: Vec<_> = (0..50)
        .map(|n| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { (n, queue.append(batch([("user", n.to_string())])).await) })
        })
        .collect();
    let mut acknowledged = HashSet::new();
    for append in appends {
        let (n, results) = append.await.unwrap();
        if matches!(results.as_slice(), [Ok(_)]) {
            acknowledged.insert(format!("user:{n}"));
        }
    }
    assert_eq!(acknowledged.len(), 50);
    drop(queue);
    fixture.restart().await;
    let queue = fixture.queue();
    let mut consumer = Consumer::of(&queue);
    consumer.read(acknowledged.len());
    assert_eq!(consumer.value_set(), acknowledged);
    append(&queue, [("user", "after".to_owned())]).await;
    consumer.read(acknowledged.len() + 1);
    consumer.assert_offsets_ascend();
}

async fn a_poll_ends_when_its_time_is_up(fixture: Fixture) {
    let queue = fixture.queue();
    let mut consumer = Consumer::of(&queue);
    for _ in 0..5 {
        let begun = Instant::now();
        consumer.poll(usize::MAX);
        assert!(begun.elapsed() < PATIENCE);
    }
    assert!(consumer.records.is_empty());
    append(&queue, [("user", "x".to_owned())]).await;
    consumer.read(1);
}
