//! Reads and decompresses a body under limits: its size as it comes and as it
//! decodes, its time, and the memory of all bodies together.

use std::io::{self, Read};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;
use crate::application::ingest::Budget;
use crate::domain::queue::AppendError;

/// A body may pause this long, and take this long before its rate counts.
const IDLE: Duration = Duration::from_secs(15);

/// The rate that a body must keep on average, in bytes per second, or it could
/// hold its memory for hours.
const MIN_RATE: u64 = 1024;

/// After a refusal up to this much of the body is still read, so that a plain
/// client, which writes all before it reads, sees the answer.
const DISCARD_BYTES: usize = 32 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// The largest window of a zstd frame, as a power of two: 32 MiB.
const ZSTD_MAX_WINDOW_LOG: u32 = 25;

/// Decompressing and parsing of more than this is handed to a blocking thread.
pub(super) const LARGE: usize = 256 << 10;

/// How large a body may be.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Bytes after decompression.
    pub max_bytes: usize,
}

/// A body that was read, and its share of the memory.
#[derive(Debug)]
pub(super) struct ReadBody {
    pub(super) bytes: Bytes,
    pub(super) permit: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// The media type of a body, without its parameters.
///
/// # Errors
/// It is none of `accepted`, or its charset is not UTF-8.
pub(super) fn media_type<'a>(
    headers: &'a HeaderMap,
    accepted: &[&str],
) -> Result<&'a str, ApiError> {
    let expected = || accepted.join(" or ");
    let Some(value) = header(headers, &CONTENT_TYPE) else {
        return Err(ApiError::Unsupported(format!("say Content-Type: {}", expected())));
    };
    let (media_type, parameters) = value.split_once(';').unwrap_or((value, ""));
    let media_type = media_type.trim();
    if !accepted.iter().any(|accepted| media_type.eq_ignore_ascii_case(accepted)) {
        let message = format!("Content-Type must be {}, not {media_type}", expected());
        return Err(ApiError::Unsupported(message));
    }
    for parameter in parameters.split(';') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let charset = value.trim().trim_matches('"');
        let is_utf8 = ["utf-8", "utf8"].iter().any(|utf8| charset.eq_ignore_ascii_case(utf8));
        if name.trim().eq_ignore_ascii_case("charset") && !is_utf8 {
            return Err(ApiError::Unsupported(format!("charset must be utf-8, not {charset}")));
        }
    }
    Ok(media_type)
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"))
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let value = header(headers, &CONTENT_ENCODING).unwrap_or("identity").trim();
    for (name, encoding) in [
        ("identity", Encoding::Identity),
        ("gzip", Encoding::Gzip),
        ("x-gzip", Encoding::Gzip),
        ("zstd", Encoding::Zstd),
    ] {
        if value.eq_ignore_ascii_case(name) {
            return Ok(encoding);
        }
    }
    Err(ApiError::Unsupported(format!("Content-Encoding must be gzip or zstd, not {value}")))
}

/// Reads the body of a request, decompressed.
///
/// # Errors
/// It is too large, too slow, not decodable, or there is no memory for it.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limits: BodyLimits,
    budget: &Budget,
) -> Result<ReadBody, ApiError> {
    let read = async {
        match encoding(headers)? {
            // What it decodes to is charged with it.
            Encoding::Identity => {
                receive(&mut body, limits, budget, |length| {
                    length + Budget::cost_of_decoded(length)
                })
                .await
            }
            encoding @ (Encoding::Gzip | Encoding::Zstd) => {
                let raw = receive(&mut body, limits, budget, |length| length).await?;
                decompress(raw, encoding, limits, budget).await
            }
        }
    };
    let result = read.await;
    // Who is too slow already would only be waited for longer.
    if matches!(&result, Err(error) if !matches!(error, ApiError::TooSlow(_))) {
        discard(&mut body).await;
    }
    result
}

/// Reads what is left of a refused body, and forgets it.
pub(super) async fn discard(body: &mut Body) {
    let deadline = Instant::now() + DISCARD_TIME;
    let mut discarded = 0;
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        discarded += frame.data_ref().map_or(0, Bytes::len);
        if discarded > DISCARD_BYTES {
            return;
        }
    }
}

async fn receive(
    body: &mut Body,
    limits: BodyLimits,
    budget: &Budget,
    cost: impl Fn(usize) -> usize,
) -> Result<ReadBody, ApiError> {
    let mut permit: Option<OwnedSemaphorePermit> = None;
    let mut pace = None;
    let mut first = Bytes::new();
    let mut all = Vec::new();
    let mut length = 0;
    loop {
        // Most bodies came with their headers: no timer for those.
        let frame = match body.frame().now_or_never() {
            Some(frame) => frame,
            None => wait_for_frame(body, pace.get_or_insert_with(Pace::start), length).await?,
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            ApiError::Invalid(format!("the body broke off: {error}"), Default::default())
        })?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > limits.max_bytes {
            return Err(too_large(limits));
        }
        let more = budget.take(cost(data.len())).ok_or_else(no_memory)?;
        match &mut permit {
            Some(permit) => permit.merge(more),
            None => permit = Some(more),
        }
        if length == data.len() {
            first = data;
        } else {
            // A body in one piece is used where it lies; one in several is
            // gathered.
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
    }
    let bytes = if all.is_empty() { first } else { all.into() };
    let permit = permit.or_else(|| budget.take(0)).ok_or_else(no_memory)?;
    Ok(ReadBody { bytes, permit })
}

/// How long a body has taken so far.
struct Pace {
    start: Instant,
}

impl Pace {
    fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// When a body of which this much is here has taken too long.
    fn deadline(&self, length: usize) -> Instant {
        let earned = Duration::from_secs(length as u64 / MIN_RATE);
        (self.start + IDLE + earned).min(Instant::now() + IDLE)
    }
}

type Frame = Option<Result<hyper::body::Frame<Bytes>, axum::Error>>;

async fn wait_for_frame(
    body: &mut Body,
    pace: &mut Pace,
    length: usize,
) -> Result<Frame, ApiError> {
    timeout_at(pace.deadline(length), body.frame()).await.map_err(|_| {
        ApiError::TooSlow(format!(
            "the body came too slowly: at most {} s without a byte, and {MIN_RATE} bytes/s",
            IDLE.as_secs()
        ))
    })
}

async fn decompress(
    body: ReadBody,
    encoding: Encoding,
    limits: BodyLimits,
    budget: &Budget,
) -> Result<ReadBody, ApiError> {
    let budget = budget.clone();
    let work = move || decompress_all(body, encoding, limits, &budget);
    // How much it decodes to is not known before: it could be the most allowed.
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ApiError::Internal(format!("decompression failed: {error}"))),
    }
}

fn decompress_all(
    mut body: ReadBody,
    encoding: Encoding,
    limits: BodyLimits,
    budget: &Budget,
) -> Result<ReadBody, ApiError> {
    let ReadBody { bytes, permit } = &mut body;
    let decoded = decoded(bytes, encoding, limits, |length| {
        permit.merge(budget.take(Budget::cost_of_decoded(length)).ok_or_else(no_memory)?);
        Ok(())
    })?;
    Ok(ReadBody { bytes: decoded.into(), permit: body.permit })
}

/// Decodes piece by piece; `charge` hears of each before it is kept.
fn decoded(
    bytes: &[u8],
    encoding: Encoding,
    limits: BodyLimits,
    mut charge: impl FnMut(usize) -> Result<(), ApiError>,
) -> Result<Vec<u8>, ApiError> {
    let broken = |error: io::Error| {
        let name = if encoding == Encoding::Gzip { "gzip" } else { "zstd" };
        ApiError::Invalid(format!("the body is not valid {name}: {error}"), Default::default())
    };
    let mut reader: Box<dyn Read> = match encoding {
        Encoding::Identity => Box::new(bytes),
        Encoding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(broken)?;
            decoder.window_log_max(ZSTD_MAX_WINDOW_LOG).map_err(broken)?;
            Box::new(decoder)
        }
    };
    let mut decoded = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let length = reader.read(&mut chunk).map_err(broken)?;
        if length == 0 {
            return Ok(decoded);
        }
        // Stops a bomb where it would pass the limit.
        if decoded.len() + length > limits.max_bytes {
            return Err(too_large(limits));
        }
        charge(length)?;
        decoded.extend_from_slice(&chunk[..length]);
    }
}

/// For the fuzz targets.
#[doc(hidden)]
pub fn fuzz_decompression(bytes: &[u8]) {
    const MAX: usize = 1 << 20;
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        let mut charged = 0;
        let decoded = decoded(bytes, encoding, BodyLimits { max_bytes: MAX }, |length| {
            charged += length;
            Ok(())
        });
        assert!(charged <= MAX, "a bomb went off");
        if let Ok(decoded) = decoded {
            assert_eq!(decoded.len(), charged);
        }
    }
}

fn too_large(limits: BodyLimits) -> ApiError {
    let max = limits.max_bytes;
    ApiError::TooLarge(format!("the body must have at most {max} bytes after decompression"))
}

fn no_memory() -> ApiError {
    let error = AppendError::Full("the budget of bytes in flight is used up".to_owned());
    ApiError::NotQueued(None, error)
}
