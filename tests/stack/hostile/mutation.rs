//! Random requests: well-formed ones with mutated bodies, queries and headers.

use fastrand::Rng;

use super::{Request, worst_inputs};

/// Mutated bodies are not larger than this.
const MAX_BODY: usize = 1 << 20;

const TARGETS: [(&str, &str); 12] = [
    ("POST", "/api/v1/logs"),
    ("POST", "/api/v1/logs?wait=stored&timeout=1ms"),
    ("POST", "/api/v1/logs/batch"),
    ("POST", "/api/v1/dead-letters/replay"),
    ("GET", "/api/v1/logs"),
    ("GET", "/api/v1/logs/69682d8d81847b87ab93264b"),
    ("GET", "/api/v1/dead-letters"),
    ("GET", "/api/v1/dead-letters/69682d8d81847b87ab93264b"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
    ("DELETE", "/api/v1/logs"),
    ("GET", "/nothing"),
];

const PARAMETERS: [&str; 14] = [
    "userId=u",
    "action=A",
    "from=2026-01-01T00:00:00Z",
    "to=9999-12-31T23:59:59.9999999999Z",
    "limit=3",
    "limit=1001",
    "page=2",
    "page=99999999999999999999",
    "order=asc",
    "cursor=AAAA",
    "metadata.a.b=1",
    "metadata.x=null",
    "code=x",
    "%FF=%00",
];

const BODIES: [&str; 8] = [
    r#"{"userId":"u","action":"A","metadata":{"a":{"b":[1,2.5,"x",null,true]}}}"#,
    r#"{"id":"69682d8d81847b87ab93264b","userId":"u","action":"A","timestamp":"2026-01-15T00:58:05.4429+01:00"}"#,
    r#"{"logs":[{"userId":"u","action":"A"},{"userId":"","action":"A"}]}"#,
    r#"[{"userId":"u","action":"A"}]"#,
    "{\"userId\":\"u\",\"action\":\"A\"}\n{\"userId\":\"v\",\"action\":\"B\"}\n",
    "\u{feff}{\"userId\":\"u\",\"action\":\"A\"}\n\n",
    r#"{"all":true}"#,
    r#"{"id":"69682d8d81847b87ab93264b"}"#,
];

const TOKENS: [&[u8]; 22] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"1e999",
    b"\\ud800",
    b"\\u0000",
    b"\xff",
    b"\n",
    b"\r\n",
    b"\0",
    b"-",
    b"9223372036854775808",
    b"%",
    b"&",
    b"=",
    b"+",
];

const HEADERS: [(&str, &str); 16] = [
    ("content-type", "application/json"),
    ("content-type", "application/x-ndjson"),
    ("content-type", "text/plain"),
    ("content-type", "application/json; charset=latin1"),
    ("content-encoding", "gzip"),
    ("content-encoding", "zstd"),
    ("content-encoding", "br"),
    ("idempotency-key", "k"),
    ("idempotency-key", ""),
    ("x-request-id", "r"),
    ("expect", "100-continue"),
    ("accept-encoding", "gzip"),
    ("host", "other"),
    ("authorization", "Bearer x"),
    ("origin", "http://evil.example"),
    ("transfer-encoding", "gzip"),
];

/// Makes random requests. The same seed makes the same requests.
#[derive(Debug)]
pub struct Mutator {
    rng: Rng,
    worst: Vec<Request>,
}

impl Mutator {
    /// Creates a mutator with this random seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let worst = worst_inputs().into_iter().map(|input| input.request);
        Self { rng: Rng::with_seed(seed), worst: worst.collect() }
    }

    /// Makes a request.
    pub fn request(&mut self) -> Request {
        if self.rng.u8(..) == 0 {
            let index = self.rng.usize(..self.worst.len());
            return self.worst[index].clone();
        }
        let (method, target) = TARGETS[self.rng.usize(..TARGETS.len())];
        let mut request =
            Request { method, target: self.target(target), headers: Vec::new(), body: Vec::new() };
        if method == "POST" || self.rng.u8(..) < 16 {
            request.body = BODIES[self.rng.usize(..BODIES.len())].as_bytes().to_vec();
            self.mutate(&mut request.body, MAX_BODY);
            let media = if target.ends_with("batch") && self.rng.bool() {
                "application/x-ndjson"
            } else {
                "application/json"
            };
            request.headers.push(("content-type".to_owned(), media.into()));
            if self.rng.u8(..) < 64 {
                let encoding = if self.rng.bool() { "gzip" } else { "zstd" };
                request = request.compressed(encoding);
                if self.rng.bool() {
                    self.mutate(&mut request.body, MAX_BODY);
                }
            }
        }
        self.add_headers(&mut request);
        request
    }

    fn target(&mut self, path: &str) -> Vec<u8> {
        let mut target = path.as_bytes().to_vec();
        let count = self.rng.usize(..4) * self.rng.usize(..2);
        for index in 0..count {
            target.push(if index == 0 && !path.contains('?') { b'?' } else { b'&' });
            let mut parameter = PARAMETERS[self.rng.usize(..PARAMETERS.len())].as_bytes().to_vec();
            if self.rng.u8(..) < 64 {
                self.mutate(&mut parameter, 8 << 10);
            }
            target.extend(parameter);
        }
        // A space or a control character would end the request line.
        target.retain(u8::is_ascii_graphic);
        target
    }

    fn add_headers(&mut self, request: &mut Request) {
        for _ in 0..self.rng.usize(..3) * self.rng.usize(..2) {
            let (name, value) = HEADERS[self.rng.usize(..HEADERS.len())];
            let mut value = value.as_bytes().to_vec();
            if self.rng.u8(..) < 32 {
                self.mutate(&mut value, 4 << 10);
                value.retain(|byte| !matches!(byte, b'\r' | b'\n' | 0));
            }
            request.headers.push((name.to_owned(), value));
        }
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, max: usize) {
        for _ in 0..self.rng.usize(..6) {
            let at = self.rng.usize(..=bytes.len());
            match self.rng.u8(..6) {
                0 => bytes.truncate(at),
                1 => drop(bytes.splice(at..at, TOKENS[self.rng.usize(..TOKENS.len())].to_vec())),
                2 if at < bytes.len() => bytes[at] ^= 1 << self.rng.u8(..8),
                3 => {
                    let end = at + self.rng.usize(..=bytes.len() - at);
                    drop(bytes.drain(at..end));
                }
                _ => {
                    let end = at + self.rng.usize(..=bytes.len() - at);
                    let part = bytes[at..end].to_vec();
                    let room = max.saturating_sub(bytes.len()) / part.len().max(1);
                    let times = self.rng.usize(..=room).min(1 << self.rng.u32(..14));
                    drop(bytes.splice(at..at, part.repeat(times)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_makes_the_same_requests() {
        let bytes = |seed| {
            let mut mutator = Mutator::new(seed);
            (0..200).map(|_| mutator.request().to_bytes()).collect::<Vec<_>>()
        };
        assert!(bytes(7) == bytes(7));
        assert!(bytes(7) != bytes(8));
    }
}
