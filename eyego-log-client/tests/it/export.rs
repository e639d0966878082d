//! Exports: their URLs, memory, and ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eyego_log_client::{
    Client, ExportError, ExportFormat, Order, RequestError, TailItem, blocking,
};
use futures_util::StreamExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wiremock::matchers::{path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::server::quick;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\
      transfer-encoding: chunked\r\n\r\n";

/// How an export of [`chunked`] ends.
#[derive(Clone, Copy)]
enum End {
    Complete,
    CutOff,
}

/// Sends chunks of 64 KiB to each connection. Returns how many were written to the last one.
async fn chunked(chunks: usize, end: End) -> (Client, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let written = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.store(0, Ordering::SeqCst);
            let counter = Arc::clone(&counter);
            // The client may close the connection at any time.
            tokio::spawn(async move { drop(send_chunks(stream, chunks, end, &counter).await) });
        }
    });
    (quick(&url).build().unwrap(), written)
}

async fn send_chunks(
    mut stream: TcpStream,
    chunks: usize,
    end: End,
    written: &AtomicUsize,
) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await?;
    stream.write_all(HEAD).await?;
    let mut chunk = b"10000\r\n".to_vec();
    chunk.resize(chunk.len() + (64 << 10), b'x');
    chunk.extend_from_slice(b"\r\n");
    for _ in 0..chunks {
        stream.write_all(&chunk).await?;
        written.fetch_add(1, Ordering::SeqCst);
    }
    match end {
        End::Complete => stream.write_all(b"0\r\n\r\n").await?,
        End::CutOff => {}
    }
    stream.shutdown().await
}

#[tokio::test]
async fn an_export_has_the_filters_the_format_and_the_columns() {
    let server = MockServer::start().await;
    let client = quick(&server.uri()).build().unwrap();
    Mock::given(path("/api/v1/logs/export"))
        .and(query_param("userId", "ada"))
        .and(query_param("order", "asc"))
        .and(query_param("format", "csv"))
        .and(query_param("columns", "metadata.page,metadata.cart.total"))
        .respond_with(
            ResponseTemplate::new(200)
                .set_body_raw("id,userId\n1,ada\n", "text/csv; charset=utf-8; header=present"),
        )
        .mount(&server)
        .await;
    let query = client.query().user("ada").order(Order::Ascending);
    let export = query.export(ExportFormat::Csv).columns(["page", "cart.total"]);
    let pieces: Vec<_> = export.start().await.unwrap().collect().await;
    let bytes: Vec<u8> = pieces.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(bytes, b"id,userId\n1,ada\n");

    let invalid = json!({"status": "fail", "message": "limit is not a known parameter"});
    Mock::given(query_param("limit", "5"))
        .respond_with(ResponseTemplate::new(400).set_body_json(invalid))
        .mount(&server)
        .await;
    let error = client.query().limit(5).export(ExportFormat::Ndjson).start().await.unwrap_err();
    assert!(error.to_string().contains("limit is not a known parameter"), "{error}");
}

#[tokio::test]
async fn an_export_is_saved_only_if_it_is_complete() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("export.ndjson");
    let (client, _) = chunked(100, End::Complete).await;
    let bytes = client.query().export(ExportFormat::Ndjson).save(&file).await.unwrap();
    assert_eq!(bytes, 100 << 16);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), bytes);

    let (client, _) = chunked(10, End::CutOff).await;
    let error = client.query().export(ExportFormat::Ndjson).save(&file).await.unwrap_err();
    let incomplete = |received: u64| received == 10 << 16;
    assert!(
        matches!(error, ExportError::Request(RequestError::Incomplete { received, .. }) if incomplete(received)),
        "{error}"
    );
    assert_eq!(std::fs::metadata(&file).unwrap().len(), bytes, "the earlier file is kept");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no unfinished file is left");

    let blocking = blocking::Client::from(client);
    let export = move || blocking.query().export(ExportFormat::Ndjson).write_to(Vec::new());
    let error = tokio::task::spawn_blocking(export).await.unwrap().unwrap_err();
    assert!(matches!(error, ExportError::Request(RequestError::Incomplete { .. })), "{error}");
}

#[tokio::test]
async fn an_export_that_is_not_read_is_not_received() {
    let (client, written) = chunked(1_000_000, End::Complete).await;
    let mut export = client.query().export(ExportFormat::Ndjson).start().await.unwrap();
    export.next_piece().await.unwrap().unwrap();
    // The buffers of the connection fill up, and then nothing more is written.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = written.load(Ordering::SeqCst);
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before < 1000, "{before} chunks of 64 KiB are in memory");
    drop(export);
    // A cancelled export frees its connection: the next one has its own count.
    let mut next = client.query().export(ExportFormat::Ndjson).start().await.unwrap();
    assert!(next.next_piece().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_transport_that_does_not_stream_is_named_in_the_error() {
    let client = Client::builder("http://h").transport(eyego_log_client::testing::Recorder::new());
    let client = client.build().unwrap();
    let error = client.query().export(ExportFormat::Ndjson).start().await.unwrap_err();
    assert!(error.to_string().contains("send_streaming"), "{error}");
    assert!(matches!(&error, RequestError::Unsupported(_)) && !error.is_retryable(), "{error:?}");
    let mut tail = client.query().tail();
    assert!(matches!(tail.next_item().await, Some(Err(RequestError::Unsupported(_)))));
    assert!(tail.next_item().await.is_none());
}

#[tokio::test]
async fn a_response_of_another_server_is_not_saved_and_is_shown() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("export.csv");
    std::fs::write(&file, "earlier").unwrap();
    for (response, shown) in [
        (ResponseTemplate::new(200).set_body_raw("<html>log in", "text/html"), "<html>log in"),
        (ResponseTemplate::new(200).set_body_json(json!({"ok": true})), "ok"),
        (ResponseTemplate::new(200).set_body_raw(" ".repeat(1 << 20), "text/plain"), "text/plain"),
        (ResponseTemplate::new(204), "status 204"),
        (ResponseTemplate::new(206).set_body_raw("id", "text/csv"), "status 206"),
    ] {
        let server = MockServer::start().await;
        Mock::given(path("/api/v1/logs/export"))
            .respond_with(response.clone())
            .mount(&server)
            .await;
        Mock::given(path("/api/v1/logs/tail")).respond_with(response).mount(&server).await;
        let client = quick(&server.uri()).build().unwrap();
        let error = client.query().export(ExportFormat::Csv).save(&file).await.unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, ExportError::Request(RequestError::UnexpectedResponse(_)))
                && text.contains(shown)
                && text.contains("/api/v1/logs/export"),
            "{text}"
        );
        assert!(text.len() < 1000, "{text}");
        match client.query().tail().next_item().await.unwrap().unwrap() {
            TailItem::Interrupted(RequestError::UnexpectedResponse(text)) => {
                assert!(text.contains(shown) && text.contains("/api/v1/logs/tail"), "{text}");
            }
            item => panic!("{item:?}"),
        }
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "earlier");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn concurrent_exports_to_one_file_do_not_mix() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("export.ndjson");
    let (client, _) = chunked(100, End::Complete).await;
    let (other, _) = chunked(10, End::CutOff).await;
    let save = |client: &Client| {
        let export = client.query().export(ExportFormat::Ndjson);
        let file = file.clone();
        async move { export.save(&file).await }
    };
    let (first, second, third) = tokio::join!(save(&client), save(&other), save(&client));
    assert_eq!((first.unwrap(), third.unwrap()), (100 << 16, 100 << 16));
    assert!(second.is_err());
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.len() == 100 << 16 && bytes.iter().all(|byte| *byte == b'x'));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no unfinished file is left");
}
