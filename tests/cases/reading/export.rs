//! `GET /api/v1/logs/export`.

mod parquet;

use std::io::Read as _;

use ::parquet::file::reader::{FileReader as _, SerializedFileReader};
use ::parquet::record::{Row, RowAccessor as _};
use axum::body::Bytes;
use serde_json::{Value, json};
use stack::openapi::{self, Received};
use stack::server::Server;

use super::{event, exported, store_all};
use crate::access::audit_lines;
use crate::fixture::{TIMEOUT, embedded_server, get, logged, logs, ready, url};
use crate::http::paths;

const EXPORT: &str = "/api/v1/logs/export";

/// Stores more events than a page has.
async fn filled_server(count: usize) -> Server {
    filled_server_with(count, "home").await
}

/// Stores more than the buffers of a connection take, so that an unread export does not end.
async fn server_with_large_export() -> Server {
    filled_server_with(5_000, &"x".repeat(8_000)).await
}

async fn filled_server_with(count: usize, page: &str) -> Server {
    let server = embedded_server().await;
    let events: Vec<_> = (0..count)
        .map(|n| {
            let millis = 1_767_225_600_000 + i64::try_from(n).unwrap();
            let mut event = event(n, ["ada", "bob"][n % 2], "A", millis);
            event["metadata"]["page"] = json!(page);
            event
        })
        .collect();
    store_all(&server, &events).await;
    server
}

/// Starts an export.
async fn start_export(server: &Server, query: &str) -> reqwest::Response {
    reqwest::get(url(server, &format!("{EXPORT}?{query}"))).await.unwrap()
}

/// Receives a whole export, which must conform to the OpenAPI document.
async fn export(server: &Server, query: &str, encoding: &str) -> Received {
    let request = reqwest::Client::new().get(url(server, &format!("{EXPORT}?{query}")));
    let received = openapi::send(request.header("accept-encoding", encoding)).await.unwrap();
    assert_eq!(received.status, 200);
    received
}

async fn export_text(server: &Server, query: &str) -> String {
    String::from_utf8(export(server, query, "").await.body).unwrap()
}

fn header<'a>(response: &'a Received, name: &str) -> &'a str {
    response.headers[name].to_str().unwrap()
}

#[tokio::test]
async fn export_returns_each_matching_event_once_in_order() {
    let server = filled_server(4_300).await;
    let response = export(&server, "userId=ada&order=asc", "").await;
    assert_eq!(header(&response, "content-type"), "application/x-ndjson");
    let name = header(&response, "content-disposition");
    assert!(name.starts_with("attachment; filename=\"eyego-logs-20"), "{name}");
    assert!(name.ends_with("Z.ndjson\""), "{name}");
    let text = String::from_utf8(response.body).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<_> =
        events.iter().map(|event| event["metadata"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..4_300).step_by(2).collect::<Vec<_>>());
    // The newest first, exactly as the list has them.
    let latest = exported(&server, "from=2026-01-01T00:00:04Z").await;
    assert_eq!(latest, logs(&server, "from=2026-01-01T00:00:04Z", 300).await);
    assert_eq!(export_text(&server, "userId=nobody").await, "");
}

#[tokio::test]
async fn compressed_exports_have_the_same_content() {
    let server = filled_server(3_000).await;
    let plain = export(&server, "format=csv", "").await.body;
    for encoding in ["gzip", "zstd"] {
        // Its lines conform to the OpenAPI document.
        export(&server, "format=ndjson", encoding).await;
        let response = export(&server, "format=csv", encoding).await;
        assert_eq!(header(&response, "content-encoding"), encoding);
        let body = response.body;
        assert!(body.len() < plain.len() / 2);
        let mut content = Vec::new();
        match encoding {
            "gzip" => flate2::read::GzDecoder::new(&*body).read_to_end(&mut content).unwrap(),
            _ => {
                zstd::stream::read::Decoder::new(&*body).unwrap().read_to_end(&mut content).unwrap()
            }
        };
        assert!(content == plain, "{encoding}");
    }
}

#[tokio::test]
async fn csv_has_the_chosen_columns() {
    let server = embedded_server().await;
    let events = [json!({"userId": "=1+1", "action": "a,b", "timestamp": "2026-01-01T00:00:00Z",
                         "metadata": {"page": "home", "cart": {"total": 5}}})];
    store_all(&server, &events).await;
    let response =
        export(&server, "format=csv&columns=metadata.cart.total,metadata.none", "").await;
    assert!(header(&response, "content-type").starts_with("text/csv"));
    let text = String::from_utf8(response.body).unwrap();
    let (head, row) = text.split_once("\r\n").unwrap();
    assert_eq!(head, "id,userId,action,timestamp,metadata.cart.total,metadata.none");
    assert!(row.ends_with(",'=1+1,\"a,b\",2026-01-01T00:00:00.000Z,5,\r\n"), "{row}");
}

#[tokio::test]
async fn parquet_has_the_events_of_the_list_in_bounded_row_groups() {
    // About 10 MB, more than two row groups.
    let server = filled_server_with(5_000, &"x".repeat(2_000)).await;
    let response = export(&server, "format=parquet&order=asc", "gzip").await;
    assert_eq!(header(&response, "content-type"), "application/vnd.apache.parquet");
    assert!(header(&response, "content-disposition").ends_with("Z.parquet\""));
    assert!(!response.headers.contains_key("content-encoding"), "it is compressed already");
    let file = SerializedFileReader::new(Bytes::from(response.body)).unwrap();
    for group in file.metadata().row_groups() {
        assert!(group.total_byte_size() < 6 << 20, "{}", group.total_byte_size());
    }
    assert!(file.num_row_groups() > 2);
    let rows: Vec<Row> = file.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 5_000);
    let first = logs(&server, "order=asc", 1_000).await;
    for (n, row) in rows.iter().enumerate() {
        let metadata: Value = serde_json::from_str(row.get_string(4).unwrap()).unwrap();
        assert_eq!(metadata["n"], n);
        assert_eq!(
            row.get_timestamp_millis(3).unwrap(),
            1_767_225_600_000 + i64::try_from(n).unwrap()
        );
        if let Some(listed) = first.get(n) {
            let texts = [0, 1, 2].map(|column| row.get_string(column).unwrap().as_str());
            assert_eq!(json!(texts), json!([listed["id"], listed["userId"], listed["action"]]));
            assert_eq!(metadata, listed["metadata"]);
        }
    }
}

#[tokio::test]
async fn parquet_has_the_chosen_columns_and_may_be_empty() {
    let server = embedded_server().await;
    let event = |metadata: Value, second: u8| {
        json!({"userId": "ü", "action": "A", "metadata": metadata,
               "timestamp": format!("2026-01-01T00:00:0{second}Z")})
    };
    let events = [
        event(json!({"page": "home", "cart": {"total": 5}}), 1),
        event(json!({"page": null, "cart": {}}), 2),
        event(json!({}), 3),
    ];
    store_all(&server, &events).await;
    let query = "format=parquet&order=asc&columns=metadata.page,metadata.cart,metadata.cart.total";
    let file = SerializedFileReader::new(Bytes::from(export(&server, query, "").await.body));
    let file = file.unwrap();
    let schema = file.metadata().file_metadata().schema_descr().root_schema().clone();
    let names: Vec<_> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let fixed = ["id", "userId", "action", "timestamp"];
    assert_eq!(names[..4], fixed);
    assert_eq!(names[4..], ["metadata.page", "metadata.cart", "metadata.cart.total"]);
    let rows: Vec<Row> = file.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    let cells = |row: &Row| [4, 5, 6].map(|n| row.get_string(n).ok().cloned());
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(cells(&rows[0]), [text("home"), text("{\"total\":5}"), text("5")]);
    assert_eq!(cells(&rows[1]), [text("null"), text("{}"), None]);
    assert_eq!(cells(&rows[2]), [None, None, None]);
    assert_eq!(rows[0].get_string(1).unwrap(), "ü");

    let empty = export(&server, "format=parquet&userId=nobody", "").await.body;
    let empty = SerializedFileReader::new(Bytes::from(empty)).unwrap();
    assert_eq!(empty.get_row_iter(None).unwrap().count(), 0);
}

#[tokio::test]
async fn line_breaks_in_metadata_do_not_break_ndjson() {
    let server = embedded_server().await;
    let body = "{\"userId\":\"u\",\"action\":\"A\",\"metadata\":{\n\"a\":\r\n1}}";
    let request = reqwest::Client::new().post(url(&server, "/api/v1/logs?wait=stored"));
    let response =
        request.header("content-type", "application/json").body(body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let text = export_text(&server, "").await;
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(event["metadata"], json!({"a": 1}));
}

#[tokio::test]
async fn invalid_export_returns_400_with_what_is_possible() {
    let server = embedded_server().await;
    for (query, path, message) in [
        ("format=xlsx", "format", "ndjson, csv or parquet"),
        ("format=csv&columns=page", "columns", "metadata.page"),
        ("format=csv&columns=metadata.a,metadata.b,metadata.a", "columns", "metadata.a twice"),
        ("columns=metadata.page", "columns", "format=csv"),
        ("cursor=1", "cursor", "those are userId"),
        ("from=yesterday", "from", "RFC 3339"),
    ] {
        let (status, body) = get(&server, &format!("{EXPORT}?{query}")).await;
        assert_eq!((status, paths(&body)), (400, vec![path]), "{query}: {body}");
        assert!(body["message"].as_str().unwrap().contains(message), "{body}");
    }
}

#[tokio::test]
async fn a_stream_over_http_1_0_is_refused_because_its_end_cannot_be_told() {
    let server = embedded_server().await;
    for path in [EXPORT, "/api/v1/logs/tail"] {
        let request = reqwest::Client::new().get(url(&server, path));
        let response = request.version(reqwest::Version::HTTP_10).send().await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        let text = response.text().await.unwrap();
        assert!(text.contains("needs HTTP/1.1"), "{path}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_have_a_limit_that_ends_with_the_client() {
    let server = server_with_large_export().await;
    let mut running = Vec::new();
    for _ in 0..4 {
        running.push(start_export(&server, "").await);
    }
    let (status, body) = get(&server, EXPORT).await;
    assert_eq!(status, 503, "{body}");
    assert!(body["message"].as_str().unwrap().contains("4 exports"), "{body}");
    assert_eq!(get(&server, "/api/v1/logs?limit=1").await.0, 200, "the list has its own limit");
    drop(running);
    let freed = stack::eventually("an export to be possible", TIMEOUT, async || {
        anyhow::ensure!(start_export(&server, "limit=").await.status() == 400);
        anyhow::ensure!(start_export(&server, "userId=nobody").await.status() == 200);
        Ok(())
    });
    freed.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn export_cut_off_by_a_stop_is_seen_as_truncated() {
    let server = server_with_large_export().await;
    let mut response = start_export(&server, "").await;
    assert!(response.chunk().await.unwrap().is_some());
    let (status, rest) = tokio::join!(server.terminate(), async {
        loop {
            match response.chunk().await {
                Ok(Some(_)) => {}
                end => break end,
            }
        }
    });
    assert!(status.unwrap().success());
    assert!(rest.is_err(), "the transfer looked complete");
    logged(&server, "an export was cut off").await;
    let audited = audit_lines(&server).pop().unwrap();
    assert_eq!(audited["complete"], false, "{audited}");
    assert!((1..5_000).contains(&audited["count"].as_u64().unwrap()), "{audited}");
}

#[tokio::test]
async fn a_whole_export_from_mongodb_is_the_list() {
    let deployment = crate::fixture::Deployment::shared().await;
    let server = ready(deployment.server("all")).await;
    let events: Vec<_> = (0..2_500)
        .map(|n| event(n, "ada", "A", 1_767_225_600_000 + i64::try_from(n / 3).unwrap()))
        .collect();
    store_all(&server, &events).await;
    stack::eventually("all events in the export", TIMEOUT, async || {
        let events = exported(&server, "order=asc&metadata.page=home").await;
        let mut numbers: Vec<_> =
            events.iter().map(|event| event["metadata"]["n"].as_u64().unwrap()).collect();
        numbers.sort_unstable();
        anyhow::ensure!(numbers == (0..2_500).collect::<Vec<_>>(), "{}", numbers.len());
        Ok(())
    })
    .await
    .unwrap();
}
