//! The counting server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

/// Set for the process that is the server: its address.
pub(crate) const COUNTING_SERVER: &str = "EYEGO_BENCH_COUNTING_SERVER";

/// Runs the counting server: prints its URL and accepts every batch.
pub(crate) fn count_forever() {
    let listener = TcpListener::bind(std::env::var(COUNTING_SERVER).unwrap()).unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    for connection in listener.incoming() {
        let connection = connection.unwrap();
        std::thread::spawn(move || serve(&connection));
    }
}

fn serve(connection: &TcpStream) {
    connection.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(connection);
    let mut body = Vec::new();
    loop {
        let (mut length, mut is_compressed) = (0, false);
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 {
                return;
            }
            let header = header.trim_end().to_ascii_lowercase();
            match header.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("content-encoding", _)) => is_compressed = true,
                _ if header.is_empty() => break,
                _ => {}
            }
        }
        body.resize(length, 0);
        reader.read_exact(&mut body).unwrap();
        if is_compressed {
            body = zstd::decode_all(&body[..]).unwrap();
        }
        let count = body.iter().filter(|byte| **byte == b'\n').count();
        let body = format!(r#"{{"accepted":{count},"rejected":[]}}"#);
        let head = "HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: ";
        let response = format!("{head}{}\r\n\r\n{body}", body.len());
        let mut connection = connection;
        connection.write_all(response.as_bytes()).unwrap();
    }
}
