//! Calls the server's API through the worker: sends a request, and decodes the
//! response or reads it as a stream.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use eyego_log_core::FieldErrors;
use eyego_log_core::wire::ErrorResponse;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use crate::delivery::mailbox::{Call, Mailbox, StreamPiece, StreamTarget};
use crate::delivery::retry::retry_after;
use crate::delivery::starter::Starter;
use crate::model::errors::{RequestError, StatusError};
use crate::sync::timer::Timer;
use crate::transport::describe::{
    describe, describe_body, error_chain, header, is_stream, rounded, server_message,
};
use crate::transport::endpoint::Endpoint;
use crate::transport::{Bytes, Request, Response, ResponseLimit, TransportResult};

/// How much of a response is read, in bytes. The server limits pages to half of
/// this.
const RESPONSE_LIMIT: ResponseLimit = ResponseLimit(32 << 20);

/// How much longer than the worker the caller waits for a response. The worker's error
/// says more.
const GRACE: Duration = Duration::from_millis(250);

/// How the server's 404 for a URL that it does not know begins.
const NO_ROUTE: &str = "no such route";

/// How long to wait for each piece of a streamed response. The server of a tail
/// sends a comment every 15 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// The pieces of a response that are received before the program takes them.
const BUFFERED_PIECES: usize = 2;

#[derive(Clone)]
pub(crate) struct Caller {
    /// `None` if the client is disabled.
    connection: Option<Connection>,
    pub(crate) timer: Timer,
    request_timeout: Duration,
    pub(crate) idle_timeout: Duration,
}

#[derive(Clone)]
struct Connection {
    mailbox: Arc<Mailbox>,
    endpoint: Arc<Endpoint>,
    starter: Arc<Starter>,
}

impl Caller {
    pub(crate) fn new(
        mailbox: Arc<Mailbox>,
        endpoint: Arc<Endpoint>,
        starter: Arc<Starter>,
        timer: Timer,
        request_timeout: Duration,
    ) -> Self {
        let connection = Some(Connection { mailbox, endpoint, starter });
        Self { connection, timer, request_timeout, idle_timeout: IDLE_TIMEOUT }
    }

    /// Creates a caller of a disabled client.
    pub(crate) fn disabled() -> Self {
        let (timer, request_timeout) = (Timer::default(), Duration::ZERO);
        Self { connection: None, timer, request_timeout, idle_timeout: IDLE_TIMEOUT }
    }

    pub(crate) fn base_url(&self) -> Option<&str> {
        self.connection.as_ref().map(|connection| connection.endpoint.base_url())
    }

    #[cfg(test)]
    pub(crate) fn mailbox(&self) -> Option<&Mailbox> {
        self.connection.as_ref().map(|connection| &*connection.mailbox)
    }

    /// Returns `None` if `future` is not done at `deadline`.
    pub(crate) async fn within<T>(
        &self,
        deadline: Instant,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        self.timer.within(deadline, future).await
    }

    pub(crate) async fn sleep_until(&self, time: Instant) {
        self.timer.within(time, std::future::pending::<()>()).await;
    }

    /// Returns whether the client was shut down, or its worker failed permanently.
    pub(crate) fn is_closed(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.mailbox.is_closed())
    }

    fn connection(&self) -> Result<&Connection, RequestError> {
        self.connection.as_ref().ok_or(RequestError::Disabled)
    }

    /// Sends a GET request to `path` and decodes the JSON response.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RequestError> {
        self.call(Method::GET, path, Bytes::new(), Duration::ZERO).await
    }

    /// Like [`get`](Self::get), but returns `None` if the server has no such
    /// resource. A URL that it does not know is an error.
    pub(crate) async fn find<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Option<T>, RequestError> {
        match self.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(RequestError::Status(error)) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a request to `path` and decodes the JSON response. A body that is not
    /// empty is JSON. `extra_time` is how much longer than other requests it may
    /// take.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        extra_time: Duration,
    ) -> Result<T, RequestError> {
        decode(&self.call_for_response(method, path, body, extra_time).await?)
    }

    /// Sends a request like [`call`](Self::call), and returns a successful
    /// response.
    pub(crate) async fn call_for_response(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        extra_time: Duration,
    ) -> Result<Response, RequestError> {
        let request = self.request(method, path, body)?;
        let response = self.send(request, extra_time).await?;
        if response.status().is_success() { Ok(response) } else { Err(to_error(&response)) }
    }

    /// Reads the readiness. Its response has the same form whether or not the
    /// server is ready.
    pub(crate) async fn readiness(&self) -> Result<Response, RequestError> {
        let request = self.connection()?.endpoint.readiness_request(RESPONSE_LIMIT);
        let response =
            self.send(request.map_err(|error| too_long(&error))?, Duration::ZERO).await?;
        let is_readiness = response.status().is_success()
            || (response.status() == StatusCode::SERVICE_UNAVAILABLE
                && server_message(&response).is_some());
        if is_readiness { Ok(response) } else { Err(to_error(&response)) }
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request, RequestError> {
        let has_body = !body.is_empty();
        let endpoint = &self.connection()?.endpoint;
        let request = endpoint.api_request(method, path, body, RESPONSE_LIMIT);
        let mut request = request.map_err(|error| too_long(&error))?;
        if has_body {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
        }
        Ok(request)
    }

    fn push(&self, call: Call) -> Result<(), RequestError> {
        let Connection { mailbox, starter, .. } = self.connection()?;
        if mailbox.is_forked() {
            return Err(RequestError::Forked);
        }
        // Nothing would ever respond.
        if !starter.start_now() {
            let message = "cannot start the client's thread".to_owned();
            return Err(RequestError::NoResponse(message));
        }
        mailbox.push_call(call);
        Ok(())
    }

    async fn send(&self, request: Request, extra_time: Duration) -> Result<Response, RequestError> {
        let (response, receiver) = oneshot::channel();
        let call = Call { request, extra_time, response, stream: None };
        self.push(call)?;
        self.received(receiver, self.request_timeout + extra_time).await
    }

    /// Waits for a response longer than the worker does. The worker may be stuck, for
    /// example while no file descriptor is free for its runtime.
    async fn received(
        &self,
        receiver: oneshot::Receiver<TransportResult>,
        timeout: Duration,
    ) -> Result<Response, RequestError> {
        let deadline = Instant::now() + timeout + GRACE;
        let Some(result) = self.timer.within(deadline, receiver).await else {
            let message = "the client's thread is busy or cannot start, and sent no request within";
            return Err(RequestError::NoResponse(format!("{message} {}", rounded(timeout))));
        };
        let dropped = |_| match self.is_closed() {
            true => RequestError::Closed,
            false => RequestError::NoResponse("the client's thread was restarted".to_owned()),
        };
        result.map_err(dropped)?.map_err(|error| {
            let message = error_chain(&error);
            if error.is_unsupported() {
                RequestError::Unsupported(message)
            } else {
                RequestError::NoResponse(message)
            }
        })
    }

    /// Sends a GET request to `path` and returns the body when the head of the
    /// response has arrived. A response with another content type than `media_type` is
    /// not the server's.
    pub(crate) async fn stream(
        &self,
        path: &str,
        media_type: &'static str,
    ) -> Result<StreamedBody, RequestError> {
        let request = self.request(Method::GET, path, Bytes::new())?;
        let (response, receiver) = oneshot::channel();
        let (pieces, body) = mpsc::channel(BUFFERED_PIECES);
        let stream = Some(StreamTarget { pieces, media_type, idle_timeout: self.idle_timeout });
        let call = Call { request, extra_time: Duration::ZERO, response, stream };
        self.push(call)?;
        let response = self.received(receiver, self.idle_timeout).await?;
        if is_stream(response.status(), response.headers(), media_type) {
            return Ok(StreamedBody { pieces: body, received: 0 });
        }
        if !response.status().is_success() {
            return Err(to_error(&response));
        }
        let found = header(&response, CONTENT_TYPE.as_str()).unwrap_or("missing");
        let message =
            format!("{} (content type {found}, expected {media_type})", describe(&response));
        Err(RequestError::UnexpectedResponse(message))
    }
}

/// The body of a response, as it arrives. Dropping it cancels the request.
#[derive(Debug)]
pub(crate) struct StreamedBody {
    pieces: mpsc::Receiver<StreamPiece>,
    received: u64,
}

impl StreamedBody {
    /// Returns the next piece, or `None` at the end of a complete body.
    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, RequestError>> {
        self.pieces.poll_recv(context).map(|piece| self.accept(piece))
    }

    /// Like [`poll_next`](Self::poll_next), but blocks the thread.
    pub(crate) fn blocking_next(&mut self) -> Result<Option<Bytes>, RequestError> {
        let piece = self.pieces.blocking_recv();
        self.accept(piece)
    }

    fn accept(&mut self, piece: Option<StreamPiece>) -> Result<Option<Bytes>, RequestError> {
        let message = match piece {
            Some(StreamPiece::Data(bytes)) => {
                self.received += bytes.len() as u64;
                return Ok(Some(bytes));
            }
            Some(StreamPiece::End) => return Ok(None),
            Some(StreamPiece::Failed(error)) => error_chain(&error),
            None => "the client's thread ended".to_owned(),
        };
        Err(self.incomplete(&message))
    }

    /// Returns the error of a body that ends here although it should not.
    pub(crate) fn incomplete(&self, message: &str) -> RequestError {
        RequestError::Incomplete { received: self.received, message: message.to_owned() }
    }
}

fn is_not_found(error: &StatusError) -> bool {
    error.status == 404 && !error.message.starts_with(NO_ROUTE)
}

fn too_long(error: &http::uri::InvalidUri) -> RequestError {
    let message = format!("the query does not fit into a URL: {error}");
    RequestError::Status(StatusError::rejected(414, message, FieldErrors::new()))
}

/// Decodes the JSON of a response.
pub(crate) fn decode<T: DeserializeOwned>(response: &Response) -> Result<T, RequestError> {
    serde_json::from_slice(response.body()).map_err(|error| {
        RequestError::UnexpectedResponse(format!("{} ({error})", describe(response)))
    })
}

fn to_error(response: &Response) -> RequestError {
    let status = response.status().as_u16();
    let (message, errors) = match serde_json::from_slice(response.body()) {
        Ok(ErrorResponse { message, errors, .. }) if server_message(response).is_some() => {
            (message, errors)
        }
        // A proxy says that the server is overloaded or unavailable.
        _ if matches!(status, 408 | 425 | 429 | 500..=599) => {
            let message = format!("{}, not from an eyego-log server", describe_body(response));
            (message, FieldErrors::new())
        }
        _ => return RequestError::UnexpectedResponse(describe(response)),
    };
    let request_id = header(response, "x-request-id").map(str::to_owned);
    let pause = header(response, "retry-after");
    let retry_after = pause.and_then(|value| retry_after(value, SystemTime::now()));
    RequestError::Status(StatusError {
        status,
        message,
        errors,
        request_id,
        retry_after,
        is_from_client: false,
    })
}
