//! The content encodings that a client accepts.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// Returns the codings of `Accept-Encoding` and their weights, in their order. A
/// weight that is not a number is `None`.
pub(super) fn codings(headers: &HeaderMap) -> impl Iterator<Item = (&str, Option<f32>)> {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|item| {
        let (name, parameters) = item.split_once(';').unwrap_or((item, "q=1"));
        let weight = parameters.trim().strip_prefix("q=");
        (name.trim(), weight.map_or(Some(1.0), |weight| weight.parse().ok()))
    })
}
