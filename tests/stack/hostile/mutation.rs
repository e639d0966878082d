//! Random requests: well-formed ones with mutated bodies, queries and headers.

use fastrand::Rng;

use super::targets::{BODIES, HEADERS, TARGETS, TOKENS, Target};
use super::{Request, worst_inputs};

/// Mutated bodies are not larger than this.
const MAX_BODY: usize = 1 << 20;

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
        let target = TARGETS[self.rng.usize(..TARGETS.len())];
        let mut request = Request {
            method: target.method,
            target: self.target(target),
            headers: Vec::new(),
            body: Vec::new(),
        };
        if target.method == "POST" || self.rng.u8(..) < 16 {
            request.body = BODIES[self.rng.usize(..BODIES.len())].as_bytes().to_vec();
            self.mutate(&mut request.body, MAX_BODY);
            let media = if target.path.ends_with("batch") && self.rng.bool() {
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

    fn target(&mut self, target: Target) -> Vec<u8> {
        let mut bytes = target.path.as_bytes().to_vec();
        if self.rng.u8(..) < 16 {
            self.mutate(&mut bytes, 8 << 10);
        }
        let count = self.rng.usize(..5) * self.rng.usize(..2);
        for index in 0..count {
            bytes.push(if index == 0 && !target.path.contains('?') { b'?' } else { b'&' });
            let mut parameter = self.parameter(target).as_bytes().to_vec();
            if self.rng.u8(..) < 64 {
                self.mutate(&mut parameter, 8 << 10);
            }
            bytes.extend(parameter);
        }
        // A space or a control character would end the request line.
        bytes.retain(u8::is_ascii_graphic);
        bytes
    }

    /// Returns a parameter of the route, or sometimes one of another route.
    fn parameter(&mut self, target: Target) -> &'static str {
        let other = TARGETS[self.rng.usize(..TARGETS.len())].parameters;
        let is_own = !target.parameters.is_empty() && self.rng.u8(..) < 224;
        let parameters = if is_own { target.parameters } else { other };
        match parameters.len() {
            0 => "x=1",
            length => parameters[self.rng.usize(..length)],
        }
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
