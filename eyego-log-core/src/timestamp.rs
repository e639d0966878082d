//! Points in time with the resolution of a MongoDB date: one millisecond.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

static PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// A point in time: milliseconds since 1970 in UTC, in the years 0 to 9999.
///
/// It parses from any RFC 3339 time with a zone, and formats as RFC 3339 in UTC
/// with milliseconds and `Z`. Input with a finer resolution is truncated to the
/// millisecond before it, because the store cannot hold more.
///
/// ```
/// use eyego_log_core::Timestamp;
///
/// let at: Timestamp = "2026-01-15T00:58:05.4429+01:00".parse()?;
/// assert_eq!(at.to_string(), "2026-01-14T23:58:05.442Z");
/// assert!("2026-01-14T23:58:05".parse::<Timestamp>().is_err(), "no zone");
///
/// let now = Timestamp::from(std::time::SystemTime::now());
/// assert!(at < now);
/// # Ok::<(), eyego_log_core::ParseTimestampError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 0000-01-01T00:00:00.000Z.
    pub const MIN: Self = Self(-62_167_219_200_000);
    /// 9999-12-30T22:00:00.000Z, the last instant whose year is at most 9999 in
    /// every zone.
    pub const MAX: Self = Self(253_402_207_200_000);

    /// Creates a timestamp from milliseconds since 1970. Returns `None` outside
    /// [`MIN`](Self::MIN) to [`MAX`](Self::MAX).
    #[must_use]
    pub const fn from_millis(millis: i64) -> Option<Self> {
        if millis < Self::MIN.0 || millis > Self::MAX.0 { None } else { Some(Self(millis)) }
    }

    /// Creates a timestamp from milliseconds since 1970, clamped to
    /// [`MIN`](Self::MIN) to [`MAX`](Self::MAX).
    #[must_use]
    pub fn from_millis_clamped(millis: i64) -> Self {
        Self(millis.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Returns the milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns the time that elapsed from `earlier` to `self`, or `None` if
    /// `earlier` is later, for example because two clocks differ.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// use eyego_log_core::Timestamp;
    ///
    /// let (one, two) = (Timestamp::from_millis_clamped(1_000), Timestamp::from_millis_clamped(2_500));
    /// assert_eq!(two.duration_since(one), Some(Duration::from_millis(1_500)));
    /// assert_eq!(one.duration_since(two), None);
    /// ```
    #[must_use]
    pub fn duration_since(self, earlier: Self) -> Option<Duration> {
        // The range of a `Timestamp` is too small for an overflow.
        u64::try_from(self.0 - earlier.0).ok().map(Duration::from_millis)
    }
}

impl From<SystemTime> for Timestamp {
    /// Converts a system time, clamped to [`MIN`](Self::MIN) to
    /// [`MAX`](Self::MAX).
    #[inline]
    fn from(time: SystemTime) -> Self {
        let millis = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis)
            }
        };
        Self::from_millis_clamped(millis)
    }
}

impl From<Timestamp> for SystemTime {
    /// Converts a timestamp.
    ///
    /// # Panics
    /// Panics if the platform cannot represent the time, which on Windows is the
    /// case before the year 1601.
    fn from(timestamp: Timestamp) -> Self {
        let distance = Duration::from_millis(timestamp.0.unsigned_abs());
        if timestamp.0 < 0 { Self::UNIX_EPOCH - distance } else { Self::UNIX_EPOCH + distance }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = jiff::Timestamp::from_millisecond(self.0).map_err(|_| fmt::Error)?;
        PRINTER.print_timestamp(&instant, jiff::fmt::StdFmtWrite(f)).map_err(|_| fmt::Error)
    }
}

/// The error of parsing a [`Timestamp`] from text that is not an RFC 3339 time
/// with a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be an RFC 3339 time with a zone, such as 2026-01-14T23:58:05.442Z")]
pub struct ParseTimestampError;

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The parser below accepts more than RFC 3339, such as the short forms
        // of ISO 8601 and the zone names of RFC 9557.
        if !has_rfc3339_shape(text.as_bytes()) {
            return Err(ParseTimestampError);
        }
        let instant: jiff::Timestamp = text.parse().map_err(|_| ParseTimestampError)?;
        let nanos = instant.as_nanosecond().div_euclid(1_000_000);
        let millis = i64::try_from(nanos).map_err(|_| ParseTimestampError)?;
        Self::from_millis(millis).ok_or(ParseTimestampError)
    }
}

/// Returns `true` for `2026-01-14T23:58:05`, an optional fraction, then `Z` or
/// `±01:00`.
fn has_rfc3339_shape(text: &[u8]) -> bool {
    fn matches(text: &[u8], pattern: &[u8]) -> bool {
        text.iter().zip(pattern).all(|(byte, expected)| match expected {
            b'd' => byte.is_ascii_digit(),
            b'T' => matches!(byte, b'T' | b't' | b' '),
            b'+' => matches!(byte, b'+' | b'-'),
            _ => byte == expected,
        })
    }

    let Some((date_time, rest)) = text.split_at_checked(19) else { return false };
    if !matches(date_time, b"dddd-dd-ddTdd:dd:dd") {
        return false;
    }
    let zone = match rest {
        [b'.', fraction @ ..] => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 || digits > 9 {
                return false;
            }
            &fraction[digits..]
        }
        _ => rest,
    };
    matches!(zone, [b'Z' | b'z']) || (zone.len() == 6 && matches(zone, b"+dd:dd"))
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_rfc_3339_parses() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01t00:00:00z", 0),
            ("1970-01-01 00:00:00+00:00", 0),
            ("1970-01-01T01:30:00.5+01:30", 500),
            ("1969-12-31T23:59:59.9999Z", -1),
            ("2026-01-14T23:58:05.442123456Z", 1_768_435_085_442),
            ("0000-01-01T00:00:00Z", Timestamp::MIN.as_millis()),
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().as_millis(), millis, "{text}");
        }
    }

    #[test]
    fn text_that_is_not_rfc_3339_is_an_error() {
        for text in [
            "",
            "now",
            "2026-01-14",
            "2026-01-14T23:58:05",
            "2026-01-14T23:58Z",
            "2026-01-14T23:58:05.Z",
            "2026-01-14T23:58:05+01",
            "2026-01-14T23:58:05+0100",
            "2026-01-14T23:58:05Z[UTC]",
            "2026-02-30T00:00:00Z",
            "2026-01-14T24:00:00Z",
            "+002026-01-14T23:58:05Z",
            "1768435085442",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn timestamps_round_trip_as_text(millis in Timestamp::MIN.0..=Timestamp::MAX.0) {
            let timestamp = Timestamp::from_millis(millis).unwrap();
            let text = timestamp.to_string();
            prop_assert_eq!(text.len(), 24);
            prop_assert_eq!(text.parse::<Timestamp>().unwrap(), timestamp);
        }

        #[test]
        fn timestamps_round_trip_as_system_time(millis in Timestamp::MIN.0..=Timestamp::MAX.0) {
            let timestamp = Timestamp::from_millis(millis).unwrap();
            prop_assert_eq!(Timestamp::from(SystemTime::from(timestamp)), timestamp);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Timestamp>();
        }
    }
}
