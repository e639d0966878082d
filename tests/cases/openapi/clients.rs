//! Generated clients compile and work: each posts an event and reads it back.

use std::process::Command;

use stack::keys::KeysFile;
use stack::openapi::tools::{self, NodeDir};
use stack::server::Server;

use crate::fixture::ready;

/// Runs a command, and returns what it printed.
pub(super) async fn output(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{}\n{text}", output.status);
    text
}

/// Starts a server with a key for the clients, and returns its token.
async fn server() -> (Server, KeysFile, String) {
    let keys = KeysFile::new().unwrap();
    let token = keys.add("generated", &["ingest", "read"]).unwrap();
    (ready(Server::builder().env("EYEGO_KEYS_FILE", keys.path())).await, keys, token)
}

#[tokio::test]
async fn generated_typescript_client_posts_and_reads() {
    let (server, _keys, token) = server().await;
    let dir = NodeDir::new(&["client.ts"]).unwrap();
    let document = format!("{}/openapi.json", server.base_url());
    let mut generate = dir.command("openapi-typescript");
    generate.args([document.as_str(), "--output", "schema.d.ts"]);
    output(generate).await;
    let mut compile = dir.command("tsc");
    compile.args([
        "--strict",
        "--target",
        "es2022",
        "--module",
        "nodenext",
        "--types",
        "node",
        "client.ts",
    ]);
    output(compile).await;
    let mut run = Command::new("node");
    run.arg("client.js").current_dir(dir.path());
    run.env("EYEGO_URL", server.base_url()).env("EYEGO_KEY", token);
    assert!(output(run).await.ends_with("ok\n"));
}

#[tokio::test]
async fn generated_python_client_posts_and_reads() {
    let (server, _keys, token) = server().await;
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yml");
    // Formatting would need another program.
    std::fs::write(&config, "post_hooks: []\n").unwrap();
    let mut generate = tools::python(dir.path()).unwrap();
    generate
        .args(["-m", "openapi_python_client", "generate", "--meta", "none", "--url"])
        .arg(format!("{}/openapi.json", server.base_url()))
        .arg("--output-path")
        .arg(dir.path().join("eyego_log"))
        .arg("--config")
        .arg(config);
    output(generate).await;
    let mut run = tools::python(dir.path()).unwrap();
    run.arg(tools::file("client.py").unwrap());
    run.env("EYEGO_URL", server.base_url()).env("EYEGO_KEY", token);
    assert!(output(run).await.ends_with("ok\n"));
}
