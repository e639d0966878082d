//! `GET /api/v1/stats`: counts over time.

mod interval;

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use eyego_log_core::query::MetadataPath;
use eyego_log_core::wire::Status;
use eyego_log_core::{FieldErrors, Timestamp};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use self::interval::{Interval, Zone};
use super::access::Audited;
use super::api::Api;
use super::error::ApiError;
use super::{held_body, selection};
use crate::domain::read::{ReadMemory as _, json_text_bytes};
use crate::domain::stats::{GroupBy, Stats, StatsQuery, ValueStats};

pub(super) const MAX_TOP: usize = 100;
pub(super) const DEFAULT_TOP: usize = 10;

/// Maximum size of the response, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// `GET /api/v1/stats`
pub(super) async fn stats(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> Response {
    let counted = async {
        let (query, interval) = parse(query.as_deref())?;
        let share = api.read_budget.start()?;
        let stats = api.repository.stats(&query, Arc::clone(&share) as Arc<_>).await?;
        let bytes = size(&stats);
        if bytes > MAX_BYTES {
            let message = "the statistics have more than 16 MiB: use a longer interval or a \
                           smaller top";
            return Err(ApiError::invalid(message));
        }
        share.reserve(bytes)?;
        Ok::<_, ApiError>((query.starts, interval, stats, share))
    };
    match counted.await {
        Ok((starts, interval, stats, share)) => {
            let data = StatsData::new(&starts, &interval, &stats);
            let body = StatsResponse { status: Status::Success, data };
            (Audited::count(stats.total), held_body::one(&body, share)).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// Parses the parameters.
fn parse(query: Option<&str>) -> Result<(StatsQuery, String), FieldErrors> {
    let (mut interval, mut zone, mut by, mut top) =
        (Interval::Auto, Zone::utc(), None, DEFAULT_TOP);
    let filter = selection::parse(query, "interval, tz, by, top", |name, value| {
        let mut set = || {
            match name {
                "interval" => interval = Interval::parse(value)?,
                "tz" => zone = Zone::parse(value)?,
                "by" => by = Some(parse_group(value)?),
                _ => {
                    let number = value.parse().ok().filter(|top| (1..=MAX_TOP).contains(top));
                    top = number
                        .ok_or_else(|| format!("must be a whole number from 1 to {MAX_TOP}"))?;
                }
            }
            Ok(())
        };
        matches!(name, "interval" | "tz" | "by" | "top").then(&mut set)
    })?;
    let mut errors = FieldErrors::new();
    for (name, time) in [("from", filter.from), ("to", filter.to)] {
        if time.is_none() {
            errors.add(name, "is required: an RFC 3339 time such as 2026-01-01T00:00:00Z");
        }
    }
    let (Some(from), Some(to)) = (filter.from, filter.to) else { return Err(errors) };
    match interval.buckets(&zone, from, to) {
        Ok((starts, interval)) => Ok((StatsQuery { filter, starts, by, top }, interval)),
        Err(reason) => {
            errors.add("interval", reason);
            Err(errors)
        }
    }
}

fn parse_group(value: &str) -> Result<GroupBy, String> {
    match (value, value.strip_prefix("metadata.")) {
        ("action", _) => Ok(GroupBy::Action),
        ("userId", _) => Ok(GroupBy::UserId),
        (_, Some(path)) => {
            MetadataPath::new(path).map(GroupBy::Metadata).map_err(|error| error.to_string())
        }
        _ => Err("must be action, userId or metadata.<path>".to_owned()),
    }
}

/// Returns an upper bound of the size of the response, in bytes.
fn size(stats: &Stats) -> usize {
    /// The keys and numbers of a bucket, of a value, and of a value in a bucket.
    const FIXED: usize = 100;
    const FIXED_IN_BUCKET: usize = 22;

    let texts: Vec<_> = stats.top.iter().map(|value| json_text_bytes(&value.value)).collect();
    let of_bucket = |by: &Vec<u64>| -> usize {
        let counted = by.iter().zip(&texts).filter(|(count, _)| **count > 0);
        FIXED + counted.map(|(_, text)| text + FIXED_IN_BUCKET).sum::<usize>()
    };
    2 * FIXED
        + texts.iter().map(|text| text + FIXED).sum::<usize>()
        + stats.buckets.iter().map(|bucket| of_bucket(&bucket.by)).sum::<usize>()
}

/// Statistics.
#[derive(Serialize, ToSchema)]
#[schema(as = StatsResponse)]
pub(super) struct StatsResponse<'a> {
    status: Status,
    data: StatsData<'a>,
}

/// The counts of a range of time.
#[derive(Serialize, ToSchema)]
#[schema(as = Stats)]
struct StatsData<'a> {
    /// Number of events.
    total: u64,
    /// Number of different users.
    users: u64,
    /// Whether numbers of users are estimates and counts of rare values can be too low.
    approximate: bool,
    /// Length of a bucket, such as `1h`.
    interval: &'a str,
    /// All buckets of the range, those without events included.
    buckets: Vec<Bucket<'a>>,
    /// The most frequent values, the most frequent first.
    top: Vec<Value<'a>>,
    /// Number of events with other values or none.
    other: u64,
}

/// The counts of one bucket.
#[derive(Serialize, ToSchema)]
#[schema(as = StatsBucket)]
struct Bucket<'a> {
    /// Start of the bucket. The first one can start before `from`.
    start: Timestamp,
    /// Number of events.
    count: u64,
    /// Number of events of each value of `top` that occurs.
    #[schema(value_type = HashMap<String, u64>)]
    by: By<'a>,
    /// Number of events with other values or none.
    other: u64,
}

/// The counts of one value.
#[derive(Serialize, ToSchema)]
#[schema(as = StatsValue)]
struct Value<'a> {
    value: &'a str,
    /// Number of events.
    count: u64,
    /// Number of different users.
    users: u64,
}

/// The counts of the values that occur in a bucket.
struct By<'a> {
    top: &'a [ValueStats],
    counts: &'a [u64],
}

impl Serialize for By<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let counted = self.top.iter().zip(self.counts).filter(|(_, count)| **count > 0);
        serializer.collect_map(counted.map(|(value, count)| (&value.value, count)))
    }
}

impl<'a> StatsData<'a> {
    fn new(starts: &[Timestamp], interval: &'a str, stats: &'a Stats) -> Self {
        // Without a group nothing is outside of it.
        let is_grouped = stats.other > 0 || !stats.top.is_empty();
        let buckets = stats.buckets.iter().zip(starts).map(|(bucket, start)| Bucket {
            start: *start,
            count: bucket.count,
            by: By { top: &stats.top, counts: &bucket.by },
            other: if is_grouped { bucket.count - bucket.by.iter().sum::<u64>() } else { 0 },
        });
        let top = stats.top.iter();
        Self {
            total: stats.total,
            users: stats.users,
            approximate: stats.is_approximate,
            interval,
            buckets: buckets.collect(),
            top: top.map(|v| Value { value: &v.value, count: v.count, users: v.users }).collect(),
            other: stats.other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_invalid_parameter_says_what_is_possible() {
        let day = "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z";
        for (query, message) in [
            (String::new(), "from is required"),
            (format!("{day}&interval=2h"), "interval must be auto, 1m, 5m, 1h or 1d"),
            (format!("{day}&tz=Mars/Base"), "tz must be an IANA time zone such as Europe/Berlin"),
            (format!("{day}&by=page"), "by must be action, userId or metadata.<path>"),
            (format!("{day}&top=0"), "top must be a whole number from 1 to 100"),
            (format!("{day}&top=101"), "top must be a whole number from 1 to 100"),
            (format!("{day}&limit=1"), "limit is not a known parameter of this route"),
            (
                "from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z&interval=1m".to_owned(),
                "interval must be 1h or longer",
            ),
        ] {
            let message_of = parse(Some(&query)).unwrap_err().to_string();
            assert!(message_of.starts_with(message), "{query}: {message_of}");
        }
    }

    #[test]
    fn the_size_of_a_response_is_not_underestimated() {
        let value = |n: u64| ValueStats { value: format!("\"\n{n}"), count: u64::MAX, users: n };
        let top: Vec<_> = (0..100).map(value).collect();
        let bucket = crate::domain::stats::BucketStats { count: u64::MAX, by: vec![1; 100] };
        let buckets = vec![bucket; 50];
        let stats =
            Stats { total: 1, users: 1, is_approximate: false, buckets, top, other: u64::MAX };
        let starts = vec![Timestamp::MAX; 50];
        let data = StatsData::new(&starts, "1h", &stats);
        let body = StatsResponse { status: Status::Success, data };
        assert!(serde_json::to_vec(&body).unwrap().len() <= size(&stats));
    }
}
