//! Describes responses and errors in messages for people. A message is one
//! bounded line that contains no credentials.

use std::fmt::{self, Write as _};
use std::time::Duration;

use eyego_log_core::wire::Status;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, Method, StatusCode, Uri};
use serde::Deserialize;

use crate::transport::{Request, Response};

/// How much of a body or of the server's message is shown, in bytes.
const SHOWN_BYTES: usize = 200;

/// How much of a URL is shown, in bytes.
const SHOWN_URL_BYTES: usize = 200;

/// The attempt that led to a response: what messages and the classification need
/// to know about the request. The sender puts it into the response's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    method: Method,
    uri: Uri,
    pub(crate) is_compressed: bool,
    /// Whether the next attempt may have another API key.
    pub(crate) can_key_change: bool,
    /// Why the API key is not the present content of its file.
    pub(crate) key_problem: Option<String>,
}

/// The URL to which the server redirected the request. The transport puts it into
/// the response's extensions if it followed a redirect.
#[derive(Debug, Clone)]
pub(crate) struct RedirectedTo(pub(crate) String);

/// Marks a response whose body was cut off at this number of bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CutOff(pub(crate) usize);

impl Attempt {
    pub(crate) fn new(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            is_compressed: request.headers().contains_key(CONTENT_ENCODING),
            can_key_change: false,
            key_problem: None,
        }
    }
}

impl fmt::Display for Attempt {
    /// Shows the method and the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, beginning(&self.uri.to_string(), SHOWN_URL_BYTES))
    }
}

/// The members that every error response of an eyego-log server has.
#[derive(Deserialize)]
struct Envelope {
    status: Status,
    message: String,
}

/// Returns the server's message if this is an error response of an eyego-log
/// server. A response without one comes from a proxy, or from another server.
pub(crate) fn server_message(response: &Response) -> Option<String> {
    let envelope: Envelope = serde_json::from_slice(response.body()).ok()?;
    let expected = if response.status().is_server_error() { Status::Error } else { Status::Fail };
    (envelope.status == expected).then_some(envelope.message)
}

/// Returns the value of a header.
pub(crate) fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// Describes a response by the request's URL, the status, the target of a
/// redirect, and the server's message or the beginning of the body.
pub(crate) fn describe(response: &Response) -> String {
    let extensions = response.extensions();
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = describe_to(&mut text, response);
    if let Some(attempt) = extensions.get::<Attempt>()
        && let Some(problem) = &attempt.key_problem
        && matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    {
        let _ = write!(text, " (the key is the previous one, because {problem})");
    }
    text
}

/// Describes which response of the server contains a message: the request's URL
/// and the status.
pub(crate) fn source(response: &Response) -> String {
    let mut text = String::new();
    let _ = source_to(&mut text, response, "the server responded");
    text
}

fn source_to(text: &mut String, response: &Response, subject: &str) -> fmt::Result {
    let extensions = response.extensions();
    if let Some(attempt) = extensions.get::<Attempt>() {
        write!(text, "{attempt}: ")?;
    }
    if let Some(RedirectedTo(url)) = extensions.get() {
        write!(text, "redirected to {}: ", beginning(url, SHOWN_URL_BYTES))?;
    }
    write!(text, "{subject} with status {}", response.status().as_u16())?;
    if let Some(id) = header(response, "x-request-id") {
        write!(text, " (request {})", beginning(id, SHOWN_BYTES))?;
    }
    Ok(())
}

fn describe_to(text: &mut String, response: &Response) -> fmt::Result {
    let extensions = response.extensions();
    let message = server_message(response);
    let subject = match &message {
        Some(_) => "the server responded",
        None => "unexpected response",
    };
    source_to(text, response, subject)?;
    if response.status().is_redirection()
        && let Some(location) = response.headers().get(LOCATION)
    {
        let location = String::from_utf8_lossy(location.as_bytes());
        let location = without_credentials(&location);
        write!(text, ", a redirect to {}", beginning(&location, SHOWN_URL_BYTES))?;
    }
    match message {
        Some(message) => write!(text, ": {}", beginning(&message, SHOWN_BYTES))?,
        None => write!(text, " and {}", describe_body(response))?,
    }
    if let Some(CutOff(limit)) = extensions.get() {
        write!(text, " (longer than the {limit} bytes that were read)")?;
    }
    Ok(())
}

/// Describes a body that no eyego-log server sent: its beginning.
pub(crate) fn describe_body(response: &Response) -> String {
    let body = response.body();
    if body.is_empty() {
        return "no body".to_owned();
    }
    let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)]);
    format!("body {shown:?}")
}

/// Returns the beginning of a text on one line.
fn beginning(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let shown = text[..end].replace(|c: char| c.is_control(), " ");
    if end < text.len() { format!("{shown}…") } else { shown }
}

/// Hides the user name and password of a URL.
pub(crate) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((userinfo, _)) => format!("{scheme}://***{}", &rest[userinfo.len()..]),
        None => url.to_owned(),
    }
}

/// Returns whether this is the head of a stream of this media type, as the server sends it.
pub(crate) fn is_stream(status: StatusCode, headers: &HeaderMap, media_type: &str) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let found = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    status == StatusCode::OK && found.trim().eq_ignore_ascii_case(media_type)
}

/// Formats a duration, in whole milliseconds if it has any.
pub(crate) fn rounded(duration: Duration) -> impl fmt::Display {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(if millis == 0 { duration } else { Duration::from_millis(millis) })
}

/// Formats an error and all of its sources.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        // Many errors repeat the message of their source.
        if !chain.contains(&text) {
            chain.push_str(": ");
            chain.push_str(&text);
        }
        source = error.source();
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Bytes, response};

    fn attempted(url: &str, mut response: Response) -> Response {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = url.parse().unwrap();
        response.extensions_mut().insert(Attempt::new(&request));
        response
    }

    #[test]
    fn a_message_names_url_status_redirect_and_body_on_one_line() {
        let mut redirect = attempted("http://h/api/v1/logs", response(302, "<html>\nlog in"));
        let target = "https://u:secret@login/?a=1".parse().unwrap();
        redirect.headers_mut().insert(LOCATION, target);
        assert_eq!(
            describe(&redirect),
            "GET http://h/api/v1/logs: unexpected response with status 302, a redirect to \
             https://***@login/?a=1 and body \"<html>\\nlog in\""
        );
        let long = response(502, "x\n".repeat(10_000));
        let text = describe(&attempted(&format!("http://h/{}", "y".repeat(10_000)), long));
        assert!(text.len() < 1000 && !text.contains('\n'), "{text}");
    }

    #[test]
    fn durations_are_shown_in_milliseconds() {
        let shown = |nanos| rounded(Duration::from_nanos(nanos)).to_string();
        assert_eq!(shown(1_730_223_768), "1s 730ms");
        assert_eq!(shown(1_500), "1us 500ns");
    }

    #[test]
    fn only_the_servers_own_envelope_is_its_message() {
        let ours = response(404, r#"{"status":"fail","message":"no such route: /x"}"#);
        assert_eq!(server_message(&ours).unwrap(), "no such route: /x");
        for (status, body) in [
            (404, "404 page not found"),
            (404, r#"{"message":"no Route matched with those values"}"#),
            (404, r#"{"status":404,"message":"not found"}"#),
            (404, r#"{"status":"error","message":"not found"}"#),
            (503, r#"{"status":"fail","message":"busy"}"#),
        ] {
            assert_eq!(server_message(&response(status, body)), None, "{body}");
        }
    }
}
