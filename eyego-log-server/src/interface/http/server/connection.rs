//! Serves one connection.
//!
//! `axum::serve` has no timeouts: idle or slow clients could hold connections
//! for ever. Here each connection has these:
//!
//! | timeout | on expiry |
//! |---|---|
//! | [`HEAD_TIMEOUT`]: a request's head must be complete | 408, then close |
//! | [`IDLE_TIMEOUT`]: the next request must begin | close |
//! | [`READ_WINDOW`](super::stream::READ_WINDOW): the client must read some of a response | close |
//! | [`STOP_GRACE`]: when the process stops, a response must be read | close |
//!
//! The timeouts of a request's body are in `body`. Nothing is written to a
//! connection whose client has not read the previous response.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use http::StatusCode;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::notice::Notice;
use super::stopped;
use super::stream::ObservedStream;
use crate::interface::http::connections::{Activity, Phase, Slot, TrackedBody};
use crate::interface::http::router::{Requests, Routes, respond};
use crate::interface::http::tls::Tls;

/// Bytes that a connection buffers in addition to the bodies' budget. The head
/// of a request must fit.
const MAX_BUFFER: usize = 64 << 10;

/// Maximum time for the head of a request. hyper measures it from the end of
/// the previous response, see [`serve_connection`].
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The same on a connection above the limit.
const RESERVED_HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum time between two requests, a multiple of [`HEAD_TIMEOUT`]. Longer
/// than the 60 s to 75 s of common proxies: if the server closes first, a
/// request can be lost on its way.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(80);

/// Maximum time for reading the rest of a response, and for the rest of a head,
/// once the process stops.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(3);

/// Interval at which a stopping connection is checked.
const STOP_CHECK: Duration = Duration::from_millis(250);

/// The first second of the year 10000, in seconds since 1970. hyper panics when it
/// formats a later date.
const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);

/// Shared by all connections.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) routes: Routes,
    pub(super) requests: Arc<Requests>,
    pub(super) tls: Option<Tls>,
}

/// Why the serving of a connection ended.
enum End {
    /// hyper closed the connection, or the client did.
    Closed,
    /// No complete head arrived within [`HEAD_TIMEOUT`].
    HeadTimeout,
    /// The head is malformed or too large.
    Malformed(hyper::Error),
    /// The process stops and the client takes too long.
    Stopped,
    /// The connection was idle, and its place is needed.
    Evicted,
    /// The clock is wrong.
    DateOutOfRange,
}

/// Serves one connection.
///
/// hyper's timeout covers both the wait for a request and the reading of its
/// head, and ends the connection without a response. So an idle connection is
/// served anew until [`IDLE_TIMEOUT`], and one with a partial head gets a 408.
pub(super) async fn serve_connection<S>(
    mut stream: S,
    peer: IpAddr,
    slot: Slot,
    service: Service,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = &slot.activity;
    let (routes, head_timeout) = if slot.is_reserved() {
        (service.routes.above_limit(slot.max()), RESERVED_HEAD_TIMEOUT)
    } else {
        (service.routes, HEAD_TIMEOUT)
    };
    loop {
        let handler = service_fn(|request: http::Request<Incoming>| {
            activity.enter(Phase::Handling);
            let (routes, requests) = (routes.clone(), &service.requests);
            async move {
                let response = respond(routes, requests, peer, request.map(Body::new)).await;
                activity.enter(Phase::Responding);
                Ok::<_, Infallible>(
                    response.map(|body| TrackedBody::new(body, Arc::clone(activity))),
                )
            }
        });
        let observed = ObservedStream::new(stream, Arc::clone(activity));
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_timeout)
            .max_buf_size(MAX_BUFFER)
            .keep_alive(!slot.is_reserved())
            .serve_connection(TokioIo::new(observed), handler);
        let end = drive(&mut connection, activity, &mut stop).await;
        let parts = connection.into_parts();
        let (inner, suppressed) = parts.io.into_inner().into_inner();
        let may_write = activity.phase() == Phase::Waiting && !activity.is_blocked();
        let has_partial_head = !parts.read_buf.is_empty();
        stream = match end {
            End::HeadTimeout
                if may_write && !has_partial_head && activity.idle_time() < IDLE_TIMEOUT =>
            {
                inner
            }
            End::Closed => return,
            _ if !may_write => return,
            End::HeadTimeout | End::Evicted | End::Stopped if !has_partial_head => {
                let mut inner = inner;
                let _ = inner.shutdown().await;
                return;
            }
            end => {
                return notice(&end, suppressed, head_timeout).send(inner).await;
            }
        };
    }
}

/// Runs a connection until hyper ends it or it must be closed.
async fn drive<C>(connection: &mut C, activity: &Activity, stop: &mut watch::Receiver<bool>) -> End
where
    C: Future<Output = hyper::Result<()>> + Graceful + Unpin,
{
    let mut is_stopping = false;
    let mut deadline = Instant::now();
    loop {
        let served = poll_fn(|context| {
            if is_out_of_range(SystemTime::now()) {
                return Poll::Ready(End::DateOutOfRange);
            }
            Pin::new(&mut *connection).poll(context).map(|result| match result {
                Err(error) if error.is_timeout() => End::HeadTimeout,
                Err(error) if error.is_parse() => End::Malformed(error),
                _ => End::Closed,
            })
        });
        tokio::select! {
            biased;
            end = served => return end,
            () = stopped(stop), if !is_stopping => {
                is_stopping = true;
                deadline = Instant::now() + STOP_GRACE;
                Pin::new(&mut *connection).stop();
            }
            () = activity.evicted(), if !is_stopping => {
                if activity.phase() == Phase::Waiting {
                    return End::Evicted;
                }
            }
            () = tokio::time::sleep(STOP_CHECK), if is_stopping => {
                if activity.phase() == Phase::Handling {
                    deadline = Instant::now() + STOP_GRACE;
                } else if Instant::now() >= deadline {
                    return End::Stopped;
                }
            }
        }
    }
}

/// A connection that can be told to end after the current request.
trait Graceful {
    fn stop(self: Pin<&mut Self>);
}

impl<I, S> Graceful for http1::Connection<I, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = TrackedBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    fn stop(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

fn is_out_of_range(now: SystemTime) -> bool {
    now.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since >= YEAR_10000)
}

/// Returns the response to a connection that ended before its request was
/// complete.
fn notice(end: &End, suppressed: Option<u16>, head_timeout: Duration) -> Notice {
    let unavailable = |message: &str| Notice::new(StatusCode::SERVICE_UNAVAILABLE, message);
    match end {
        End::HeadTimeout => {
            let seconds = head_timeout.as_secs();
            let message =
                format!("the request headers were not received completely within {seconds} s");
            Notice::new(StatusCode::REQUEST_TIMEOUT, message)
        }
        End::Stopped | End::Closed => unavailable("the server is stopping; retry later"),
        End::Evicted => unavailable("the limit of connections is reached; retry later"),
        End::DateOutOfRange => unavailable("the clock of the server is past the year 9999"),
        End::Malformed(error) => {
            let status = suppressed.and_then(|status| StatusCode::from_u16(status).ok());
            match status.unwrap_or(StatusCode::BAD_REQUEST) {
                status @ StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                    let message = format!(
                        "the head of a request may have up to {MAX_BUFFER} bytes and 100 headers"
                    );
                    Notice::new(status, message)
                }
                status @ StatusCode::URI_TOO_LONG => {
                    Notice::new(status, "the request target may have up to 65,534 bytes")
                }
                status => Notice::new(status, format!("malformed request head: {error}")),
            }
        }
    }
}

#[cfg(test)]
mod tests;
