//! The buckets of statistics: intervals and time zones.

use eyego_log_core::Timestamp;
use jiff::tz::TimeZone;
use jiff::{ToSpan as _, Zoned};

/// Maximum number of buckets.
const MAX_BUCKETS: i64 = 1_500;

/// Number of buckets that `auto` does not exceed if a longer interval exists.
const MAX_AUTO_BUCKETS: i64 = 300;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// The intervals of fixed length, shortest first.
const FIXED: [(&str, i64); 3] = [("1m", MINUTE), ("5m", 5 * MINUTE), ("1h", 60 * MINUTE)];

/// The length of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interval {
    Auto,
    Fixed(&'static str, i64),
    Day,
}

/// The zone in which days start.
#[derive(Debug, Clone)]
pub(super) struct Zone(TimeZone);

impl Zone {
    pub(super) fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    pub(super) fn parse(name: &str) -> Result<Self, String> {
        jiff::tz::db().get(name).map(Self).map_err(|_| {
            "must be an IANA time zone such as Europe/Berlin, Asia/Kolkata or UTC".to_owned()
        })
    }

    /// Returns the start of the day of this time.
    fn start_of_day(&self, time: Timestamp) -> Option<Zoned> {
        let time = jiff::Timestamp::from_millisecond(time.as_millis()).ok()?;
        time.to_zoned(self.0.clone()).start_of_day().ok()
    }
}

impl Interval {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "1d" => Ok(Self::Day),
            _ => FIXED
                .iter()
                .find(|(name, _)| *name == text)
                .map(|(name, millis)| Self::Fixed(name, *millis))
                .ok_or_else(|| "must be auto, 1m, 5m, 1h or 1d".to_owned()),
        }
    }

    /// Returns where the buckets between `from` and `to` start, and the name of the
    /// interval.
    ///
    /// # Errors
    /// Returns the reason if there were too many buckets.
    pub(super) fn buckets(
        self,
        zone: &Zone,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<(Vec<Timestamp>, String), String> {
        let span = to.as_millis() - from.as_millis();
        let days = span / DAY + 1;
        match self {
            Self::Auto => Ok(match FIXED.iter().find(|(_, step)| span / step < MAX_AUTO_BUCKETS) {
                Some((name, step)) => (fixed(*step, from, to), (*name).to_owned()),
                None => {
                    // Any range can be shown, in longer buckets if it has too many days.
                    let step = days.div_euclid(MAX_BUCKETS) + 1;
                    (by_days(zone, step, from, to), format!("{step}d"))
                }
            }),
            Self::Fixed(name, step) if span / step < MAX_BUCKETS => {
                Ok((fixed(step, from, to), name.to_owned()))
            }
            Self::Day if days < MAX_BUCKETS => Ok((by_days(zone, 1, from, to), "1d".to_owned())),
            Self::Fixed(..) | Self::Day => {
                let mut longer = FIXED.iter().filter(|(_, step)| span / step < MAX_BUCKETS);
                let fitting = match longer.next() {
                    Some((name, _)) => format!("{name} or longer"),
                    None if days < MAX_BUCKETS => "1d".to_owned(),
                    None => "auto".to_owned(),
                };
                Err(format!(
                    "must be {fitting} for this range, which has more than {MAX_BUCKETS} buckets \
                     otherwise; or narrow the range with from and to"
                ))
            }
        }
    }
}

fn fixed(step: i64, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let first = from.as_millis().div_euclid(step) * step;
    let mut starts = vec![Timestamp::from_millis_clamped(first)];
    let later = (1..).map(|n| first + n * step).take_while(|start| *start < to.as_millis());
    starts.extend(later.map(Timestamp::from_millis_clamped));
    starts
}

fn by_days(zone: &Zone, step: i64, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let mut next = zone.start_of_day(from);
    let mut starts = Vec::new();
    while let Some(start) = next {
        let millis = start.timestamp().as_millisecond();
        if millis >= to.as_millis() && !starts.is_empty() {
            break;
        }
        starts.push(Timestamp::from_millis_clamped(millis));
        // A day can have 23 or 25 hours. At the end of the calendar there is no next.
        next = start.checked_add(step.days()).and_then(|day| day.start_of_day()).ok();
    }
    if starts.is_empty() {
        starts.push(from);
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(interval: &str, zone: &str, from: &str, to: &str) -> (Vec<String>, String) {
        let [from, to] = [from, to].map(|text| Timestamp::parse_clamped(text).unwrap());
        let zone = Zone::parse(zone).unwrap();
        let (starts, name) = Interval::parse(interval).unwrap().buckets(&zone, from, to).unwrap();
        (starts.iter().map(ToString::to_string).collect(), name)
    }

    #[test]
    fn days_start_in_the_zone_whatever_their_length() {
        // The clock is set forward on 29 March 2026.
        let (starts, _) =
            buckets("1d", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-31T00:00:00Z");
        let expected = [
            "2026-03-27T23:00:00.000Z",
            "2026-03-28T23:00:00.000Z",
            "2026-03-29T22:00:00.000Z",
            "2026-03-30T22:00:00.000Z",
        ];
        assert_eq!(starts, expected);
    }

    #[test]
    fn hours_start_at_whole_hours_also_before_1970() {
        let (starts, _) = buckets("1h", "UTC", "1969-12-31T22:30:00Z", "1970-01-01T00:00:01Z");
        let expected =
            ["1969-12-31T22:00:00.000Z", "1969-12-31T23:00:00.000Z", "1970-01-01T00:00:00.000Z"];
        assert_eq!(starts, expected);
        let (starts, _) = buckets("1m", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
        assert_eq!(starts.len(), 1, "an empty range has a bucket");
    }

    #[test]
    fn auto_fits_any_range() {
        for (to, name, count) in [
            ("2026-01-01T01:00:00Z", "1m", 60),
            ("2026-01-02T00:00:00Z", "5m", 288),
            ("2026-01-08T00:00:00Z", "1h", 168),
            ("2026-03-01T00:00:00Z", "1d", 59),
        ] {
            let (starts, interval) = buckets("auto", "UTC", "2026-01-01T00:00:00Z", to);
            assert_eq!((interval.as_str(), starts.len()), (name, count));
        }
        let (starts, interval) =
            buckets("auto", "Asia/Tokyo", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z");
        assert!((1_000..=1_501).contains(&starts.len()), "{interval}: {}", starts.len());
    }
}
