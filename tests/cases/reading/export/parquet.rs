//! Parquet files, read with `DuckDB` and compared with the export as NDJSON.

use eyego_log_core::Timestamp;
use serde_json::{Value, json};
use stack::parquet::{self, Table};
use stack::server::Server;

use super::{export, exported, store_all};
use crate::fixture::{Deployment, embedded_server, ready};

/// Events with values that a format could change.
fn events(user: &str) -> Vec<Value> {
    let metadata = [
        json!({}),
        json!({"integers": [i64::MIN, i64::MAX, 0], "float": 0.1, "small": 5e-324, "large": 1.5e308}),
        json!({"text": "\u{0} \n\t\"\\ <script>alert(1)</script>", "rtl": "\u{202e}שלום مرحبا"}),
        json!({"emoji": "👩‍👩‍👧‍👦", "": "an empty key", "a.b": {"c": [null, true, {"d": []}]}}),
        json!({"long": "x".repeat(60_000)}),
        json!({"page": "home", "price": 1.0, "count": 1}),
    ];
    let times = [
        "0001-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999Z",
        "1970-01-01T00:00:00Z",
        "2024-02-29T12:00:00.001+05:30",
        "2026-01-14T23:58:05.442Z",
    ];
    let users = ["ü", "\u{202e}مرحبا", "line\nbreak", "=1+1", &"u".repeat(256)];
    let mut events = Vec::new();
    for (n, metadata) in metadata.iter().cycle().take(600).enumerate() {
        let user_id = [user, users[n / 6 % users.len()]][usize::from(n % 4 == 0)];
        let mut metadata = metadata.clone();
        metadata["n"] = json!(n);
        events.push(json!({"userId": user_id, "action": format!("A{}", n % 3),
                           "timestamp": times[n % times.len()], "metadata": metadata}));
    }
    events
}

async fn export_table(server: &Server, query: &str) -> Table {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), export(server, query, "").await.body).unwrap();
    parquet::read(file.path()).unwrap()
}

/// Exports everything in both formats.
async fn parquet_has_the_values_of_ndjson(server: &Server) {
    store_all(server, &events("ada")).await;
    let lines = exported(server, "order=asc").await;
    assert_eq!(lines.len(), 600);
    let table = export_table(server, "order=asc&format=parquet").await;
    assert_eq!(table.names, ["id", "userId", "action", "timestamp", "metadata"]);
    assert_eq!(table.rows.len(), lines.len());
    for (row, event) in table.rows.iter().zip(&lines) {
        for (cell, name) in row.iter().zip(["id", "userId", "action"]) {
            assert_eq!(*cell, event[name], "{row:?}");
        }
        let time = Timestamp::from_millis(row[3].as_i64().unwrap()).unwrap();
        assert_eq!(event["timestamp"], time.to_string());
        let metadata: Value = serde_json::from_str(row[4].as_str().unwrap()).unwrap();
        assert_eq!(metadata, event["metadata"]);
    }

    let columns = "columns=metadata.page,metadata.price,metadata.integers,metadata.none";
    let table = export_table(server, &format!("order=asc&format=parquet&{columns}")).await;
    assert_eq!(
        table.names[4..],
        ["metadata.page", "metadata.price", "metadata.integers", "metadata.none"]
    );
    assert_eq!(table.rows.len(), lines.len());
    for (row, event) in table.rows.iter().zip(&lines) {
        let metadata = &event["metadata"];
        assert_eq!(row[4], metadata["page"]);
        for (cell, name) in row[5..].iter().zip(["price", "integers", "none"]) {
            let value = cell.as_str().map(|json| serde_json::from_str::<Value>(json).unwrap());
            assert_eq!(value.as_ref(), metadata.get(name), "{row:?}");
        }
    }
    let empty = export_table(server, "format=parquet&userId=nobody").await;
    assert_eq!((empty.names.len(), empty.rows.len()), (5, 0));
}

#[tokio::test]
async fn another_reader_finds_the_values_of_the_export_as_ndjson() {
    parquet_has_the_values_of_ndjson(&embedded_server().await).await;
}

#[tokio::test]
async fn another_reader_finds_the_values_of_mongodb() {
    parquet_has_the_values_of_ndjson(&ready(Deployment::shared().await.server("all")).await).await;
}
