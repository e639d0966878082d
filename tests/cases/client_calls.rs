//! What the SDK reads and operates, against the real server: statistics, exports, dead letters,
//! readiness, erasures, and waiting for storage.

use std::time::{Duration, SystemTime};

use anyhow::ensure;
use eyego_log_client::{
    Client, ErasureState, Event, ExportFormat, Interval, LogId, Order, PartState, Replay,
    SendError, StoreOutcome,
};
use stack::eventually;
use stack::server::Server;

use crate::fixture::{Deployment, TIMEOUT, embedded_server, ready};

fn client_of(server: &Server) -> Client {
    Client::builder(server.base_url()).linger(Duration::from_millis(20)).build().unwrap()
}

async fn store(client: &Client, user: &str, action: &str, n: u32) -> LogId {
    let event = Event::new(user, action).field("n", n);
    let outcome = client.send_stored(event, TIMEOUT).await.unwrap();
    assert_eq!(outcome, StoreOutcome::Stored(outcome.id()));
    // It can be read from now on.
    let entry = client.query().get(outcome.id()).await.unwrap().unwrap();
    assert_eq!(entry.user_id.as_str(), user);
    outcome.id()
}

async fn everything_that_is_stored_can_be_counted_exported_and_erased(server: &Server) {
    let client = client_of(server);
    let begin = SystemTime::now() - Duration::from_secs(60);
    store(&client, "ada", "VIEW", 1).await;
    let last = store(&client, "ada", "CLICK", 2).await;
    store(&client, "bob/ü", "VIEW", 3).await;
    let end = SystemTime::now() + Duration::from_secs(60);

    let stats = client.query().since(begin).until(end).stats();
    let stats = stats.by_action().top(1).interval(Interval::Hour).fetch().await.unwrap();
    assert_eq!((stats.total, stats.users, stats.other), (3, 2, 1));
    assert_eq!((stats.top[0].value.as_str(), stats.top[0].count), ("VIEW", 2));
    let error = client.query().since(begin).stats().fetch().await.unwrap_err();
    let status = error.status().unwrap();
    assert!(status.status == 400 && status.message.starts_with("to is required"), "{error}");

    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("ada.csv");
    let query = client.query().user("ada").order(Order::Ascending);
    let bytes = query.export(ExportFormat::Csv).columns(["n"]).save(&file).await.unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(bytes, text.len() as u64);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.len() == 3 && lines[2].starts_with(&format!("{last},ada,CLICK,")), "{text}");
    let error = client.query().limit(5).export(ExportFormat::Ndjson).start().await.unwrap_err();
    assert!(error.to_string().contains("limit is not a known parameter"), "{error}");

    // The id belongs to another event.
    let event = Event::new("bob/ü", "STOLEN").id(last);
    let error = client.send_stored(event, TIMEOUT).await.unwrap_err();
    assert!(matches!(&error, SendError::Conflict { id, .. } if *id == last), "{error}");
    let query = client.dead_letters().code("id_conflict").since(begin);
    // The server compares with the stored event before the worker does.
    let page = eventually("the dead letter", TIMEOUT, async || {
        let page = query.fetch().await?;
        ensure!(!page.data.is_empty(), "no dead letter");
        Ok(page)
    });
    let page = page.await.unwrap();
    let dead_letter = &page.data[0];
    assert_eq!((page.data.len(), dead_letter.user_id.as_deref()), (1, Some("bob/ü")));
    let whole = client.dead_letter(dead_letter.id).await.unwrap().unwrap();
    assert!(String::from_utf8(whole.raw.unwrap()).unwrap().contains("STOLEN"));
    for selection in [Replay::Id(dead_letter.id), Replay::Code("id_conflict".into()), Replay::All] {
        let replayed = client.replay_dead_letters(selection).await.unwrap();
        assert_eq!((replayed.replayed, replayed.failed, replayed.remaining), (0, 1, 1));
    }

    let receipt = client.erase_user("bob/ü").await.unwrap();
    assert_eq!(receipt.user_id, "bob/ü");
    // A second pass follows after a minute, so `done` takes longer.
    eventually("the removal of the events", TIMEOUT, async || {
        let erasure = client.wait_for_erasure(receipt.id, Duration::ZERO).await?;
        let removed = erasure.removed;
        ensure!((removed.store, removed.dead_letters) == (1, 1), "{erasure:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(client.erasures().fetch().await.unwrap().data[0].id, receipt.id);
    assert!(client.query().user("bob/ü").fetch().await.unwrap().data.is_empty());
    assert!(client.dead_letters().fetch().await.unwrap().data.is_empty());

    let readiness = client.readiness().await.unwrap();
    assert!(readiness.is_ready, "{readiness:?}");
    assert!(readiness.parts.values().all(|part| part.state != PartState::Unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_waits_until_an_erasure_is_done() {
    let server = embedded_server().await;
    let client = client_of(&server);
    let receipt = client.erase_user("ada").await.unwrap();
    assert_eq!(receipt.state, ErasureState::Running);
    let erasure = client.wait_for_erasure(receipt.id, Duration::from_secs(200)).await.unwrap();
    assert_eq!(erasure.state, ErasureState::Done, "{erasure:?}");
    assert_eq!(client.erasure(receipt.id).await.unwrap(), Some(erasure));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_stored_can_be_counted_exported_and_erased_embedded() {
    everything_that_is_stored_can_be_counted_exported_and_erased(&embedded_server().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_stored_can_be_counted_exported_and_erased_on_kafka_and_mongodb() {
    let server = ready(Deployment::shared().await.server("all")).await;
    everything_that_is_stored_can_be_counted_exported_and_erased(&server).await;
}
