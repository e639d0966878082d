//! Content encodings, and which of them a client accepts.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// A content encoding that the server can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// Returns the encoding with the greatest weight in `Accept-Encoding` (RFC 9110,
    /// section 12.5.3), of equal weights the first in `available`. It is `Identity` if the client
    /// prefers that by weight, or accepts none of `available`.
    pub(super) fn preferred(headers: &HeaderMap, available: &[Self]) -> Self {
        let weight_of = |encoding: Self| {
            let named = codings(headers).find(|(name, _)| encoding.has_name(name));
            named.map(|(_, weight)| weight)
        };
        let identity = weight_of(Self::Identity).unwrap_or(0.0);
        let mut best = (0.0, Self::Identity);
        for &encoding in available {
            let weight = weight_of(encoding).unwrap_or(0.0);
            if weight > best.0 && weight >= identity {
                best = (weight, encoding);
            }
        }
        best.1
    }

    /// Returns the value of `Content-Encoding`.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    fn has_name(self, name: &str) -> bool {
        name.eq_ignore_ascii_case(self.name().unwrap_or("identity"))
            || (self == Self::Gzip && name.eq_ignore_ascii_case("x-gzip"))
    }
}

/// Returns the codings of `Accept-Encoding` and their weights, in their order. A
/// weight that is not a number is 0.
fn codings(headers: &HeaderMap) -> impl Iterator<Item = (&str, f32)> {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|item| {
        let (name, parameters) = item.split_once(';').unwrap_or((item, "q=1"));
        let weight = parameters.trim().strip_prefix("q=");
        (name.trim(), weight.map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0)))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_client_chooses_the_encoding() {
        for (accepted, expected) in [
            ("", Encoding::Identity),
            ("br, deflate", Encoding::Identity),
            ("gzip, deflate, br, zstd", Encoding::Zstd),
            ("gzip;q=1.0, zstd;q=0.5", Encoding::Gzip),
            ("GZIP", Encoding::Gzip),
            ("x-gzip", Encoding::Gzip),
            ("zstd;q=0", Encoding::Identity),
            ("zstd; q=0.1", Encoding::Zstd),
            ("gzip;q=much", Encoding::Identity),
            ("identity;q=1, gzip;q=0.5", Encoding::Identity),
            ("identity;q=0.5, gzip;q=0.5", Encoding::Gzip),
            ("identity, gzip", Encoding::Gzip),
        ] {
            let headers = [(ACCEPT_ENCODING, HeaderValue::from_static(accepted))];
            let headers = headers.into_iter().collect();
            let available = [Encoding::Zstd, Encoding::Gzip];
            assert_eq!(Encoding::preferred(&headers, &available), expected, "{accepted}");
        }
    }
}
