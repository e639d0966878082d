//! The dashboard in a real browser, against the real server. The tests themselves are in
//! `tests/browser`.

use std::time::SystemTime;

use eyego_log_core::Timestamp;
use eyego_log_server::domain::dead_letter::DeadLetter;
use serde_json::json;
use stack::browser;
use stack::keys::KeysFile;
use stack::server::Server;

use crate::conformance::id;
use crate::dead_letters::{dead_letter, put};
use crate::fixture::{Deployment, embedded_server, ready, url};
use crate::sources::workspace;

/// What the tests of dead letters expect.
fn dead_letters() -> Vec<DeadLetter> {
    let storable = (0..7).map(|n| {
        let user = format!("replay-{n}");
        let raw = json!({"id": id(n), "userId": user, "action": "REPLAYED"});
        let mut dead_letter = dead_letter(n, "mongodb_121", raw.to_string().as_bytes());
        dead_letter.summary.user_id = Some(user);
        dead_letter.summary.message = "Document failed validation".to_owned();
        dead_letter
    });
    let not_utf8 = (7..10).map(|n| {
        let mut dead_letter = dead_letter(n, "not_a_record", &[0xff, 0xfe, 0, b'x']);
        dead_letter.summary.message = "the record is not a JSON object: not UTF-8".to_owned();
        dead_letter
    });
    let mut truncated = dead_letter(10, "too_large", br#"{"userId":"#);
    truncated.summary.truncated_from = Some(17_301_504);
    truncated.summary.message =
        "the document has 17301610 bytes; MongoDB stores up to 16777216".to_owned();
    let mut dead_letters: Vec<_> = storable.chain(not_utf8).chain([truncated]).collect();
    let now = Timestamp::from(SystemTime::now()).as_millis();
    for (minutes, dead_letter) in (1..).zip(&mut dead_letters) {
        let failed = now - minutes * 7 * 60_000;
        dead_letter.summary.failed_at = Timestamp::from_millis_clamped(failed);
        dead_letter.summary.queued_at = Timestamp::from_millis_clamped(failed - 450);
    }
    dead_letters
}

/// Runs the browser tests whose names match `pattern`, and keeps their screenshots below
/// `target/dashboard`.
async fn run(server: &Server, empty: &Server, pattern: &str, pictures: &str) {
    let keys = KeysFile::new().unwrap();
    let token = keys.add("reader", &["ingest", "read"]).unwrap();
    let keyed = ready(Server::builder().env("EYEGO_KEYS_FILE", keys.path())).await;
    let mut command = browser::command(&server.base_url(), &empty.base_url(), pattern).unwrap();
    command
        .env("EYEGO_KEYED_URL", keyed.base_url())
        .env("EYEGO_KEY", token)
        .env("EYEGO_PICTURES", workspace().join("target/dashboard").join(pictures));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
    // A pattern that matches nothing would succeed as well.
    assert!(!out.contains("pass 0"), "no browser test ran\n{out}");
}

#[tokio::test]
async fn each_view_works_in_a_browser() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &dead_letters()).await;
    let server = ready(Server::builder().data_dir(dir.path())).await;
    run(&server, &embedded_server().await, "", "embedded").await;
}

#[tokio::test]
async fn main_paths_work_on_kafka_and_mongodb() {
    let server = ready(Deployment::shared().await.server("all")).await;
    let empty = ready(Deployment::shared().await.server("all")).await;
    let pattern = "pages follow|the last hour|the drawer shows|new events appear|rates, balances|\
                   the first event is sent";
    run(&server, &empty, pattern, "kafka").await;
}

#[tokio::test]
async fn page_needs_nothing_but_the_server_and_is_cached_by_version() {
    let server = embedded_server().await;
    let client = reqwest::Client::new();
    let get = |path: String| client.get(url(&server, &path)).send();
    let page = get("/".to_owned()).await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert_eq!(page.headers()["cache-control"], "no-cache");
    let page = page.text().await.unwrap();
    assert!(!page.contains("<script>") && !page.contains("<style"), "{page}");
    let files: Vec<_> = page.split('"').filter(|part| part.starts_with("assets/")).collect();
    assert_eq!(files.len(), 2, "{page}");
    for file in files {
        let response = get(format!("/{file}")).await.unwrap();
        assert_eq!(response.status(), 200, "{file}");
        let cached = response.headers()["cache-control"].to_str().unwrap();
        assert!(cached.contains("immutable"), "{file}: {cached}");
    }
    assert_eq!(get("/assets/nothing.js".to_owned()).await.unwrap().status(), 404);
}
