//! Points in time with the resolution of a MongoDB date: one millisecond.

#[cfg(feature = "chrono")]
mod chrono;
#[cfg(feature = "jiff")]
mod jiff;

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const MILLIS_PER_DAY: i64 = 24 * 60 * 60 * 1000;

/// A point in time: milliseconds since 1970 in UTC, in the years 0 to 9999.
///
/// It parses from any RFC 3339 time with a zone, and formats as RFC 3339 in UTC
/// with milliseconds and `Z`. Fractions of any length are truncated to the
/// millisecond before, because the store cannot hold more. A leap second becomes
/// the second before it.
///
/// It converts from and into [`SystemTime`](std::time::SystemTime), with the crate feature
/// `chrono` from any `chrono::DateTime` and into `DateTime<Utc>`, and with the feature
/// `jiff` from `jiff::Timestamp` and `jiff::Zoned`. Into `jiff::Timestamp` it converts with
/// `try_into`, because the range of that type ends a day earlier.
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
    /// 9999-12-31T23:59:59.999Z.
    pub const MAX: Self = Self(253_402_300_799_999);

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

    /// Parses a time like [`FromStr`], clamped to [`MIN`](Self::MIN) to
    /// [`MAX`](Self::MAX). An offset from UTC can move a valid time out of that
    /// range.
    ///
    /// # Errors
    /// Returns an error if `text` is not an RFC 3339 time with a zone.
    ///
    /// ```
    /// use eyego_log_core::Timestamp;
    ///
    /// let text = "9999-12-31T23:59:59-05:00";
    /// assert_eq!(Timestamp::parse_clamped(text), Ok(Timestamp::MAX));
    /// assert!(text.parse::<Timestamp>().is_err());
    /// ```
    pub fn parse_clamped(text: &str) -> Result<Self, ParseTimestampError> {
        let millis = parse_millis(text.as_bytes()).ok_or(ParseTimestampError::Format)?;
        Ok(Self::from_millis_clamped(millis))
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
    /// Converts a system time to the millisecond at or before it, clamped to
    /// [`MIN`](Self::MIN) to [`MAX`](Self::MAX).
    #[inline]
    fn from(time: SystemTime) -> Self {
        let millis = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => {
                let millis = before.duration().as_nanos().div_ceil(1_000_000);
                i64::try_from(millis).map_or(i64::MIN, |millis| -millis)
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

impl Timestamp {
    /// Returns the time as `2026-01-14T23:58:05.442Z`, without allocating.
    #[must_use]
    pub fn to_text(self) -> [u8; 24] {
        let (year, month, day) = civil_from_days(self.0.div_euclid(MILLIS_PER_DAY));
        let millis = self.0.rem_euclid(MILLIS_PER_DAY);
        let mut text = *b"yyyy-mm-ddThh:mm:ss.mmmZ";
        for (place, digits, number) in [
            (0, 4, year),
            (5, 2, month),
            (8, 2, day),
            (11, 2, millis / 3_600_000),
            (14, 2, millis / 60_000 % 60),
            (17, 2, millis / 1000 % 60),
            (20, 3, millis % 1000),
        ] {
            // All years have four digits.
            let mut number = u16::try_from(number).unwrap_or(0);
            for digit in text[place..place + digits].iter_mut().rev() {
                *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
                number /= 10;
            }
        }
        text
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_text()).map_err(|_| fmt::Error)?)
    }
}

/// Returns year, month and day of the proleptic Gregorian calendar for a number of
/// days since 1970-01-01. Counts from 0000-03-01, so that the leap day is the last
/// day of a year.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (400 * era + year_of_era + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
    146_097 * era + day_of_era - 719_468
}

/// The error of parsing a [`Timestamp`] from text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseTimestampError {
    /// The text is not an RFC 3339 time with a zone.
    #[error("must be an RFC 3339 time with a zone, such as 2026-01-14T23:58:05.442Z")]
    Format,
    /// The offset from UTC moves the time out of [`Timestamp::MIN`] to
    /// [`Timestamp::MAX`].
    #[error("must lie in the years 0 to 9999 in UTC")]
    OutOfRange,
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let millis = parse_millis(text.as_bytes()).ok_or(ParseTimestampError::Format)?;
        Self::from_millis(millis).ok_or(ParseTimestampError::OutOfRange)
    }
}

/// Parses `2026-01-14T23:58:05`, an optional fraction, then `Z` or `±01:00`.
fn parse_millis(text: &[u8]) -> Option<i64> {
    let (date_time, rest) = text.split_at_checked(19)?;
    let is_separator = |place: usize, allowed: &[u8]| allowed.contains(&date_time[place]);
    let separated = is_separator(4, b"-")
        && is_separator(7, b"-")
        && is_separator(10, b"Tt ")
        && is_separator(13, b":")
        && is_separator(16, b":");
    if !separated {
        return None;
    }
    let year = number(&date_time[..4], 0..=9999)?;
    let month = number(&date_time[5..7], 1..=12)?;
    let day = number(&date_time[8..10], 1..=31)?;
    let hour = number(&date_time[11..13], 0..=23)?;
    let minute = number(&date_time[14..16], 0..=59)?;
    let second = number(&date_time[17..], 0..=60)?.min(59);
    let days = days_from_civil(year, month, day);
    if civil_from_days(days) != (year, month, day) {
        return None;
    }
    let (millis, zone) = match rest {
        [b'.', fraction @ ..] => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (fraction, zone) = fraction.split_at(digits);
            let [tenths, hundredths, thousandths] = match *fraction {
                [] => return None,
                [a] => [a, b'0', b'0'],
                [a, b] => [a, b, b'0'],
                [a, b, c, ..] => [a, b, c],
            };
            (number(&[tenths, hundredths, thousandths], 0..=999)?, zone)
        }
        _ => (0, rest),
    };
    let offset_minutes = match zone {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let minutes = number(&[*h1, *h2], 0..=23)? * 60 + number(&[*m1, *m2], 0..=59)?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let minutes = (days * 24 + hour) * 60 + minute - offset_minutes;
    Some((minutes * 60 + second) * 1000 + millis)
}

/// Returns the number that the digits form, if it is in the range.
fn number(digits: &[u8], range: RangeInclusive<i64>) -> Option<i64> {
    let number = digits.iter().try_fold(0, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
    })?;
    range.contains(&number).then_some(number)
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
            ("2026-01-14T23:58:05.44212345678901234567890Z", 1_768_435_085_442),
            ("1969-12-31T23:59:59.0009999999999Z", -1000),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
            ("0000-01-01T00:00:00Z", Timestamp::MIN.as_millis()),
            ("0000-02-29T00:00:00-00:00", Timestamp::MIN.as_millis() + 59 * MILLIS_PER_DAY),
            ("9999-12-31T23:59:59.999Z", Timestamp::MAX.as_millis()),
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
            "2026-00-14T23:58:05Z",
            "2026-13-14T23:58:05Z",
            "2026-01-00T23:58:05Z",
            "2100-02-29T23:58:05Z",
            "2026-01-14T23:60:05Z",
            "2026-01-14T23:58:61Z",
            "2026-01-14T23:58:05+24:00",
            "2026-01-14T23:58:05+01:60",
            "2026-01-14T23:58:05.4é2Z",
            "2026_01-14T23:58:05Z",
            "+002026-01-14T23:58:05Z",
            "1768435085442",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(ParseTimestampError::Format), "{text}");
        }
    }

    #[test]
    fn an_offset_can_move_a_time_out_of_the_range() {
        for (text, clamped) in [
            ("9999-12-31T23:59:59.999-00:01", Timestamp::MAX),
            ("9999-12-31T23:59:60-23:59", Timestamp::MAX),
            ("0000-01-01T00:00:00+00:01", Timestamp::MIN),
        ] {
            assert_eq!(Timestamp::parse_clamped(text), Ok(clamped), "{text}");
            assert_eq!(text.parse::<Timestamp>(), Err(ParseTimestampError::OutOfRange), "{text}");
        }
        assert_eq!(Timestamp::parse_clamped("9999-12-31"), Err(ParseTimestampError::Format));
    }

    #[test]
    fn system_times_are_truncated_towards_the_past() {
        let epoch = SystemTime::UNIX_EPOCH;
        for (time, millis) in [
            (epoch - Duration::from_nanos(100), -1),
            (epoch - Duration::from_millis(1), -1),
            (epoch - Duration::from_micros(1001), -2),
            (epoch + Duration::from_nanos(999_999), 0),
            (epoch + Duration::from_secs(1 << 40), Timestamp::MAX.as_millis()),
        ] {
            assert_eq!(Timestamp::from(time).as_millis(), millis, "{time:?}");
        }
    }

    fn any_text() -> impl Strategy<Value = String> {
        let date = (0..=9999_i32, 1..=12_u8, 1..=31_u8);
        let time = (0..=24_u8, 0..=60_u8, 0..=60_u8);
        let zone = prop_oneof![Just("Z".to_owned()), "[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9]"];
        (date, time, "(\\.[0-9]{1,9})?", zone).prop_map(
            |((year, month, day), (hour, minute, second), fraction, zone)| {
                format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}")
            },
        )
    }

    proptest! {
        #[test]
        fn text_is_parsed_and_printed_as_jiff_does(text in any_text()) {
            let expected = text.parse::<::jiff::Timestamp>().ok().and_then(|instant| {
                let millis = instant.as_nanosecond().div_euclid(1_000_000);
                Timestamp::from_millis(i64::try_from(millis).ok()?)
            });
            let actual = text.parse::<Timestamp>();
            // The last two days of the year 9999 are out of the range of jiff.
            let is_comparable = !text.starts_with("9999-12-3");
            prop_assert!(!is_comparable || actual.clone().ok() == expected, "{text}: {actual:?}");
            if let (Some(expected), true) = (expected, is_comparable) {
                let jiff = ::jiff::Timestamp::from_millisecond(expected.0).unwrap();
                prop_assert_eq!(expected.to_string(), format!("{jiff:.3}"));
            }
        }

        #[test]
        fn every_day_has_one_date(days in -719_528_i64..=2_932_896) {
            let (year, month, day) = civil_from_days(days);
            prop_assert_eq!(days_from_civil(year, month, day), days);
        }

        #[test]
        fn system_times_never_panic(seconds: u64, nanos in 0..1_000_000_000_u32, before: bool) {
            let distance = Duration::new(seconds, nanos);
            let epoch = SystemTime::UNIX_EPOCH;
            let time = if before { epoch.checked_sub(distance) } else { epoch.checked_add(distance) };
            if let Some(time) = time {
                let _ = Timestamp::from(time).to_string();
            }
        }

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
        fn no_text_causes_a_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<Timestamp>();
        }
    }
}
