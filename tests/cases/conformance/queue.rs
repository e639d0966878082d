//! The promises of [`LogQueue`].

mod consumer;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::ensure;
use async_trait::async_trait;
use eyego_log_core::Timestamp;
use eyego_log_server::domain::queue::{AppendError, Durable, LogQueue};
use eyego_log_server::domain::record_batch::RecordBatch;
use tokio::sync::Semaphore;

use self::consumer::{Consumer, KEYS, Seen, append, append_one_per_key, batch};
use super::{Case, blocking, run_cases};
use crate::fixture::TIMEOUT;

/// An empty queue that only the test uses.
#[async_trait]
pub(crate) trait QueueFixture: Send + Sync + 'static {
    fn queue(&self) -> Arc<dyn LogQueue>;

    /// Closes the queue and opens it again, like a restart.
    async fn restart(&mut self);

    /// Appends a record without a value, and returns whether the queue supports that.
    async fn append_null(&self, _key: &str) -> bool {
        false
    }
}

type Fixture = Box<dyn QueueFixture>;

/// Runs the suite; `fresh` makes a new queue for each case.
pub(crate) async fn run<Fresh>(concurrency: usize, fresh: impl Fn() -> Fresh)
where
    Fresh: Future<Output = Fixture> + Send + 'static,
{
    run_cases(CASES, concurrency, fresh).await;
}

const CASES: &[Case<Fixture>] = &[
    ("append returns one result per record", |queue| {
        Box::pin(append_returns_one_result_per_record(queue))
    }),
    ("each record is delivered once, in order per key", |queue| {
        Box::pin(each_record_is_delivered_once_in_order_per_key(queue))
    }),
    ("values are delivered unchanged", |queue| Box::pin(values_are_delivered_unchanged(queue))),
    ("partitions are assigned before they deliver", |queue| {
        Box::pin(partitions_are_assigned_before_they_deliver(queue))
    }),
    ("uncommitted records are delivered again", |queue| {
        Box::pin(uncommitted_records_are_delivered_again(queue))
    }),
    ("committed records are not delivered again", |queue| {
        Box::pin(committed_records_are_not_delivered_again(queue))
    }),
    ("a commit never moves back", |queue| Box::pin(commit_never_moves_back(queue))),
    ("a sink may break at any record", |queue| Box::pin(sink_may_break_at_any_record(queue))),
    ("a paused subscription delivers nothing until it resumes", |queue| {
        Box::pin(paused_subscription_delivers_nothing_until_it_resumes(queue))
    }),
    ("concurrent appends keep the order of each caller", |queue| {
        Box::pin(concurrent_appends_keep_the_order_of_each_caller(queue))
    }),
    ("a cancelled append is still settled", |queue| {
        Box::pin(cancelled_append_is_still_settled(queue))
    }),
    ("lag counts uncommitted records", |queue| Box::pin(lag_counts_uncommitted_records(queue))),
    ("close settles all appends", |queue| Box::pin(close_settles_all_appends(queue))),
    ("an acknowledged record survives a restart", |queue| {
        Box::pin(acknowledged_record_survives_a_restart(queue))
    }),
    ("a poll ends at its timeout", |queue| Box::pin(poll_ends_at_its_timeout(queue))),
];

async fn append_returns_one_result_per_record(fixture: Fixture) {
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

    assert_eq!(consumer.values().len(), 1200, "each record once");
    for (key, expected) in appended {
        let prefix = format!("{key}:");
        let of_key: Vec<_> =
            consumer.values().into_iter().filter(|value| value.starts_with(&prefix)).collect();
        assert_eq!(of_key, expected);
    }
    let after = Timestamp::from(SystemTime::now());
    for record in &consumer.records {
        // Brokers have their own clocks.
        let slack = 60_000;
        assert!(record.queued_at.as_millis() >= before.as_millis() - slack);
        assert!(record.queued_at.as_millis() <= after.as_millis() + slack);
    }
    consumer.assert_offsets_ascend();
}

async fn values_are_delivered_unchanged(fixture: Fixture) {
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

async fn uncommitted_records_are_delivered_again(mut fixture: Fixture) {
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

async fn committed_records_are_not_delivered_again(mut fixture: Fixture) {
    let queue = fixture.queue();
    for n in 0..10 {
        append_one_per_key(&queue, &n.to_string()).await;
    }
    let mut consumer = Consumer::of(&queue);
    consumer.read(10 * KEYS.len());
    // Commits the first half of each partition.
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

async fn commit_never_moves_back(mut fixture: Fixture) {
    let queue = fixture.queue();
    append(&queue, (0..10).map(|n| ("user", n.to_string()))).await;
    let mut consumer = Consumer::of(&queue);
    consumer.read(10);
    let partition = consumer.records[0].partition;
    consumer.commit_all();
    // It may be an error or not, but it must not move the committed offset.
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

async fn sink_may_break_at_any_record(fixture: Fixture) {
    let queue = fixture.queue();
    append(&queue, (0..200).map(|n| ("user", n.to_string()))).await;
    let mut consumer = Consumer::of(&queue);
    let mut sizes = [1, 2, 3, 7, 50].into_iter().cycle();
    consumer.poll_until("200 records", |consumer| {
        let before = consumer.records.len();
        let at_most = sizes.next().unwrap();
        consumer.poll(at_most);
        let after = consumer.records.len();
        assert!(after <= before + at_most, "records were delivered after the break");
        ensure!(after >= 200, "{after} records");
        Ok(())
    });
    let expected: Vec<_> = (0..200).map(|n| format!("user:{n}")).collect();
    assert_eq!(consumer.values(), expected, "each record once");
}

async fn paused_subscription_delivers_nothing_until_it_resumes(fixture: Fixture) {
    let queue = fixture.queue();
    append(&queue, (0..50).map(|n| ("user", n.to_string()))).await;
    let mut consumer = Consumer::of(&queue);
    consumer.poll_until("the first record", |consumer| {
        consumer.poll(10);
        ensure!(!consumer.records.is_empty(), "no record");
        Ok(())
    });
    let taken = consumer.records.len();
    consumer.subscription.pause().unwrap();
    append(&queue, (50..100).map(|n| ("user", n.to_string()))).await;
    for _ in 0..10 {
        consumer.poll(usize::MAX);
    }
    assert_eq!(consumer.records.len(), taken, "records were delivered while paused");

    consumer.subscription.resume().unwrap();
    consumer.read(100);
    let expected: Vec<_> = (0..100).map(|n| format!("user:{n}")).collect();
    assert_eq!(consumer.values(), expected);
}

async fn concurrent_appends_keep_the_order_of_each_caller(fixture: Fixture) {
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
    // The consumer reads while the callers append.
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
        assert_eq!(of_key, expected, "in the order of the acknowledgements");
    }
}

async fn cancelled_append_is_still_settled(fixture: Fixture) {
    let queue = fixture.queue();
    let budget = Arc::new(Semaphore::new(1));
    for n in 0..10 {
        let acquired = tokio::time::timeout(TIMEOUT, Arc::clone(&budget).acquire_owned()).await;
        let mut batch = batch([("user", n.to_string())]);
        batch.hold_until_settled(acquired.expect("the permit was not released").unwrap());
        // The append is polled once, so that it has begun, and then cancelled.
        let _ = tokio::time::timeout(Duration::ZERO, queue.append(batch)).await;
    }
    let all = tokio::time::timeout(TIMEOUT, budget.acquire()).await;
    let _all = all.expect("the permit was not released").unwrap();
    let mut consumer = Consumer::of(&queue);
    consumer.read(10);
    let expected: Vec<_> = (0..10).map(|n| format!("user:{n}")).collect();
    assert_eq!(consumer.values(), expected);
}

async fn lag_counts_uncommitted_records(fixture: Fixture) {
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

async fn close_settles_all_appends(fixture: Fixture) {
    let queue = fixture.queue();
    let appends: Vec<_> = (0..50)
        .map(|n| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.append(batch([("user", n.to_string())])).await })
        })
        .collect();
    queue.close(Instant::now() + TIMEOUT).await;
    for append in appends {
        // Each append returns, whether it came before the close or after it.
        tokio::time::timeout(TIMEOUT, append).await.expect("the append hangs").unwrap();
    }
    let late = tokio::time::timeout(TIMEOUT, queue.append(batch([("user", "late".to_owned())])));
    let late = late.await.expect("the append hangs");
    assert!(matches!(late.as_slice(), [Err(AppendError::Unavailable(_))]), "{late:?}");
}

async fn acknowledged_record_survives_a_restart(mut fixture: Fixture) {
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

async fn poll_ends_at_its_timeout(fixture: Fixture) {
    let queue = fixture.queue();
    let mut consumer = Consumer::of(&queue);
    for _ in 0..5 {
        let begun = Instant::now();
        consumer.poll(usize::MAX);
        assert!(begun.elapsed() < TIMEOUT);
    }
    assert!(consumer.records.is_empty());
    append(&queue, [("user", "x".to_owned())]).await;
    consumer.read(1);
}
