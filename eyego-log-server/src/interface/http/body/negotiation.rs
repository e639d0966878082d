//! The media type and the content encoding of a request body.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};

use crate::interface::http::error::{ApiError, shortened};

/// The content encoding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Compressed(Compression),
}

/// A supported compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
}

/// Returns the media type of a body, without its parameters.
///
/// # Errors
/// Returns an error if the media type is missing or not one of `accepted`, if its
/// charset is not UTF-8, or if the content encoding is not supported.
pub(in crate::interface::http) fn media_type<'a>(
    headers: &'a HeaderMap,
    accepted: &[&str],
) -> Result<&'a str, ApiError> {
    let expected = || accepted.join(" or ");
    let Some(value) = header(headers, &CONTENT_TYPE) else {
        let message = format!("missing Content-Type: expected {}", expected());
        return Err(ApiError::unsupported(message));
    };
    let (media_type, parameters) = value.split_once(';').unwrap_or((value, ""));
    let media_type = media_type.trim();
    if !accepted.iter().any(|accepted| media_type.eq_ignore_ascii_case(accepted)) {
        let shown = shortened(media_type);
        let message = format!("unsupported Content-Type `{shown}`: expected {}", expected());
        return Err(ApiError::unsupported(message));
    }
    for parameter in parameters.split(';') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let charset = value.trim().trim_matches('"');
        let is_utf8 = ["utf-8", "utf8"].iter().any(|utf8| charset.eq_ignore_ascii_case(utf8));
        if name.trim().eq_ignore_ascii_case("charset") && !is_utf8 {
            let shown = shortened(charset);
            let message = format!("unsupported charset `{shown}`: expected utf-8");
            return Err(ApiError::unsupported(message));
        }
    }
    // Checked here as well, because this is called before the body is asked for.
    encoding(headers)?;
    Ok(media_type)
}

/// Returns the content encoding of a body.
///
/// # Errors
/// Returns an error if the encoding is not supported.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let value = header(headers, &CONTENT_ENCODING).unwrap_or("identity").trim();
    for (name, encoding) in [
        ("identity", Encoding::Identity),
        ("gzip", Encoding::Compressed(Compression::Gzip)),
        ("x-gzip", Encoding::Compressed(Compression::Gzip)),
        ("zstd", Encoding::Compressed(Compression::Zstd)),
    ] {
        if value.eq_ignore_ascii_case(name) {
            return Ok(encoding);
        }
    }
    let shown = shortened(value);
    let message = format!("unsupported Content-Encoding `{shown}`: expected gzip or zstd");
    Err(ApiError::unsupported(message))
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"))
}
