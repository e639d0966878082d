//! Hostile HTTP requests: the worst inputs known, and random mutations of requests. The programs
//! `worst_inputs`, `fuzz_http` and `attacks` send them.

mod attacks;
mod catalogue;
mod exchange;
mod mutation;
mod slow_readers;
mod targets;

pub use attacks::{Statuses, Victim, run_all};
pub use catalogue::{Input, worst_inputs};
pub use exchange::{End, Response, exchange};
pub use mutation::Mutator;
pub use slow_readers::read_slowly;

/// A request before it is written.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: &'static str,
    /// The path with the query, as it is sent.
    pub target: Vec<u8>,
    /// The headers, without `Host`, `Connection` and `Content-Length`.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// Creates a GET request.
    #[must_use]
    pub fn get(target: impl Into<Vec<u8>>) -> Self {
        Self { method: "GET", target: target.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// Creates a POST request.
    #[must_use]
    pub fn post(target: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.as_bytes().to_vec())];
        Self { method: "POST", target: target.as_bytes().to_vec(), headers, body: body.into() }
    }

    /// Compresses the body with zstd or gzip.
    ///
    /// # Panics
    /// Panics if writing to memory fails, which it does not.
    #[must_use]
    #[expect(clippy::expect_used, reason = "writing to memory does not fail")]
    pub fn compressed(mut self, encoding: &str) -> Self {
        self.body = match encoding {
            "zstd" => zstd::encode_all(&self.body[..], 3).expect("zstd"),
            _ => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut encoder, &self.body).expect("gzip");
                encoder.finish().expect("gzip")
            }
        };
        self.headers.push(("content-encoding".to_owned(), encoding.as_bytes().to_vec()));
        self
    }

    /// Returns the bytes to send. The connection is closed after the response.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.method.as_bytes().to_vec();
        bytes.push(b' ');
        bytes.extend_from_slice(&self.target);
        bytes.extend_from_slice(b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        if self.method != "GET" || !self.body.is_empty() {
            bytes.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}
