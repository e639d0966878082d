//! Conversions to and from the `chrono` crate (crate feature `chrono`).

use chrono::{DateTime, TimeZone, Utc};

use crate::Timestamp;

impl<Tz: TimeZone> From<DateTime<Tz>> for Timestamp {
    /// Converts a time to the millisecond at or before it, clamped to
    /// [`MIN`](Self::MIN) to [`MAX`](Self::MAX).
    fn from(time: DateTime<Tz>) -> Self {
        Self::from_millis_clamped(time.timestamp_millis())
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(timestamp: Timestamp) -> Self {
        // The range of `DateTime` is larger.
        Self::from_timestamp_millis(timestamp.as_millis()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_converted_in_both_directions() {
        for text in ["2026-01-14T23:58:05.442Z", "1969-12-31T23:59:59.999Z"] {
            let time: DateTime<Utc> = text.parse().unwrap();
            let timestamp = Timestamp::from(time);
            assert_eq!(timestamp.to_string(), text);
            assert_eq!(DateTime::<Utc>::from(timestamp), time);
        }
        for extreme in [Timestamp::MIN, Timestamp::MAX] {
            assert_eq!(Timestamp::from(DateTime::<Utc>::from(extreme)), extreme);
        }
        assert_eq!(Timestamp::from(DateTime::<Utc>::MAX_UTC), Timestamp::MAX);
        let before = DateTime::<Utc>::from_timestamp(-1, 999_999_999).unwrap();
        assert_eq!(Timestamp::from(before).as_millis(), -1);
    }
}
