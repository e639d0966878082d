//! A server that accepts everything and counts the events by their action.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

/// Occurs once in each event, in every format.
pub(crate) const ACTION: &str = "CLICK_BUTTON";

static EVENTS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// The server in a process of its own. Dropping it ends the process.
pub(crate) struct Server {
    pub(crate) url: String,
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Server {
    /// Runs `program`, which calls [`serve`].
    pub(crate) fn start(mut program: Command) -> Self {
        let mut process = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let url = read_line(&mut output);
        Self { url, process, input, output }
    }

    /// Returns the number of events and of bytes in all requests to which the server has responded.
    pub(crate) fn count(&mut self) -> (u64, u64) {
        self.input.write_all(b"\n").unwrap();
        let line = read_line(&mut self.output);
        let (events, bytes) = line.split_once(' ').unwrap();
        (events.parse().unwrap(), bytes.parse().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn read_line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Prints the URL, then the counts for each line of standard input, until that ends.
pub(crate) fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            std::thread::spawn(move || respond(&connection.unwrap()));
        }
    });
    for _ in std::io::stdin().lines() {
        println!("{} {}", EVENTS.load(Ordering::SeqCst), BYTES.load(Ordering::SeqCst));
    }
}

/// Responds to the requests of a connection until it is closed.
fn respond(mut connection: &TcpStream) {
    connection.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(connection);
    loop {
        let request = read_line(&mut reader);
        if request.is_empty() {
            return;
        }
        let (mut length, mut encoding) = (0, String::new());
        loop {
            let header = read_line(&mut reader).to_ascii_lowercase();
            match header.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("content-encoding", value)) => value.clone_into(&mut encoding),
                Some(("transfer-encoding", _)) => panic!("chunked bodies are not supported"),
                _ if header.is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let text = match encoding.as_str() {
            "" => body,
            "zstd" => zstd::decode_all(&body[..]).unwrap(),
            other => panic!("{other} is not supported"),
        };
        let events = memchr::memmem::find_iter(&text, ACTION).count() as u64;
        EVENTS.fetch_add(events, Ordering::SeqCst);
        BYTES.fetch_add(length as u64, Ordering::SeqCst);
        let (status, body) = match request.split(' ').nth(1) {
            Some("/api/v1/logs/batch") => {
                ("202 Accepted", format!(r#"{{"accepted":{events},"rejected":[]}}"#))
            }
            // OpenTelemetry expects a protobuf message, of which this is an empty one.
            Some("/v1/logs") => ("200 OK", String::new()),
            _ => ("200 OK", r#"{"status":1}"#.to_owned()),
        };
        let length = body.len();
        let response = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        connection.write_all(response.as_bytes()).unwrap();
    }
}
