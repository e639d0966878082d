//! Holds requests and responses against the server's OpenAPI document.
//!
//! A response violates it by an undocumented status, header, media type or field, or by a body that
//! does not match its schema. A request that succeeds violates it by an undocumented parameter or by a
//! value or body that the document does not allow. So the document is neither wider nor narrower than
//! the server, as far as the tests reach.

mod schemas;
pub mod tools;

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::Read as _;
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use reqwest::{RequestBuilder, Url};
use serde_json::Value;

use self::schemas::Schemas;

/// Headers that each response has which documents them.
const REQUIRED_HEADERS: [&str; 6] =
    ["allow", "content-disposition", "etag", "location", "retry-after", "www-authenticate"];

/// A request as the document sees it.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// The method, such as `GET`.
    pub method: &'a str,
    /// The path and the query string.
    pub target: &'a str,
    /// The media type of the body, if it is not compressed.
    pub media_type: Option<&'a str>,
    /// The body, not compressed.
    pub body: &'a [u8],
}

/// A response.
#[derive(Debug)]
pub struct Received {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it was sent.
    pub body: Vec<u8>,
}

impl Received {
    /// Parses a response that was received as bytes and is complete.
    ///
    /// # Errors
    /// Returns an error if it is not a response.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.context("the response has no end of its head")?;
        let head = std::str::from_utf8(&bytes[..end])?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let mut headers = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            headers.append(reqwest::header::HeaderName::try_from(name)?, value.parse()?);
        }
        Ok(Self {
            status: status.context("the response has no status")?,
            headers,
            body: bytes[end + 4..].to_vec(),
        })
    }

    /// Returns the body without its encoding.
    fn decoded(&self) -> Result<Cow<'_, [u8]>> {
        let mut decoded = Vec::new();
        match self.header(CONTENT_ENCODING) {
            None => return Ok(self.body.as_slice().into()),
            Some("gzip") => {
                flate2::read::GzDecoder::new(self.body.as_slice()).read_to_end(&mut decoded)?
            }
            Some("zstd") => {
                zstd::stream::read::Decoder::new(self.body.as_slice())?.read_to_end(&mut decoded)?
            }
            Some(other) => bail!("the encoding {other} is not documented"),
        };
        Ok(decoded.into())
    }

    fn is_unknown_route(&self) -> bool {
        let start = br#"{"status":"fail","message":"no such route:"#;
        self.status == 404 && self.body.starts_with(start)
    }

    fn header(&self, name: impl reqwest::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Sends a request, and checks it and the response.
///
/// # Errors
/// Returns an error if there is no response, or if it violates the document.
pub async fn send(request: RequestBuilder) -> Result<Received> {
    let (client, request) = request.build_split();
    let request = request?;
    let sent = request.try_clone().context("the body is a stream")?;
    let response = client.execute(request).await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await?.to_vec();
    let received = Received { status, headers, body };
    let url = sent.url();
    let target =
        url.query().map_or(url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let header = |name| sent.headers().get(name).and_then(|value| value.to_str().ok());
    check(
        Sent {
            method: sent.method().as_str(),
            target: &target,
            media_type: header(CONTENT_TYPE).filter(|_| header(CONTENT_ENCODING).is_none()),
            body: sent.body().and_then(|body| body.as_bytes()).unwrap_or_default(),
        },
        &received,
    )?;
    Ok(received)
}

/// Checks a response to a request.
///
/// # Errors
/// Returns an error that says how they violate the document.
pub fn check(sent: Sent<'_>, received: &Received) -> Result<()> {
    DOCUMENT.check(sent, received).with_context(|| {
        let body = String::from_utf8_lossy(&received.body);
        let body: String = body.chars().take(1000).collect();
        format!(
            "{} {} violates /openapi.json: {} {:?} {body}",
            sent.method, sent.target, received.status, received.headers
        )
    })
}

/// Checks messages of a tail, as server-sent events. Data that was found valid is not checked again:
/// an event can be on a thousand tails.
///
/// # Errors
/// Returns an error that says how the data of a message violates the document.
pub fn check_messages(messages: &str) -> Result<()> {
    static VALID: LazyLock<Mutex<HashSet<u32>>> = LazyLock::new(Mutex::default);

    let response = "paths/~1api~1v1~1logs~1tail/get/responses/200";
    let schema = format!("/{response}/content/text~1event-stream/schema/contentSchema");
    for data in messages.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let hash = crc32fast::hash(data.as_bytes());
        if VALID.lock().unwrap_or_else(PoisonError::into_inner).contains(&hash) {
            continue;
        }
        DOCUMENT.check_part(DOCUMENT.root.pointer(&schema), data).with_context(|| {
            let data: String = data.chars().take(1000).collect();
            format!("a message of the tail violates /openapi.json: {data}")
        })?;
        VALID.lock().unwrap_or_else(PoisonError::into_inner).insert(hash);
    }
    Ok(())
}

static DOCUMENT: LazyLock<Document> = LazyLock::new(Document::new);

struct Document {
    root: Value,
    schemas: Schemas,
}

impl Document {
    fn new() -> Self {
        let root = document();
        Self { schemas: Schemas::new(&root), root }
    }

    fn check(&self, sent: Sent<'_>, received: &Received) -> Result<()> {
        let url = Url::parse("http://localhost")?.join(sent.target)?;
        let method = if sent.method == "HEAD" { "GET" } else { sent.method };
        let item = self.path_item(url.path());
        let operation = item.and_then(|item| item.get(method.to_lowercase()));
        // Health and metrics, or all other routes, can be at another address.
        let operation = operation.filter(|_| !received.is_unknown_route());
        let Some(operation) = operation else {
            return self.check_unknown(item.is_some(), sent, received);
        };
        if (200..300).contains(&received.status) {
            self.check_parameters(operation, &url)?;
            if received.status != 207 {
                self.check_body(operation, sent)?;
            }
            ensure!(received.headers.contains_key("x-request-id"), "no x-request-id");
        }
        let response = &operation["responses"][received.status.to_string()];
        ensure!(!response.is_null(), "the status is not documented");
        self.check_response(self.resolve(response), sent.method == "HEAD", received)
    }

    /// Checks the response to a request for which the document has no operation.
    fn check_unknown(&self, is_path: bool, sent: Sent<'_>, received: &Received) -> Result<()> {
        let is_head = sent.method == "HEAD";
        let responses = &self.root["components"]["responses"];
        match (received.status, is_path) {
            (404, _) if !is_path || received.is_unknown_route() => {
                self.check_response(&responses["NotFound"], is_head, received)
            }
            (405, true) => self.check_response(&responses["MethodNotAllowed"], is_head, received),
            // The response to a question of a browser.
            (204, _) if sent.method == "OPTIONS" => Ok(()),
            (status, _) => {
                let failure =
                    &self.root["paths"]["/metrics"]["get"]["responses"][status.to_string()];
                ensure!(status >= 400 && !failure.is_null(), "the route is not documented");
                self.check_response(self.resolve(failure), is_head, received)
            }
        }
    }

    /// Returns the item of the path, with its parameters filled in.
    fn path_item(&self, path: &str) -> Option<&Value> {
        let paths = self.root["paths"].as_object()?;
        let matches = |template: &str| {
            let (parts, given) = (template.split('/'), path.split('/'));
            parts.clone().count() == given.clone().count()
                && parts.zip(given).all(|(part, given)| {
                    part == given || (part.starts_with('{') && !given.is_empty())
                })
        };
        let found = paths.iter().filter(|(template, _)| matches(template));
        found.min_by_key(|(template, _)| template.matches('{').count()).map(|(_, item)| item)
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let reference = value["$ref"].as_str().and_then(|text| text.strip_prefix('#'));
        reference.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(value)
    }

    fn check_response(&self, response: &Value, is_head: bool, received: &Received) -> Result<()> {
        for name in REQUIRED_HEADERS {
            let is_documented = response["headers"].get(name).is_some();
            ensure!(!is_documented || received.headers.contains_key(name), "no header {name}");
        }
        ensure!(
            response["headers"].get("retry-after").is_some()
                || !received.headers.contains_key("retry-after"),
            "Retry-After is not documented"
        );
        let Some(content) = response.get("content") else {
            ensure!(received.body.is_empty(), "the body is not documented");
            return Ok(());
        };
        let media_type = received.header(CONTENT_TYPE).context("no Content-Type")?;
        let media_type = essence(media_type);
        let content = content.get(media_type).context("the media type is not documented")?;
        let schema = &content["schema"];
        let of_part = schema.get("contentSchema");
        if is_head {
            return Ok(());
        }
        let body = received.decoded()?;
        match media_type {
            "application/json" => self.schemas.check(schema, &serde_json::from_slice(&body)?),
            "application/x-ndjson" => {
                let mut lines = std::str::from_utf8(&body)?.lines();
                lines.try_for_each(|line| self.check_part(of_part, line))
            }
            "text/event-stream" => {
                let data = std::str::from_utf8(&body)?.lines();
                let mut data = data.filter_map(|line| line.strip_prefix("data: "));
                data.try_for_each(|data| self.check_part(of_part, data))
            }
            text if text.starts_with("text/") => Ok(std::str::from_utf8(&body).map(drop)?),
            _ => Ok(()),
        }
    }

    /// Checks a line or the data of a message in a stream.
    fn check_part(&self, schema: Option<&Value>, part: &str) -> Result<()> {
        let schema = schema.context("the parts of the stream are not documented")?;
        self.schemas.check(schema, &serde_json::from_str(part)?)
    }

    /// Checks the parameters of the query string of a request that succeeded.
    fn check_parameters(&self, operation: &Value, url: &Url) -> Result<()> {
        let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let parameters = || parameters.iter().filter(|parameter| parameter["in"] == "query");
        for (name, value) in url.query_pairs() {
            if name.starts_with("metadata.") {
                let filters = parameters().find(|parameter| parameter["name"] == "metadata");
                let filters = filters.context("filters of metadata are not documented")?;
                let pair = Value::from_iter([(name.into_owned(), value.into_owned())]);
                self.schemas.check(&filters["schema"], &pair)?;
                continue;
            }
            let Some(parameter) = parameters().find(|parameter| parameter["name"] == *name) else {
                bail!("the parameter {name} is not documented");
            };
            let value = typed(&parameter["schema"], &value);
            self.schemas.check(&parameter["schema"], &value).context(name.into_owned())?;
        }
        let is_given = |name: &Value| url.query_pairs().any(|(given, _)| *name == *given);
        for parameter in parameters().filter(|parameter| parameter["required"] == true) {
            let name = &parameter["name"];
            ensure!(is_given(name), "{name} is documented as required, but it is not");
        }
        Ok(())
    }

    /// Checks the JSON body of a request that succeeded.
    fn check_body(&self, operation: &Value, sent: Sent<'_>) -> Result<()> {
        let Some(content) = operation.get("requestBody").map(|body| &body["content"]) else {
            return Ok(());
        };
        let Some(media_type) = sent.media_type.map(essence) else { return Ok(()) };
        let content = content.get(media_type.to_lowercase());
        let content = content.context("the media type of the request is not documented")?;
        if media_type == "application/json" {
            let body = serde_json::from_slice(sent.body)?;
            self.schemas.check(&content["schema"], &body).context("the body of the request")?;
        }
        Ok(())
    }
}

/// Returns the document.
#[must_use]
pub fn document() -> Value {
    serde_json::from_str(&eyego_log_server::interface::http::openapi()).unwrap_or_default()
}

/// Returns a media type without its parameters.
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Returns the value of a parameter as its schema describes it.
fn typed(schema: &Value, text: &str) -> Value {
    match schema["type"].as_str() {
        Some("integer") => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
        Some("array") => text.split(',').map(Value::from).collect(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests;
