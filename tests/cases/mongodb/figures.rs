//! What storing costs; run by hand, in release mode:
//! `cargo test --release -p eyego-log-tests --test it mongodb::figures -- --ignored --nocapture`.

use std::time::Instant;

use ::mongodb::bson::RawDocumentBuf;
use eyego_log_server::domain::repository::LogRepository as _;

use super::*;

const BULK: u32 = 1000;
const BULKS: u32 = 200;
const AT_ONCE: u32 = 4;

/// CPU time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn bulk(n: u32) -> Vec<LogEntry> {
    (n * BULK..(n + 1) * BULK)
        .map(|n| {
            let metadata = format!(
                r#"{{"page":"/products/{n}","referrer":"https://example.com/search?q=shoes",
                "duration":{n},"ratio":0.25,"cart":{{"items":[1,2,3],"total":99.5}},"vip":true}}"#
            );
            entry(n, &format!("user-{}", n % 1000), "CLICK_BUTTON", i64::from(n), &metadata)
        })
        .collect()
}

fn report(what: &str, wall: Duration, cpu: Duration) {
    let logs = f64::from(BULK * BULKS);
    println!(
        "{what}: {:.0}/s, {:.2} CPU-seconds of ours a million, {:.0} ns each",
        logs / wall.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / logs,
        cpu.as_secs_f64() * 1e9 / logs,
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn storing() {
    let store = Arc::new(Store::shared().await);
    store.wait_for(|state| *state == PartState::Up).await;
    let bulks: Arc<Vec<_>> = Arc::new((0..BULKS).map(bulk).collect());
    let (began, before) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|task| {
            let (repository, bulks) = (store.repository(), Arc::clone(&bulks));
            tokio::spawn(async move {
                for bulk in bulks.iter().skip(task as usize).step_by(AT_ONCE as usize) {
                    repository.store(bulk).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    report("store", began.elapsed(), cpu() - before);
}

/// The driver's own way, with documents that are BSON already.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn storing_by_insert_many() {
    let store = Arc::new(Store::shared().await);
    store.wait_for(|state| *state == PartState::Up).await;
    let raw = |entry: &LogEntry| {
        let metadata: ::mongodb::bson::Bson =
            ::mongodb::bson::serialize_to_bson(&entry.metadata.to_map()).unwrap();
        let id = ::mongodb::bson::oid::ObjectId::from_bytes(*entry.id.as_bytes());
        let at = ::mongodb::bson::DateTime::from_millis(entry.timestamp.as_millis());
        RawDocumentBuf::try_from(&doc! {
            "_id": id, "userId": entry.user_id.as_str(), "action": entry.action.as_str(),
            "timestamp": at, "metadata": metadata, "receivedAt": at,
        })
        .unwrap()
    };
    let bulks: Vec<Vec<_>> = (0..BULKS).map(|n| bulk(n).iter().map(raw).collect()).collect();
    let bulks = Arc::new(bulks);
    let logs = store.foreign().await.collection::<RawDocumentBuf>("logs");
    let (began, before) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|task| {
            let (logs, bulks) = (logs.clone(), Arc::clone(&bulks));
            tokio::spawn(async move {
                for bulk in bulks.iter().skip(task as usize).step_by(AT_ONCE as usize) {
                    logs.insert_many(bulk).ordered(false).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    report("insert_many of raw documents", began.elapsed(), cpu() - before);
}
