//! The worst inputs known: each tries to make the server work or respond as much as possible.

use super::Request;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const EVENT: &str = "/api/v1/logs";
const BATCH: &str = "/api/v1/logs/batch";
const REPLAY: &str = "/api/v1/dead-letters/replay";

/// Size of most inputs.
const SIZE: usize = 64 << 10;

/// A request and what it is about.
#[derive(Debug, Clone)]
pub struct Input {
    /// A short name.
    pub name: &'static str,
    /// The request.
    pub request: Request,
    /// Size of the decompressed body, or of the query, in bytes.
    pub size: usize,
}

fn event(metadata: &str) -> String {
    format!("{{\"userId\":\"u\",\"action\":\"A\",\"metadata\":{metadata}}}")
}

/// Repeats `part`, in which `#` stands for a number, up to `size` bytes.
fn numbered(part: &str, size: usize) -> String {
    let mut text = String::with_capacity(size);
    for number in 0.. {
        let next = part.replace('#', &format!("{number:x}"));
        if text.len() + next.len() > size {
            break;
        }
        text.push_str(&next);
    }
    text
}

fn repeated(part: &str, size: usize) -> String {
    part.repeat(size / part.len())
}

/// Returns all inputs.
#[must_use]
pub fn worst_inputs() -> Vec<Input> {
    // Queries first: their cost would otherwise include a scan of the events.
    [queries(), events(), batches(), bombs()].concat()
}

fn events() -> Vec<Input> {
    let nested = |open: &str, close: &str, levels: usize| {
        event(&format!("{}0{}", open.repeat(levels), close.repeat(levels)))
    };
    let wide_and_deep = format!(
        "{{\"n\":1e999,\"b\":{}[{}0]{}}}",
        "{\"b\":".repeat(30),
        repeated("0,", SIZE),
        "}".repeat(30)
    );
    let bodies = [
        ("event: valid, many keys", event(&format!("{{{}\"x\":0}}", numbered("\"#\":0,", SIZE)))),
        ("event: valid, many escaped keys", {
            event(&format!("{{{}\"x\":0}}", numbered("\"\\u0061#\":0,", SIZE)))
        }),
        ("event: valid, many small objects", {
            event(&format!("{{\"x\":[{}0]}}", repeated("{\"a\":0},", SIZE)))
        }),
        ("event: valid, many floats", event(&format!("{{\"x\":[{}0]}}", repeated("1e-7,", SIZE)))),
        ("event: valid, long floats", {
            event(&format!(
                "{{\"x\":[{}0]}}",
                repeated(&format!("0.{},", "1234567".repeat(100)), SIZE)
            ))
        }),
        ("event: valid, escapes", event(&format!("{{\"x\":\"{}\"}}", repeated("\\u00e9", SIZE)))),
        ("event: unknown fields", format!("{{{}\"x\":0}}", numbered("\"#\":0,", SIZE))),
        ("event: the same unknown field", format!("{{{}\"x\":0}}", repeated("\"\":0,", SIZE))),
        ("event: repeated keys", event(&format!("{{{}\"x\":0}}", repeated("\"\":0,", SIZE)))),
        ("event: repeated escaped keys", {
            event(&format!("{{{}\"x\":0}}", repeated("\"\\u0061\":0,", SIZE)))
        }),
        ("event: numbers out of range", {
            event(&format!("{{\"x\":[{}0]}}", repeated("1e999,", SIZE)))
        }),
        ("event: long number", event(&format!("{{\"x\":{}}}", "9".repeat(SIZE)))),
        (
            "event: lone surrogates",
            event(&format!("{{\"x\":[{}0]}}", repeated("\"\\ud800\",", SIZE))),
        ),
        ("event: error at the top, wide and deep below", event(&wide_and_deep)),
        ("event: nested arrays", nested("[", "]", SIZE / 2)),
        ("event: nested objects", nested("{\"a\":", "}", SIZE / 6)),
        ("event: nested beside the limit", nested("{\"a\":", "}", 32)),
        ("event: long key with an error", {
            event(&format!("{{\"{}\":1e999}}", repeated("\\u0000", SIZE)))
        }),
        ("event: userId of escapes", {
            format!("{{\"userId\":\"{}\",\"action\":\"A\"}}", repeated("\\u0000", SIZE))
        }),
        ("event: white space", format!("{}{}", " ".repeat(SIZE), event("{}"))),
        ("event: not JSON", "[".repeat(SIZE)),
    ];
    let replays = [
        ("replay: many members", format!("{{{}\"all\":true}}", numbered("\"#\":0,", SIZE - 20))),
        (
            "replay: the same member",
            format!("{{{}\"all\":true}}", repeated("\"all\":true,", SIZE - 20)),
        ),
    ];
    let input = |path: &'static str| {
        move |(name, body): (&'static str, String)| Input {
            name,
            size: body.len(),
            request: Request::post(path, JSON, body),
        }
    };
    bodies.into_iter().map(input(EVENT)).chain(replays.into_iter().map(input(REPLAY))).collect()
}

fn batches() -> Vec<Input> {
    let name = "\u{1f600}".repeat(100);
    let bodies = [
        ("batch: lines of one character", NDJSON, repeated("0\n", SIZE)),
        ("batch: 10,000 lines of one character", NDJSON, "0\n".repeat(10_000)),
        ("batch: 10,000 elements of one character", JSON, { format!("[{}0]", "0,".repeat(9_999)) }),
        ("batch: empty objects", NDJSON, repeated("{}\n", SIZE)),
        ("batch: elements of one character", JSON, format!("[{}0]", repeated("0,", SIZE))),
        ("batch: four errors in each event", NDJSON, {
            repeated(&format!("{{\"{name}1\":0,\"{name}2\":0}}\n"), SIZE)
        }),
        (
            "batch: small valid events",
            NDJSON,
            repeated("{\"userId\":\"u\",\"action\":\"A\"}\n", SIZE),
        ),
        ("batch: unknown members", JSON, format!("{{{}\"logs\":[]}}", numbered("\"#\":0,", SIZE))),
        ("batch: nested arrays", JSON, "[".repeat(SIZE)),
        ("batch: blank lines", NDJSON, "\n".repeat(SIZE)),
    ];
    let input = |(name, media, body): (&'static str, &str, String)| Input {
        name,
        size: body.len(),
        request: Request::post(BATCH, media, body),
    };
    bodies.into_iter().map(input).collect()
}

fn bombs() -> Vec<Input> {
    const LARGE: usize = 15 << 20;
    let unknown = format!("{{{}\"x\":0}}", repeated("\"\":0,", LARGE));
    let bodies = [
        ("bomb: event, zstd", EVENT, JSON, "zstd", unknown.clone()),
        ("bomb: unknown members, zstd", BATCH, JSON, "zstd", unknown),
        ("bomb: white space, gzip", BATCH, NDJSON, "gzip", " ".repeat(LARGE)),
        ("bomb: past the limit, zstd", BATCH, NDJSON, "zstd", " ".repeat(64 << 20)),
        ("bomb: 10,000 invalid events, zstd", BATCH, NDJSON, "zstd", "{\"a\":0}\n".repeat(10_000)),
        ("bomb: large invalid events, zstd", BATCH, NDJSON, "zstd", {
            let line = event(&format!("{{{}\"x\":0}}", repeated("\"\":0,", 200 << 10)));
            format!("{line}\n").repeat(70)
        }),
    ];
    let input =
        |(name, path, media, encoding, body): (&'static str, &str, &str, &str, String)| Input {
            name,
            size: body.len(),
            request: Request::post(path, media, body).compressed(encoding),
        };
    bodies.into_iter().map(input).collect()
}

fn queries() -> Vec<Input> {
    const QUERY: usize = 60 << 10;
    let filter = "metadata.a.b.c.d.e.f.g=";
    let sixteen = (0..16).map(|n| format!("metadata.k{n}.b.c.d={}", "1".repeat(3800)));
    let queries = [
        ("query: many parameters", numbered("#&", QUERY)),
        ("query: the same parameter", repeated("a=1&", QUERY)),
        ("query: many filters", repeated(&format!("{filter}1&"), QUERY)),
        ("query: sixteen long filters", sixteen.collect::<Vec<_>>().join("&")),
        ("query: long escaped value", format!("userId={}", repeated("%C3%A9", QUERY))),
        ("query: long metadata path", format!("metadata.{}=1", repeated("a.", QUERY))),
        ("query: long cursor", format!("cursor={}", "A".repeat(QUERY))),
        ("query: not UTF-8", format!("userId={}", repeated("%FF", QUERY))),
    ];
    let input = |(name, query): (&'static str, String)| Input {
        name,
        size: query.len(),
        request: Request::get(format!("{EVENT}?{query}")),
    };
    let mut inputs: Vec<_> = queries.into_iter().map(input).collect();
    let long_path = format!("/{}", "x".repeat(QUERY));
    inputs.push(Input {
        name: "path: long",
        size: long_path.len(),
        request: Request::get(long_path),
    });
    inputs
}
