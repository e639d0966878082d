//! Counts events one by one, in bounded memory.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};

use eyego_log_core::{LogEntry, Timestamp};

use super::distinct::Distinct;
use super::{BucketStats, GroupBy, Stats, StatsQuery, ValueStats};
use crate::domain::read::{ReadError, ReadMemory};

/// Half the number of users up to which they are counted exactly: of all events,
/// and of each value.
const KEPT_USERS: usize = 1 << 16;
const KEPT_USERS_OF_VALUE: usize = 1 << 11;

/// Maximum number of values, and of their buckets and users together. Past one of
/// them, the rarer half of the values counts as other.
const MAX_VALUES: usize = 20_000;
const MAX_CELLS: usize = 1 << 20;

/// Longer values count as other.
const MAX_VALUE_CHARS: usize = 256;

/// What is reserved for one bucket or user of a value, or for one user, with the
/// spare room of its collection, and for a value beside its text.
const CELL_BYTES: usize = 40;
const VALUE_BYTES: usize = 200;

/// The memory is reserved in steps of this many bytes.
const RESERVED_STEP: usize = 1 << 20;

/// Counts the events of a [`StatsQuery`].
pub struct Aggregate<'a> {
    query: &'a StatsQuery,
    memory: &'a dyn ReadMemory,
    reserved: usize,
    hasher: RandomState,
    counts: Vec<u64>,
    users: Distinct,
    values: HashMap<Box<str>, Value>,
    cells: usize,
    is_pruned: bool,
}

struct Value {
    count: u64,
    buckets: BTreeMap<usize, u64>,
    users: Distinct,
}

impl std::fmt::Debug for Aggregate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aggregate").field("query", &self.query).finish_non_exhaustive()
    }
}

impl<'a> Aggregate<'a> {
    /// Starts to count. What it needs is reserved from `memory`.
    #[must_use]
    pub fn new(query: &'a StatsQuery, memory: &'a dyn ReadMemory) -> Self {
        Self {
            query,
            memory,
            reserved: 0,
            hasher: RandomState::new(),
            counts: vec![0; query.starts.len()],
            users: Distinct::new(KEPT_USERS),
            values: HashMap::new(),
            cells: 0,
            is_pruned: false,
        }
    }

    /// Counts an event that matches the filter.
    ///
    /// # Errors
    /// Returns [`ReadError::Overloaded`] if there is no memory for it.
    pub fn add_entry(&mut self, entry: &LogEntry) -> Result<(), ReadError> {
        let (user_id, action) = (entry.user_id.as_str(), entry.action.as_str());
        match &self.query.by {
            None => self.add(entry.timestamp, user_id, None),
            Some(GroupBy::Action) => self.add(entry.timestamp, user_id, Some(action)),
            Some(GroupBy::UserId) => self.add(entry.timestamp, user_id, Some(user_id)),
            Some(GroupBy::Metadata(path)) => {
                let metadata = entry.metadata.to_map();
                let value = path.scalar_text(&metadata);
                self.add(entry.timestamp, user_id, value.as_deref())
            }
        }
    }

    /// Counts an event that matches the filter. `value` is the one to group by.
    ///
    /// # Errors
    /// Returns [`ReadError::Overloaded`] if there is no memory for it.
    pub fn add(
        &mut self,
        timestamp: Timestamp,
        user_id: &str,
        value: Option<&str>,
    ) -> Result<(), ReadError> {
        let bucket = self.query.starts.partition_point(|start| *start <= timestamp);
        let bucket = bucket.saturating_sub(1);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        let user = self.hasher.hash_one(user_id);
        self.users.add(user);
        if let Some(value) = value {
            self.add_value(value, bucket, 1, Some(user));
        }
        self.reserve()
    }

    /// Counts `count` matching events of this bucket that a store has grouped by the
    /// value. Add all of them before their users.
    ///
    /// # Errors
    /// Returns [`ReadError::Overloaded`] if there is no memory for them.
    pub fn add_events(
        &mut self,
        bucket: usize,
        value: Option<&str>,
        count: u64,
    ) -> Result<(), ReadError> {
        let bucket = bucket.min(self.counts.len().saturating_sub(1));
        if let Some(counted) = self.counts.get_mut(bucket) {
            *counted += count;
        }
        if let Some(value) = value {
            self.add_value(value, bucket, count, None);
        }
        self.reserve()
    }

    /// Counts a user of events that [`add_events`](Self::add_events) has counted.
    ///
    /// # Errors
    /// Returns [`ReadError::Overloaded`] if there is no memory for the user.
    pub fn add_user(&mut self, user_id: &str, value: Option<&str>) -> Result<(), ReadError> {
        let user = self.hasher.hash_one(user_id);
        self.users.add(user);
        // A value without events was given up, or is newer than the counts.
        if let Some(value) = value.and_then(|value| self.values.get_mut(value)) {
            let cells = value.cells();
            value.users.add(user);
            self.cells = self.cells + value.cells() - cells;
            if self.cells > MAX_CELLS {
                self.prune();
            }
        }
        self.reserve()
    }

    fn add_value(&mut self, text: &str, bucket: usize, count: u64, user: Option<u64>) {
        if text.len() > MAX_VALUE_CHARS && text.chars().count() > MAX_VALUE_CHARS {
            return;
        }
        match self.values.get_mut(text) {
            Some(value) => {
                // A value can also forget users.
                let cells = value.cells();
                value.add(bucket, count, user);
                self.cells = self.cells + value.cells() - cells;
            }
            None => {
                let (buckets, users) = (BTreeMap::new(), Distinct::new(KEPT_USERS_OF_VALUE));
                let mut value = Value { count: 0, buckets, users };
                value.add(bucket, count, user);
                self.cells += value.cells();
                self.values.insert(text.into(), value);
            }
        }
        if self.values.len() > MAX_VALUES || self.cells > MAX_CELLS {
            self.prune();
        }
    }

    /// Drops the rarer half of the values, but none of the top. Their events count as
    /// other.
    fn prune(&mut self) {
        let kept = (self.values.len() / 2).max(self.query.top);
        if self.values.len() <= kept {
            return;
        }
        let mut counts: Vec<_> = self.values.values().map(|value| value.count).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let min = counts[kept - 1];
        let mut equal = kept - counts.iter().take_while(|count| **count > min).count();
        self.values.retain(|_, value| {
            let is_tie = value.count == min && equal > 0;
            equal -= usize::from(is_tie);
            value.count > min || is_tie
        });
        self.cells = self.values.values().map(Value::cells).sum();
        self.is_pruned = true;
    }

    fn reserve(&mut self) -> Result<(), ReadError> {
        let text_bytes = MAX_VALUE_CHARS;
        let needed = CELL_BYTES * (self.cells + self.users.len())
            + (VALUE_BYTES + text_bytes) * self.values.len();
        while self.reserved < needed {
            self.memory.reserve(RESERVED_STEP)?;
            self.reserved += RESERVED_STEP;
        }
        Ok(())
    }

    /// Returns the counts.
    #[must_use]
    pub fn finish(self) -> Stats {
        let mut values: Vec<_> = self.values.into_iter().collect();
        values.sort_unstable_by(|(a_text, a), (b_text, b)| {
            b.count.cmp(&a.count).then_with(|| a_text.cmp(b_text))
        });
        values.truncate(self.query.top);
        let total = self.counts.iter().sum();
        let in_top: u64 = values.iter().map(|(_, value)| value.count).sum();
        let is_exact = self.users.is_exact() && values.iter().all(|(_, v)| v.users.is_exact());
        let by = |bucket: usize| {
            values
                .iter()
                .map(|(_, v)| v.buckets.get(&bucket).copied().unwrap_or_default())
                .collect()
        };
        let counts = self.counts.iter().enumerate();
        Stats {
            total,
            users: self.users.count(),
            is_approximate: self.is_pruned || !is_exact,
            buckets: counts.map(|(n, count)| BucketStats { count: *count, by: by(n) }).collect(),
            top: values
                .iter()
                .map(|(text, value)| ValueStats {
                    value: text.to_string(),
                    count: value.count,
                    users: value.users.count(),
                })
                .collect(),
            other: if self.query.by.is_some() { total - in_top } else { 0 },
        }
    }
}

impl Value {
    /// Counts events, and their user if it is known.
    fn add(&mut self, bucket: usize, count: u64, user: Option<u64>) {
        self.count += count;
        *self.buckets.entry(bucket).or_default() += count;
        if let Some(user) = user {
            self.users.add(user);
        }
    }

    fn cells(&self) -> usize {
        self.buckets.len() + self.users.len()
    }
}

#[cfg(test)]
mod tests {
    use eyego_log_core::LogQuery;

    use super::*;
    use crate::domain::read::Unlimited;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    fn query(top: usize) -> StatsQuery {
        let starts = (0..10).map(|n| at(n * 100)).collect();
        StatsQuery { filter: LogQuery::default(), starts, by: Some(GroupBy::Action), top }
    }

    #[test]
    fn frequent_values_survive_any_number_of_rare_ones() {
        let query = query(2);
        let mut aggregate = Aggregate::new(&query, &Unlimited);
        for n in 0..100_000_i64 {
            let rare = format!("rare-{n}");
            let value = if n % 4 == 0 { "OFTEN" } else { &rare };
            aggregate.add(at(n % 1_000), &format!("u{}", n % 7), Some(value)).unwrap();
            assert!(aggregate.values.len() <= MAX_VALUES);
        }
        let stats = aggregate.finish();
        assert_eq!((stats.total, stats.users, stats.is_approximate), (100_000, 7, true));
        let first = &stats.top[0];
        assert_eq!((first.value.as_str(), first.count, first.users), ("OFTEN", 25_000, 7));
        assert_eq!(stats.other, 75_000 - stats.top[1].count);
        assert!(stats.buckets.iter().all(|bucket| bucket.by[0] == 2_500));
    }

    #[test]
    fn long_and_missing_values_count_as_other() {
        let query = query(10);
        let mut aggregate = Aggregate::new(&query, &Unlimited);
        for value in [None, Some("ü".repeat(257)), Some("ü".repeat(256)), Some("A".to_owned())] {
            aggregate.add(at(5), "u", value.as_deref()).unwrap();
        }
        let stats = aggregate.finish();
        assert_eq!((stats.total, stats.other, stats.top.len()), (4, 2, 2));
        assert_eq!(stats.top[0].value, "A", "equal counts are in the order of the text");
        assert!(!stats.is_approximate);
    }

    #[test]
    fn events_that_a_store_has_grouped_count_like_single_ones() {
        let query = query(2);
        let mut single = Aggregate::new(&query, &Unlimited);
        let mut grouped = Aggregate::new(&query, &Unlimited);
        let long = "x".repeat(257);
        let mut users = Vec::new();
        for (n, value) in ["A", "B", "C", &long].into_iter().enumerate() {
            for bucket in 0..10_usize {
                for user in 0..=n {
                    let (millis, user) = (i64::try_from(bucket).unwrap() * 100, format!("u{user}"));
                    single.add(at(millis), &user, Some(value)).unwrap();
                    users.push((user, value));
                }
                grouped.add_events(bucket, Some(value), n as u64 + 1).unwrap();
            }
        }
        for (user, value) in users {
            grouped.add_user(&user, Some(value)).unwrap();
        }
        assert_eq!(grouped.cells, single.cells);
        assert_eq!(grouped.finish(), single.finish());
    }

    #[test]
    fn memory_is_bounded_and_reserved() {
        let query = query(100);
        let mut aggregate = Aggregate::new(&query, &Unlimited);
        for n in 0..300_000_i64 {
            let value = format!("v{}", n % 3_000);
            aggregate.add(at(n % 1_000), &format!("u{n}"), Some(&value)).unwrap();
            assert!(aggregate.cells <= MAX_CELLS);
        }
        assert!(aggregate.reserved >= CELL_BYTES * aggregate.cells);
        assert!(aggregate.reserved < 64 << 20);
    }
}
