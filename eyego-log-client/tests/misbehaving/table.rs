//! The servers: what each does, and what it means for the events.

use std::net::Shutdown;
use std::time::Duration;

use crate::server::{Connection, Misbehavior, response};

/// What becomes of the events while the server misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// They wait for a better time.
    Kept,
    /// The server decides that they are lost.
    Lost,
    /// They are delivered all the same.
    Delivered,
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) misbehavior: Option<Misbehavior>,
}

const fn kept(name: &'static str, misbehavior: Misbehavior) -> Case {
    Case { name, outcome: Outcome::Kept, misbehavior: Some(misbehavior) }
}

const fn lost(name: &'static str, misbehavior: Misbehavior) -> Case {
    Case { name, outcome: Outcome::Lost, misbehavior: Some(misbehavior) }
}

/// How fast a server drips.
const DRIP: Duration = Duration::from_millis(50);

/// How fast a server floods: as fast as one that is throttled by its network.
const FLOOD: Duration = Duration::from_millis(5);

const OK: &str = "HTTP/1.1 202 Accepted\r\n";
const FAIL: &str = r#"{"status":"fail","message":"no"}"#;
const ERROR: &str = r#"{"status":"error","message":"no"}"#;

/// Responds to every request with the same text.
fn always(connection: &mut Connection, text: &str) -> std::io::Result<()> {
    connection.respond(|_| text.to_owned())
}

fn status(connection: &mut Connection, status: &str) -> std::io::Result<()> {
    always(connection, &response(status, "", "<html>proxy</html>"))
}

fn envelope(connection: &mut Connection, status: &str) -> std::io::Result<()> {
    always(connection, &response(status, "", FAIL))
}

/// Responds with 503 and this `Retry-After`.
fn retry_after(connection: &mut Connection, value: &str) -> std::io::Result<()> {
    always(connection, &response("503 Busy", &format!("retry-after: {value}\r\n"), ERROR))
}

/// Responds with 202 and this body.
fn body(connection: &mut Connection, body: &str) -> std::io::Result<()> {
    always(connection, &response("202 Accepted", "", body))
}

/// Responds with 202 or 207 and the same rejection for each event.
fn reject_all(connection: &mut Connection, retryable: bool) -> std::io::Result<()> {
    connection.respond(|received| {
        let item = |index| {
            format!(r#"{{"index":{index},"code":"c","message":"m","retryable":{retryable}}}"#)
        };
        let items: Vec<_> = (0..received.events).map(item).collect();
        let body = format!(r#"{{"accepted":0,"rejected":[{}]}}"#, items.join(","));
        response("207 Partly", "", &body)
    })
}

/// Receives a request, writes a text once and then does something.
fn once(
    connection: &mut Connection,
    text: impl AsRef<[u8]>,
    then: Misbehavior,
) -> std::io::Result<()> {
    connection.receive()?;
    connection.write(text)?;
    then(connection)
}

fn hold(connection: &mut Connection) -> std::io::Result<()> {
    connection.hold()
}

fn close(_: &mut Connection) -> std::io::Result<()> {
    Ok(())
}

/// Writes without having received the request, so that closing resets the
/// connection.
fn reset_after(connection: &mut Connection, text: &str) -> std::io::Result<()> {
    connection.stream.peek(&mut [0])?;
    connection.write(text)
}

pub(crate) const CASES: &[Case] = &[
    // Connections.
    Case { name: "refuses connections", outcome: Outcome::Kept, misbehavior: None },
    kept("never reads", |_| {
        std::thread::sleep(Duration::from_secs(20));
        Ok(())
    }),
    kept("never answers", hold),
    kept("closes each connection", close),
    kept("closes after the request", |c| c.receive().map(drop)),
    kept("resets the connection", |c| reset_after(c, "")),
    kept("resets in the status line", |c| reset_after(c, "HTTP/1.1 20")),
    kept("resets in the body", |c| {
        reset_after(c, &format!("{OK}content-length: 99\r\n\r\n{{\"acc"))
    }),
    kept("closes only its sending half", |c| {
        c.receive()?;
        c.stream.shutdown(Shutdown::Write)?;
        c.hold()
    }),
    // Slow and endless.
    kept("drips its response", |c| {
        let received = c.receive()?;
        for byte in crate::server::accepted(&received).bytes() {
            c.repeat_once(byte)?;
        }
        c.hold()
    }),
    kept("drips headers without end", |c| once(c, OK, |c| c.repeat(b"x-a: 1\r\n", DRIP))),
    kept("floods headers", |c| once(c, OK, |c| c.repeat(&b"x-a: 1\r\n".repeat(1000), FLOOD))),
    kept("sends one header without end", |c| {
        once(c, format!("{OK}x-a: "), |c| c.repeat(&[b'a'; 10_000], FLOOD))
    }),
    kept("floods a body of unknown length", |c| {
        once(c, format!("{OK}\r\n"), |c| c.repeat(&[b' '; 10_000], FLOOD))
    }),
    kept("floods a body of a terabyte", |c| {
        once(c, format!("{OK}content-length: 1099511627776\r\n\r\n"), |c| {
            c.repeat(&[b' '; 10_000], FLOOD)
        })
    }),
    kept("floods chunks", |c| {
        once(c, format!("{OK}transfer-encoding: chunked\r\n\r\n"), |c| {
            c.repeat(&b"4\r\n    \r\n".repeat(1000), FLOOD)
        })
    }),
    kept("drips chunks", |c| {
        once(c, format!("{OK}transfer-encoding: chunked\r\n\r\n"), |c| {
            c.repeat(b"1\r\n \r\n", DRIP)
        })
    }),
    kept("floods 100 Continue", |c| {
        once(c, "", |c| c.repeat(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100), FLOOD))
    }),
    kept("drips 103 Early Hints", |c| {
        once(c, "", |c| c.repeat(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", DRIP))
    }),
    kept("floods garbage", |c| once(c, "", |c| c.repeat(&[0xff; 10_000], FLOOD))),
    // Framing.
    kept("closes after the headers", |c| once(c, format!("{OK}content-length: 99\r\n\r\n"), close)),
    kept("promises more body than it sends", |c| {
        once(c, format!("{OK}content-length: 1000\r\n\r\n{{\"accepted\":1}}"), hold)
    }),
    kept("promises less body than it sends", |c| {
        once(c, format!("{OK}content-length: 5\r\n\r\n{{\"accepted\":1,\"rejected\":[]}}"), hold)
    }),
    kept("sends a negative length", |c| {
        once(c, format!("{OK}content-length: -1\r\n\r\n{{}}"), hold)
    }),
    kept("sends two lengths", |c| {
        once(c, format!("{OK}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}} "), hold)
    }),
    kept("sends a chunk that is no number", |c| {
        once(c, format!("{OK}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n"), hold)
    }),
    kept("sends a chunk that is too large a number", |c| {
        once(c, format!("{OK}transfer-encoding: chunked\r\n\r\n{}\r\n", "f".repeat(40)), hold)
    }),
    kept("closes between chunks", |c| {
        once(c, format!("{OK}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n"), close)
    }),
    kept("sends a header with a NUL", |c| once(c, format!("{OK}x\0: 1\r\n\r\n"), hold)),
    kept("claims a compressed body", |c| {
        always(c, &response("200 OK", "content-encoding: gzip\r\n", "\u{1f}\u{8b}\u{8}\0"))
    }),
    // Other protocols.
    kept("speaks TLS", |c| once(c, b"\x15\x03\x01\x00\x02\x02\x46", hold)),
    kept("speaks HTTP/2", |c| once(c, b"\0\0\0\x04\0\0\0\0\0", hold)),
    kept("speaks HTTP/0.9", |c| once(c, "hello\n", close)),
    kept("speaks SSH", |c| once(c, "SSH-2.0-OpenSSH_9.6\r\n", hold)),
    kept("switches protocols", |c| {
        once(c, "HTTP/1.1 101 Switching Protocols\r\nupgrade: a\r\n\r\n", hold)
    }),
    Case {
        name: "speaks HTTP/1.0 and closes",
        outcome: Outcome::Delivered,
        misbehavior: Some(|c| {
            let count = c.receive()?.events;
            c.write(format!("HTTP/1.0 202 OK\r\n\r\n{{\"accepted\":{count},\"rejected\":[]}}"))
        }),
    },
    // Bodies.
    kept("answers 200 with a page", |c| status(c, "200 OK")),
    kept("answers 202 without a body", |c| body(c, "")),
    kept("answers 204", |c| always(c, "HTTP/1.1 204 No Content\r\n\r\n")),
    kept("accepts too few events", |c| body(c, r#"{"accepted":0,"rejected":[]}"#)),
    kept("accepts too many events", |c| body(c, r#"{"accepted":1000000,"rejected":[]}"#)),
    kept("accepts a negative number", |c| body(c, r#"{"accepted":-1,"rejected":[]}"#)),
    kept("accepts null", |c| body(c, "null")),
    kept("answers with deep JSON", |c| body(c, &"[".repeat(50_000))),
    kept("rejects an event out of range", |c| {
        c.respond(|received| {
            let accepted = received.events - 1;
            let item = r#"{"index":18446744073709551615,"retryable":false}"#;
            response("207 Partly", "", &format!(r#"{{"accepted":{accepted},"rejected":[{item}]}}"#))
        })
    }),
    kept("rejects an event twice", |c| {
        c.respond(|received| {
            let accepted = received.events.saturating_sub(2);
            let item = r#"{"index":0,"retryable":false}"#;
            let body = format!(r#"{{"accepted":{accepted},"rejected":[{item},{item}]}}"#);
            response("207 Partly", "", &body)
        })
    }),
    kept("rejects all events for now", |c| reject_all(c, true)),
    lost("rejects all events for good", |c| reject_all(c, false)),
    // Redirects.
    kept("redirects to itself", |c| {
        c.respond(|received| response("307 Loop", &format!("location: {}\r\n", received.path), ""))
    }),
    kept("redirects ever further", |c| {
        c.respond(|received| response("308 On", &format!("location: {}x\r\n", received.path), ""))
    }),
    kept("redirects to another host", |c| {
        always(c, &response("307 Away", "location: http://127.0.0.2:1/\r\n", ""))
    }),
    kept("redirects nowhere", |c| always(c, &response("308 Nowhere", "", ""))),
    kept("answers 304", |c| always(c, "HTTP/1.1 304 Not Modified\r\n\r\n")),
    // Statuses of a proxy.
    kept("a proxy answers 400", |c| status(c, "400 No")),
    kept("a proxy answers 401", |c| status(c, "401 No")),
    kept("a proxy answers 403", |c| status(c, "403 No")),
    kept("a proxy answers 404", |c| status(c, "404 No")),
    kept("a proxy answers 405", |c| status(c, "405 No")),
    kept("a proxy answers 413", |c| status(c, "413 No")),
    kept("a proxy answers 415", |c| status(c, "415 No")),
    kept("a proxy answers 429", |c| status(c, "429 No")),
    kept("a proxy answers 500", |c| status(c, "500 No")),
    kept("a proxy answers 502", |c| status(c, "502 No")),
    kept("a proxy answers 504", |c| status(c, "504 No")),
    kept("answers status 999", |c| status(c, "999 No")),
    kept("answers a status that is no number", |c| status(c, "abc No")),
    // Statuses of an eyego-log server.
    kept("the server answers 429", |c| envelope(c, "429 No")),
    kept("the server answers 503", |c| always(c, &response("503 Busy", "", ERROR))),
    kept("asks for a pause of a billion years", |c| retry_after(c, &"9".repeat(30))),
    kept("asks for a pause of ten years", |c| retry_after(c, "315360000")),
    kept("asks for a negative pause", |c| retry_after(c, "-1")),
    kept("asks for no pause", |c| retry_after(c, "0")),
    kept("asks for a pause until 9999", |c| retry_after(c, "Fri, 31 Dec 9999 23:59:59 GMT")),
    lost("the server answers 400", |c| envelope(c, "400 No")),
    lost("the server answers 401", |c| envelope(c, "401 No")),
    lost("the server answers 403", |c| envelope(c, "403 No")),
    lost("the server answers 404", |c| envelope(c, "404 No")),
    lost("the server answers 405", |c| envelope(c, "405 No")),
    lost("the server answers 413", |c| envelope(c, "413 No")),
    lost("the server answers 415", |c| envelope(c, "415 No")),
];

impl Connection {
    fn repeat_once(&mut self, byte: u8) -> std::io::Result<()> {
        self.write([byte])?;
        std::thread::sleep(DRIP);
        Ok(())
    }
}
