//! Conversions to and from the `jiff` crate (crate feature `jiff`).

use jiff::Zoned;

use crate::Timestamp;

impl From<jiff::Timestamp> for Timestamp {
    /// Converts a time to the millisecond at or before it, clamped to
    /// [`MIN`](Self::MIN) to [`MAX`](Self::MAX).
    fn from(time: jiff::Timestamp) -> Self {
        let millis = time.as_nanosecond().div_euclid(1_000_000);
        Self::from_millis_clamped(i64::try_from(millis).unwrap_or(i64::MAX))
    }
}

impl From<Zoned> for Timestamp {
    /// Converts a time as [`From<jiff::Timestamp>`] does.
    fn from(time: Zoned) -> Self {
        time.timestamp().into()
    }
}

impl TryFrom<Timestamp> for jiff::Timestamp {
    type Error = jiff::Error;

    /// Converts a timestamp.
    ///
    /// # Errors
    /// Returns an error for the last day of the year 9999, which is outside of
    /// jiff's range.
    fn try_from(timestamp: Timestamp) -> Result<Self, Self::Error> {
        Self::from_millisecond(timestamp.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_converted_in_both_directions() {
        for text in ["2026-01-14T23:58:05.442Z", "1969-12-31T23:59:59.999Z"] {
            let time: jiff::Timestamp = text.parse().unwrap();
            let timestamp = Timestamp::from(time);
            assert_eq!(timestamp.to_string(), text);
            assert_eq!(jiff::Timestamp::try_from(timestamp).unwrap(), time);
        }
        assert_eq!(Timestamp::from(jiff::Timestamp::MIN), Timestamp::MIN);
        assert!(jiff::Timestamp::try_from(Timestamp::MIN).is_ok());
        assert!(jiff::Timestamp::try_from(Timestamp::MAX).is_err());
        let before = jiff::Timestamp::from_nanosecond(-1).unwrap();
        assert_eq!(Timestamp::from(before).as_millis(), -1);
    }
}
