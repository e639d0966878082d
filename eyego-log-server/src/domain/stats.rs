//! Statistics over the events of a time range. Stores pass the matching events to
//! an [`Aggregate`], so all of them count alike.

mod aggregate;
mod distinct;

use eyego_log_core::query::MetadataPath;
use eyego_log_core::{LogQuery, Timestamp};

pub use self::aggregate::Aggregate;

/// Selects the events to count and how to group them.
#[derive(Debug, Clone)]
pub struct StatsQuery {
    /// Which events to count. Its range starts at or after the first bucket, and
    /// its page, limit and order have no effect.
    pub filter: LogQuery,
    /// Where each bucket starts: ascending, and at least one. The last bucket ends
    /// with the range.
    pub starts: Vec<Timestamp>,
    /// The values to count separately.
    pub by: Option<GroupBy>,
    /// Maximum number of those values.
    pub top: usize,
}

/// What to count separately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupBy {
    /// Each action.
    Action,
    /// Each user.
    UserId,
    /// Each string, number, boolean or null at this path.
    Metadata(MetadataPath),
}

/// The counts that a [`StatsQuery`] asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Number of events.
    pub total: u64,
    /// Number of different users.
    pub users: u64,
    /// Whether the number of users, or any count of a value, is an estimate.
    pub is_approximate: bool,
    /// The buckets, those without events included.
    pub buckets: Vec<BucketStats>,
    /// The most frequent values, the first one first.
    pub top: Vec<ValueStats>,
    /// Number of events outside the top. 0 if the query has no group.
    pub other: u64,
}

/// The counts of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketStats {
    /// Number of events.
    pub count: u64,
    /// Number of events of each value of the top, in that order.
    pub by: Vec<u64>,
}

/// The counts of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueStats {
    /// The value as text.
    pub value: String,
    /// Number of events.
    pub count: u64,
    /// Number of different users.
    pub users: u64,
}
