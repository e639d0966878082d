//! schemathesis sends requests that the document allows, and requests that it forbids, to every route.

use stack::keys::KeysFile;
use stack::openapi::tools;
use stack::server::Server;

use super::clients::output;
use crate::fixture::ready;

/// Cases per operation and phase. The run takes about 20 s.
const MAX_EXAMPLES: &str = "20";

#[tokio::test]
async fn every_response_to_generated_requests_conforms_to_the_document() {
    let keys = KeysFile::new().unwrap();
    let scopes = ["ingest", "read", "erase", "admin", "metrics"];
    let token = keys.add("all", &scopes).unwrap();
    let server = ready(Server::builder().env("EYEGO_KEYS_FILE", keys.path())).await;
    let scratch = tempfile::tempdir().unwrap();
    let mut command = tools::python(&tools::file("").unwrap()).unwrap();
    command
        .current_dir(scratch.path())
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .args(["-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"])
        .arg(format!("{}/openapi.json", server.base_url()))
        .args(["--seed", &std::env::var("EYEGO_TEST_SEED").unwrap_or_else(|_| "1".to_owned())])
        // With several threads, Python's `ast` now and then fails ("recursion depth mismatch").
        .args(["--max-examples", MAX_EXAMPLES, "--workers", "1", "--continue-on-failure"])
        // Rules between parameters cannot be stated in a document: a request can match it and be a 400.
        .args(["--exclude-checks", "positive_data_acceptance", "--warnings", "off"])
        // Its responses do not end.
        .args(["--exclude-operation-id", "tailEvents"])
        .args(["--header", &format!("Authorization: Bearer {token}")]);
    let report = output(command).await;
    assert!(report.contains("No issues found"), "{report}");
    let passed = report.lines().find_map(|line| line.trim().split(" generated, ").nth(1));
    let passed: u32 = passed.and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0);
    assert!(passed > 500, "only {passed} cases\n{report}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
