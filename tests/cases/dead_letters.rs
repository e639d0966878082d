//! Dead letters as an operator sees them: listed, shown, and replayed after their cause is fixed.

mod conflicts;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bson::doc;
use eyego_log_server::domain::dead_letter::{DeadLetter, DeadLetterSummary, DeadLetters as _};
use eyego_log_server::infrastructure::repository::mongodb::MongoDeadLetters;
use eyego_log_server::infrastructure::repository::sqlite::{SqliteDeadLetters, SqliteStore};
use serde_json::{Value, json};
use stack::eventually;
use stack::server::{Server, ServerBuilder};
use tempfile::TempDir;

use crate::conformance::{at, id};
use crate::fixture::{
    Deployment, TIMEOUT, get, logs, open_data_dir, post, post_log, ready, send, stored, url,
};

pub(crate) fn dead_letter(n: u32, code: &str, raw: &[u8]) -> DeadLetter {
    let summary = DeadLetterSummary {
        id: id(n),
        truncated_from: None,
        user_id: None,
        topic: "logs-topic".to_owned(),
        partition: 2,
        offset: i64::from(n),
        queued_at: at(1_000),
        code: code.to_owned(),
        message: "no".to_owned(),
        attempts: 3,
        failed_at: at(1_768_435_085_000 + i64::from(n)),
    };
    DeadLetter { summary, raw: raw.to_vec() }
}

/// A dead letter whose cause is fixed.
fn storable(n: u32) -> DeadLetter {
    let raw = json!({"id": id(n), "userId": "ada", "action": "A", "metadata": {"n": n}});
    dead_letter(n, "mongodb_121", raw.to_string().as_bytes())
}

pub(crate) async fn put(data: &Path, dead_letters: &[DeadLetter]) {
    let store = SqliteStore::open(&open_data_dir(data)).unwrap();
    let port = SqliteDeadLetters::new(Arc::clone(&store));
    for dead_letter in dead_letters {
        port.put(dead_letter).await.unwrap();
    }
    store.close(Instant::now() + TIMEOUT).await;
}

async fn server_with(dead_letters: &[DeadLetter]) -> (Server, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), dead_letters).await;
    (ready(Server::builder().data_dir(dir.path())).await, dir)
}

async fn replay(server: &Server, what: Value) -> (u16, Value) {
    post(server, "/api/v1/dead-letters/replay", &what).await
}

fn ids(page: &Value) -> Vec<&str> {
    page["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn dead_letters_are_listed_newest_first_by_cursor() {
    let code = |n| if n % 2 == 0 { "even" } else { "odd" };
    let dead_letters: Vec<_> = (0..25).map(|n| dead_letter(n, code(n), b"{}")).collect();
    let (server, _dir) = server_with(&dead_letters).await;
    let (status, first) = get(&server, "/api/v1/dead-letters").await;
    assert_eq!((status, &first["status"], &first["results"]), (200, &json!("success"), &json!(10)));
    assert_eq!(
        first["data"][0],
        json!({"id": id(24), "code": "even", "message": "no", "attempts": 3, "userId": null,
               "topic": "logs-topic", "partition": 2, "offset": 24,
               "queuedAt": "1970-01-01T00:00:01.000Z", "failedAt": "2026-01-14T23:58:05.024Z"})
    );
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/dead-letters?code=odd&limit=5{cursor}");
        let (_, page) = get(&server, &path).await;
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let odd: Vec<_> = (0..25).rev().filter(|n| n % 2 == 1).map(|n| id(n).to_string()).collect();
    assert_eq!(seen, odd);
    let window = "from=2026-01-14T23:58:05.003Z&to=2026-01-14T23:58:05.005Z";
    let (_, page) = get(&server, &format!("/api/v1/dead-letters?{window}")).await;
    assert_eq!(ids(&page), [id(4).to_string(), id(3).to_string()]);

    for (query, path) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("code=", "code"),
        ("code=a&code=a", "code"),
        ("userId=u", "userId"),
        ("from=yesterday", "from"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("cursor=x", "cursor"),
    ] {
        let (status, body) = get(&server, &format!("/api/v1/dead-letters?{query}")).await;
        assert_eq!((status, &body["errors"][0]["path"]), (400, &json!(path)), "{query}: {body}");
    }
}

#[tokio::test]
async fn dead_letter_is_shown_with_its_bytes() {
    let cut = DeadLetter {
        summary: DeadLetterSummary {
            truncated_from: Some(99),
            ..dead_letter(3, "too_large", b"").summary
        },
        raw: b"{\"userId".to_vec(),
    };
    let dead_letters =
        [dead_letter(1, "a", "{\"ü".as_bytes()), dead_letter(2, "a", b"\xff\xfe"), cut];
    let (server, _dir) = server_with(&dead_letters).await;
    let one = async |n| get(&server, &format!("/api/v1/dead-letters/{}", id(n))).await;
    let (status, body) = one(1).await;
    assert_eq!((status, &body["data"]["raw"]), (200, &json!("{\"ü")));
    let (_, body) = one(2).await;
    assert_eq!((&body["data"]["rawBase64"], &body["data"]["raw"]), (&json!("//4="), &Value::Null));
    let (_, body) = one(3).await;
    assert_eq!((&body["data"]["raw"], &body["data"]["cutFrom"]), (&json!("{\"userId"), &json!(99)));
    assert_eq!(one(4).await.0, 404);
    assert_eq!(get(&server, "/api/v1/dead-letters/x").await.0, 400);

    let (status, body) = replay(&server, json!({"id": id(3)})).await;
    assert_eq!((status, &body["status"]), (409, &json!("fail")), "{body}");
    assert!(body["message"].as_str().unwrap().contains("99 bytes"), "{body}");
    let (status, body) = replay(&server, json!({"id": id(4)})).await;
    assert_eq!(status, 404);
    assert!(body["message"].as_str().unwrap().contains(&id(4).to_string()), "{body}");
    for bad in
        [json!({}), json!({"all": false}), json!({"id": 1}), json!({"all": true, "code": "a"})]
    {
        assert_eq!(replay(&server, bad.clone()).await.0, 400, "{bad}");
    }
    let (status, body) = post(&server, "/api/v1/dead-letters/replay?dry=1", &json!({})).await;
    assert_eq!((status, &body["errors"][0]["path"]), (400, &json!("dry")));
}

/// Dead letters whose bytes do not fit in a response: an event with many escapes, control characters,
/// and bytes that are not UTF-8.
fn large_dead_letters() -> [DeadLetter; 3] {
    let quotes = "\"".repeat(7 << 20);
    let event = json!({"id": id(1), "userId": "ada", "action": "A", "metadata": {"x": quotes}});
    let bytes: Vec<u8> = (0..15 << 20).map(|n: u32| (n % 251) as u8 | 0x80).collect();
    [
        dead_letter(1, "mongodb_121", event.to_string().as_bytes()),
        dead_letter(2, "not_a_record", &[1; 14 << 20]),
        dead_letter(3, "not_a_record", &bytes),
    ]
}

async fn large_dead_letters_are_shown_in_parts_and_replayed_whole(server: &Server) {
    const MAX_RESPONSE: usize = (16 << 20) + 4096;

    for dead_letter in large_dead_letters() {
        let base = url(server, &format!("/api/v1/dead-letters/{}", dead_letter.summary.id));
        let (mut all, mut next) = (Vec::new(), Some(0));
        let mut parts = 0;
        while let Some(offset) = next {
            let response = reqwest::get(format!("{base}?offset={offset}")).await.unwrap();
            assert_eq!(response.status(), 200);
            let body = response.bytes().await.unwrap();
            assert!(body.len() <= MAX_RESPONSE, "{} bytes", body.len());
            let body: Value = serde_json::from_slice(&body).unwrap();
            let data = &body["data"];
            assert_eq!(data["rawSize"], json!(dead_letter.raw.len()));
            match data["raw"].as_str() {
                Some(text) => all.extend_from_slice(text.as_bytes()),
                None => {
                    let encoded = data["rawBase64"].as_str().unwrap();
                    all.extend(BASE64_STANDARD.decode(encoded).unwrap());
                }
            }
            next = data["nextOffset"].as_u64();
            parts += 1;
        }
        assert!(parts > 1);
        assert!(all == dead_letter.raw, "the joined parts differ");
        let past_the_end = format!("{base}?offset={}", dead_letter.raw.len());
        let (status, body) = send(reqwest::Client::new().get(past_the_end)).await;
        assert_eq!((status, &body["errors"][0]["path"]), (400, &json!("offset")), "{body}");
    }
    let (status, body) = replay(server, json!({"id": id(1)})).await;
    assert_eq!((status, body), (200, replayed(1, 0, 0)));
    let stored = stored(server, &id(1).to_string()).await;
    assert_eq!(stored["metadata"]["x"].as_str().map(str::len), Some(7 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_dead_letters_are_shown_in_parts_and_replayed_whole_embedded() {
    let (server, _dir) = server_with(&large_dead_letters()).await;
    large_dead_letters_are_shown_in_parts_and_replayed_whole(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_dead_letters_are_shown_in_parts_and_replayed_whole_on_mongodb() {
    let deployment = Deployment::shared().await;
    let server = ready(deployment.server("all")).await;
    let connection = crate::mongodb::connect(&deployment.uri, &deployment.database, true);
    let port = MongoDeadLetters::new(Arc::clone(&connection));
    for dead_letter in large_dead_letters() {
        eventually("a dead letter to be stored", TIMEOUT, async || {
            Ok(port.put(&dead_letter).await?)
        })
        .await
        .unwrap();
    }
    connection.shutdown(Instant::now() + TIMEOUT).await;
    large_dead_letters_are_shown_in_parts_and_replayed_whole(&server).await;
}

#[tokio::test]
async fn replay_stores_what_it_can_and_counts_the_rest() {
    let mut dead_letters: Vec<_> = (0..900).map(storable).collect();
    dead_letters.push(dead_letter(5000, "not_a_record", b"not JSON"));
    let without_id = json!({"id": null, "userId": "legacy", "action": "A"});
    dead_letters.push(dead_letter(5001, "mongodb_121", without_id.to_string().as_bytes()));
    let (server, _dir) = server_with(&dead_letters).await;
    // A replay of a log that has been stored since only removes the dead letter.
    let stored = json!({"id": id(7), "userId": "ada", "action": "A", "metadata": {"n": 7}});
    assert_eq!(post_log(&server, &stored).await.0, 202);

    let (status, body) = replay(&server, json!({"id": id(5)})).await;
    assert_eq!((status, body), (200, replayed(1, 0, 0)));
    assert_eq!(replay(&server, json!({"id": id(5)})).await.0, 404);
    let (status, body) = replay(&server, json!({"code": "mongodb_121"})).await;
    assert_eq!((status, body), (200, replayed(900, 0, 0)));
    logs(&server, "userId=ada", 900).await;
    assert_eq!(logs(&server, "userId=legacy", 1).await[0]["id"], json!(id(5001)));

    for attempts in 4..=5 {
        let (status, body) = replay(&server, json!({"all": true})).await;
        assert_eq!((status, body), (200, replayed(0, 1, 1)));
        let (_, page) = get(&server, "/api/v1/dead-letters").await;
        assert_eq!((&page["results"], &page["nextCursor"]), (&json!(1), &Value::Null));
        assert_eq!(page["data"][0]["id"], json!(id(5000)));
        assert_eq!(page["data"][0]["attempts"], json!(attempts), "the same dead letter");
    }
    assert_eq!(replay(&server, json!({"code": "none such"})).await.1, replayed(0, 0, 0));
}

/// Runs a command of the server's binary against a running server.
async fn command(server: &Server, args: &[&str]) -> (bool, String) {
    let builder = Server::builder().arg("dead-letters").port(server.port());
    let command = args.iter().fold(builder, ServerBuilder::arg).launch().await.unwrap();
    let status = command.wait_exit(TIMEOUT).await.unwrap();
    (status.success(), command.log())
}

#[tokio::test]
async fn subcommands_list_show_and_replay() {
    let dead_letters = [storable(1), storable(2), dead_letter(3, "not_a_record", b"not JSON")];
    let (server, _dir) = server_with(&dead_letters).await;
    let listed = async |args: &[&str]| {
        let (succeeded, output) = command(&server, &[&["list"], args].concat()).await;
        assert!(succeeded, "{output}");
        (1..=3).filter(|n| output.contains(&id(*n).to_string())).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]).await, [1, 2, 3]);
    assert_eq!(listed(&["--code", "mongodb_121", "--limit", "1"]).await, [2]);
    assert_eq!(listed(&["--to", "2026-01-15T00:58:05.002+01:00"]).await, [1]);

    let (succeeded, output) = command(&server, &["show", &id(3).to_string()]).await;
    assert!(succeeded && output.contains("\"raw\": \"not JSON\""), "{output}");
    let (succeeded, output) = command(&server, &["replay", "--id", &id(1).to_string()]).await;
    assert!(succeeded && output.contains("\"replayed\": 1"), "{output}");
    let (succeeded, output) = command(&server, &["replay", "--id", &id(1).to_string()]).await;
    assert!(!succeeded && output.contains("404") && output.contains("no dead letter"), "{output}");
    let (succeeded, output) = command(&server, &["replay", "--all"]).await;
    assert!(succeeded && output.contains("\"remaining\": 1"), "{output}");
    assert_eq!(listed(&[]).await, [3]);
    for wrong in [&["replay"][..], &["replay", "--all", "--code", "x"], &["show"], &["forget"]] {
        assert!(!command(&server, wrong).await.0, "{wrong:?}");
    }
}

fn replayed(replayed: u64, failed: u64, remaining: u64) -> Value {
    json!({"status": "success", "replayed": replayed, "failed": failed, "remaining": remaining})
}

#[tokio::test(flavor = "multi_thread")]
async fn records_rejected_by_a_validator_are_replayed_after_its_removal() {
    let deployment = Deployment::shared().await;
    let database = deployment.database().await;
    let validator = doc! {"action": {"$ne": "REFUSED"}};
    database.run_command(doc! {"create": "logs", "validator": validator}).await.unwrap();
    let server = ready(deployment.server("all")).await;
    for n in 0..20 {
        let action = if n % 4 == 0 { "REFUSED" } else { "A" };
        let event = json!({"id": id(n), "userId": "ada", "action": action, "metadata": {"n": n}});
        assert_eq!(post_log(&server, &event).await.0, 202);
    }
    deployment.produce("ada", b"\xff not JSON").await;
    logs(&server, "", 15).await;
    eventually("six dead letters", TIMEOUT, async || {
        let (_, page) = get(&server, "/api/v1/dead-letters?limit=100").await;
        ensure!(page["results"] == 6, "{page}\n{}", server.log());
        Ok(())
    })
    .await
    .unwrap();
    let (_, body) = get(&server, &format!("/api/v1/dead-letters/{}", id(4))).await;
    let shown = &body["data"];
    assert_eq!((&shown["code"], &shown["userId"]), (&json!("mongodb_121"), &json!("ada")));
    let raw: Value = serde_json::from_str(shown["raw"].as_str().unwrap()).unwrap();
    assert_eq!((&raw["id"], &raw["metadata"]["n"]), (&json!(id(4)), &json!(4)));

    assert_eq!(replay(&server, json!({"code": "mongodb_121"})).await, (200, replayed(0, 5, 5)));
    let (_, again) = get(&server, &format!("/api/v1/dead-letters/{}", id(4))).await;
    let attempts = |dead_letter: &Value| dead_letter["attempts"].as_u64().unwrap();
    assert_eq!(attempts(&again["data"]), attempts(shown) + 1);
    assert_eq!(again["data"]["raw"], shown["raw"]);

    database.run_command(doc! {"collMod": "logs", "validator": {}}).await.unwrap();
    assert_eq!(replay(&server, json!({"all": true})).await, (200, replayed(5, 1, 1)));
    assert_eq!(logs(&server, "action=REFUSED", 5).await.len(), 5);
    logs(&server, "", 20).await;
}
