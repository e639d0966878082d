//! What storing costs; run by hand, in release mode:
//! `cargo test --release -p eyego-log-tests --test it mongodb::figures -- --ignored --nocapture`.

use std::time::Instant;

use ::mongodb::bson::RawDocumentBuf;
use eyego_log_core::LogQuery;
use eyego_log_core::query::MetadataFilter;
use eyego_log_server::domain::repository::LogRepository as _;
use stack::mongodb::MongoOptions as StackOptions;

use super::*;

const BULK: u32 = 1000;
const BULKS: u32 = 300;
const AT_ONCE: usize = 4;

/// CPU time of a process so far.
fn cpu(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
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

/// Runs `store` on each bulk, some at once, and answers what that took.
async fn measure<T, S, Stored>(what: &str, mongo: &Mongo, bulks: Vec<T>, store: S) -> String
where
    T: Send + Sync + 'static,
    S: Fn(Arc<Vec<T>>, usize) -> Stored + Clone + Send + 'static,
    Stored: Future<Output = ()> + Send,
{
    let bulks = Arc::new(bulks);
    let (ours, theirs) = (std::process::id(), mongo.pid(0).unwrap());
    let (began, before) = (Instant::now(), (cpu(ours), cpu(theirs)));
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|task| {
            let (bulks, store) = (Arc::clone(&bulks), store.clone());
            tokio::spawn(async move {
                for n in (task..bulks.len()).step_by(AT_ONCE) {
                    store(Arc::clone(&bulks), n).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let millions = f64::from(BULK * BULKS) / 1e6;
    format!(
        "{what}: {:.0}/s; CPU-seconds a million: ours {:.2}, mongod's {:.2}",
        millions * 1e6 / began.elapsed().as_secs_f64(),
        (cpu(ours) - before.0).as_secs_f64() / millions,
        (cpu(theirs) - before.1).as_secs_f64() / millions,
    )
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn storing() {
    let mongo = Mongo::start(StackOptions::default()).await.unwrap();
    let store = Store::at(mongo.uri());
    store.wait_for(|state| *state == PartState::Up).await;
    let repository = store.repository();
    let figures = measure("store", &mongo, (0..BULKS).map(bulk).collect(), move |bulks, n| {
        let repository = repository.clone();
        async move {
            repository.store(&bulks[n]).await.unwrap();
        }
    })
    .await;
    println!("{figures}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn reading() {
    let mongo = Mongo::start(StackOptions::default()).await.unwrap();
    let store = Store::at(mongo.uri());
    let repository = store.repository();
    for n in 0..BULKS {
        repository.store(&bulk(n)).await.unwrap();
    }
    let of_user = LogQuery { user_id: Some("user-77".to_owned()), ..LogQuery::default() };
    let filter = |path, value| vec![MetadataFilter::new(path, value).unwrap()];
    for (what, query) in [
        ("latest 50 of a user", LogQuery { limit: 50, ..of_user.clone() }),
        ("latest 1000 of all", LogQuery { limit: 1000, ..LogQuery::default() }),
        ("a key of a user", LogQuery { metadata: filter("page", "-"), ..of_user.clone() }),
        ("a path of a user", LogQuery { metadata: filter("cart.total", "-"), ..of_user }),
        ("a key of all", LogQuery { metadata: filter("page", "-"), ..LogQuery::default() }),
        ("a path of all", LogQuery { metadata: filter("cart.total", "-"), ..LogQuery::default() }),
    ] {
        let mut times = Vec::new();
        for _ in 0..if what.ends_with("user") { 200 } else { 5 } {
            let began = Instant::now();
            repository.find(&query).await.unwrap();
            times.push(began.elapsed());
        }
        times.sort_unstable();
        println!("{what}: p50 {:?}, max {:?}", times[times.len() / 2], times[times.len() - 1]);
    }
}

/// The driver's own way, with documents that are BSON already.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn storing_by_insert_many() {
    let mongo = Mongo::start(StackOptions::default()).await.unwrap();
    let store = Store::at(mongo.uri());
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
    let logs = store.foreign().await.collection::<RawDocumentBuf>("logs");
    let figures = measure("insert_many of raw documents", &mongo, bulks, move |bulks, n| {
        let logs = logs.clone();
        async move {
            logs.insert_many(&bulks[n]).ordered(false).await.unwrap();
        }
    })
    .await;
    println!("{figures}");
}
