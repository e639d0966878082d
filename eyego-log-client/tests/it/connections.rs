//! Servers that misbehave on the level of connections, proxies, and a process
//! without file descriptors.

#[cfg(all(unix, feature = "spool"))]
mod spool;

use std::process::Command;
use std::time::{Duration, Instant};

use eyego_log_client::{Client, Event, LossReason, RequestError, SendError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::eventually::TIMEOUT;
use crate::server::{FakeServer, accepted, quick};

/// Starts a server that writes the next of these responses to each connection
/// and then closes it.
async fn raw_server(responses: Vec<&'static [u8]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for response in responses {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let _ = socket.read(&mut buffer).await;
            let _ = socket.write_all(response).await;
        }
    });
    url
}

#[tokio::test]
async fn resets_and_invalid_http_are_retried() {
    let url = raw_server(vec![
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 202 Accepted\r\ncontent-length: 100\r\n\r\n{\"accepted\"",
        b"HTTP/1.1 202 Accepted\r\ncontent-length: 28\r\n\r\n{\"accepted\":1,\"rejected\":[]}",
    ])
    .await;
    let client = quick(&url).build().unwrap();
    client.send(Event::new("a", "A")).await.unwrap();
    let stats = client.stats();
    assert_eq!((stats.delivered, stats.requests, stats.failed_requests), (1, 4, 3));
}

#[tokio::test]
async fn events_for_an_unreachable_server_expire_after_the_delivery_timeout() {
    // A server without responses closes its port immediately.
    let url = raw_server(Vec::new()).await;
    let client = quick(&url).delivery_timeout(Duration::from_millis(100)).build().unwrap();
    let end = client.send(Event::new("a", "A")).await;
    assert!(matches!(end, Err(SendError::Lost { reason: LossReason::Expired, .. })), "{end:?}");
    assert!(client.stats().failed_requests > 1);
}

/// A response without end: only the part that a response to a batch can need is
/// read, and the connection is closed.
#[tokio::test]
async fn a_response_without_end_is_cut_off_and_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let written = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 4096]).await;
        let head = b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n";
        socket.write_all(head).await.unwrap();
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        let mut written = 0_usize;
        while socket.write_all(chunk.as_bytes()).await.is_ok() {
            written += chunk.len();
        }
        written
    });
    let client = quick(&url).delivery_timeout(Duration::ZERO).build().unwrap();
    let begin = Instant::now();
    let Err(SendError::Lost { reason, message, .. }) = client.send(Event::new("a", "A")).await
    else {
        panic!("the event was delivered")
    };
    assert_eq!(reason, LossReason::UnexpectedResponse);
    assert!(message.contains("longer than the 66560 bytes"), "{message}");
    assert!(message.len() < 600 && begin.elapsed() < Duration::from_secs(10), "{message}");
    assert_eq!(client.stats().unexpected_responses, 1);
    // What the buffers of both sockets hold.
    let written = tokio::time::timeout(TIMEOUT, written).await.unwrap().unwrap();
    assert!(written < 32 << 20, "{written} bytes were taken");
}

/// Runs a test of this binary as a separate program.
fn run_program(name: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", &format!("connections::{name}")]);
    command.env_remove("NO_PROXY").env_remove("no_proxy").envs(variables.iter().copied());
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
#[ignore = "a program that another test runs"]
async fn sends_to_a_host_that_only_the_proxy_knows() {
    let client = quick("http://logs.invalid:1234").build().unwrap();
    client.send(Event::new("a", "A")).await.unwrap();
}

#[tokio::test]
#[ignore = "a program that another test runs"]
async fn sends_directly() {
    let client = quick(&std::env::var("EYEGO_TEST_URL").unwrap()).build().unwrap();
    client.send(Event::new("a", "A")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_of_the_environment_is_used() {
    let proxy = FakeServer::start(|_, seen| accepted(seen)).await;
    let uri = proxy.server.uri();
    run_program("sends_to_a_host_that_only_the_proxy_knows", &[("HTTP_PROXY", &uri)]);
    let requests = proxy.server.received_requests().await.unwrap();
    assert_eq!(requests[0].headers["host"], "logs.invalid:1234");

    let nobody = [("HTTP_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "127.0.0.1")];
    run_program("sends_directly", &[&nobody[..], &[("EYEGO_TEST_URL", &uri)]].concat());
}

/// Sets the maximum number of open files of the process. Those that are open
/// stay open.
#[cfg(unix)]
fn limit_descriptors(max: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = Rlimit { current: Some(max), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Builds a client while the process has no free descriptor, logs, and ends the
/// shortage.
#[cfg(unix)]
#[test]
#[ignore = "a program that another test runs"]
fn builds_a_client_without_a_free_descriptor() {
    let url = std::env::var("EYEGO_TEST_URL").unwrap();
    limit_descriptors(0);
    let client = quick(&url).request_timeout(Duration::from_secs(1)).build().unwrap();
    client.log(Event::new("a", "A")).unwrap();
    let begin = Instant::now();
    let error = futures_executor::block_on(client.query().fetch()).unwrap_err();
    assert!(matches!(&error, RequestError::NoResponse(_)), "{error}");
    assert!(begin.elapsed() < TIMEOUT / 2, "{error}");
    let runtime = futures_executor::block_on(client.flush_within(Duration::from_millis(300)));
    assert_eq!(runtime.unsettled, 1, "nothing can be sent: {runtime:?}");
    assert!(runtime.stats.last_problem.unwrap().message.contains("cannot create the runtime"));
    let impatient = quick(&url).delivery_timeout(Duration::from_millis(200)).build().unwrap();
    let error = futures_executor::block_on(impatient.send(Event::new("a", "A"))).unwrap_err();
    assert!(matches!(&error, SendError::Lost { reason: LossReason::Expired, .. }), "{error:?}");
    // Many more attempts than a panicking worker would get.
    std::thread::sleep(Duration::from_millis(2000));
    let read = futures_executor::block_on(async {
        // A secure client loads certificates, which needs descriptors too.
        Client::builder("https://localhost:1").build().map(drop)
    });
    assert!(read.is_ok(), "{read:?}");
    limit_descriptors(64);
    let report = futures_executor::block_on(client.flush_within(TIMEOUT));
    assert!(report.all_delivered(), "{report:?}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_client_built_without_a_free_descriptor_delivers_once_there_is_one() {
    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let uri = server.server.uri();
    run_program("builds_a_client_without_a_free_descriptor", &[("EYEGO_TEST_URL", &uri)]);
    assert_eq!(server.seen().len(), 1);
}
