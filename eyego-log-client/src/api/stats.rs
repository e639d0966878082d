//! Statistics: the events of a query, counted over time.

use std::collections::BTreeMap;

use eyego_log_core::Timestamp;
use serde::Deserialize;

use crate::api::path;
use crate::api::query::Query;
use crate::model::errors::RequestError;

/// Counts the events of a query over time; see
/// [`Query::stats`](crate::Query::stats).
///
/// ```no_run
/// use std::time::{Duration, SystemTime};
///
/// use eyego_log_client::{Client, Interval};
///
/// # async fn run(client: Client) -> Result<(), eyego_log_client::RequestError> {
/// let now = SystemTime::now();
/// let week = client.query().since(now - Duration::from_secs(7 * 86_400)).until(now);
/// let stats = week
///     .stats()
///     .interval(Interval::Day)
///     .time_zone("Europe/Berlin")
///     .by_action()
///     .top(5)
///     .fetch()
///     .await?;
/// println!("{} events of {} users", stats.total, stats.users);
/// for value in &stats.top {
///     println!("{}: {}", value.value, value.count);
/// }
/// println!("other actions: {}", stats.other);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is counted until `fetch` is awaited"]
pub struct StatsQuery {
    query: Query,
    /// The parameters besides the filters.
    parameters: Vec<(&'static str, String)>,
}

/// The length of the buckets in which events are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Interval {
    /// The shortest length that results in at most 300 buckets; otherwise one or
    /// more days.
    #[default]
    Auto,
    /// One minute.
    Minute,
    /// Five minutes.
    FiveMinutes,
    /// One hour.
    Hour,
    /// One day, in the [time zone](StatsQuery::time_zone) of the statistics.
    Day,
}

/// How many events match, in total, over time and by value.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Statistics {
    /// The number of events.
    pub total: u64,
    /// The number of users with at least one of these events.
    pub users: u64,
    /// Whether numbers of users are estimates and counts of rare values can be too
    /// low, because there are too many of them for exact counts. `total` and the
    /// counts of the buckets are always exact.
    pub approximate: bool,
    /// The length of the buckets, such as `5m`, `1h` or `3d`.
    pub interval: String,
    /// All buckets in the order of time, including those without events.
    pub buckets: Vec<Bucket>,
    /// The most frequent values with their counts, the most frequent first. Empty
    /// unless the statistics are grouped by a value.
    pub top: Vec<ValueCount>,
    /// The number of events whose value is not in `top`, or which have none. 0
    /// unless the statistics are grouped by a value.
    pub other: u64,
}

/// The events of one interval.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Bucket {
    /// When the interval starts. That of the first bucket can be before the
    /// beginning of the query; only events of the query are counted.
    pub start: Timestamp,
    /// The number of events.
    pub count: u64,
    /// The number of events for each value of [`Statistics::top`] that occurs.
    pub by: BTreeMap<String, u64>,
    /// The number of all other events, if the statistics are grouped.
    pub other: u64,
}

/// The events with one value.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ValueCount {
    /// The value as text.
    pub value: String,
    /// The number of events with this value.
    pub count: u64,
    /// The number of users with at least one of these events.
    pub users: u64,
}

#[derive(Deserialize)]
struct StatsResponse {
    data: Statistics,
}

impl Query {
    /// Counts the matching events over time. The query must have
    /// [`since`](Self::since) and [`until`](Self::until); of the others, only the
    /// filters apply: the server refuses a limit, a page, a cursor or an order with
    /// status 400. See [`StatsQuery`].
    pub fn stats(self) -> StatsQuery {
        StatsQuery::new(self)
    }
}

impl StatsQuery {
    fn new(query: Query) -> Self {
        Self { query, parameters: Vec::new() }
    }

    /// Sets the length of the buckets. Defaults to [`Interval::Auto`]. There can be
    /// up to 1,500 buckets.
    pub fn interval(self, interval: Interval) -> Self {
        let text = match interval {
            Interval::Auto => "auto",
            Interval::Minute => "1m",
            Interval::FiveMinutes => "5m",
            Interval::Hour => "1h",
            Interval::Day => "1d",
        };
        self.set("interval", text.to_owned())
    }

    /// Sets the IANA time zone in which days start, such as `Europe/Berlin`.
    /// Defaults to UTC.
    pub fn time_zone(self, name: impl Into<String>) -> Self {
        self.set("tz", name.into())
    }

    /// Counts each action separately. Replaces another grouping.
    pub fn by_action(self) -> Self {
        self.set("by", "action".to_owned())
    }

    /// Counts each user separately. Replaces another grouping.
    pub fn by_user(self) -> Self {
        self.set("by", "userId".to_owned())
    }

    /// Counts each value at this path of the metadata separately, such as
    /// `cart.currency`. Replaces another grouping.
    pub fn by_metadata(self, path: impl AsRef<str>) -> Self {
        self.set("by", format!("metadata.{}", path.as_ref()))
    }

    /// Sets how many values are listed. Defaults to 10; from 1 to 100.
    pub fn top(self, values: u32) -> Self {
        self.set("top", values.to_string())
    }

    fn set(mut self, name: &'static str, value: String) -> Self {
        path::set(&mut self.parameters, name, value);
        self
    }

    /// Counts the events. An API key needs the scope `read`.
    ///
    /// # Errors
    /// Returns [`RequestError::Status`] with status 400 if a parameter is invalid,
    /// or if the query has no [`since`](crate::Query::since) or
    /// [`until`](crate::Query::until), and with status 503 if counting takes the
    /// server longer than 10 s. Returns another [`RequestError`] if there is no
    /// valid response.
    pub async fn fetch(&self) -> Result<Statistics, RequestError> {
        self.query.check()?;
        let mut parameters = self.query.parameters();
        let own = self.parameters.iter().cloned();
        parameters.extend(own.map(|(name, value)| (name.to_owned(), value)));
        let path = path::with_query("/stats", &parameters);
        self.query.caller().get::<StatsResponse>(&path).await.map(|response| response.data)
    }
}
