//! Statistics: each store counts what the list finds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use eyego_log_core::query::{MetadataFilter, MetadataPath};
use eyego_log_core::{LogEntry, LogQuery};
use eyego_log_server::domain::read::ReadError;
use eyego_log_server::domain::stats::{GroupBy, Stats, StatsQuery};

use super::Fixture;
use super::query::{Limited, expected, filled};
use crate::conformance::{at, unlimited};

fn query(by: Option<GroupBy>, top: usize) -> StatsQuery {
    let filter = LogQuery { from: Some(at(-8_000)), to: Some(at(8_000)), ..LogQuery::default() };
    StatsQuery { filter, starts: (-8..8).step_by(2).map(|n| at(n * 1_000)).collect(), by, top }
}

fn value_of(by: &GroupBy, log: &LogEntry) -> Option<String> {
    match by {
        GroupBy::Action => Some(log.action.as_str().to_owned()),
        GroupBy::UserId => Some(log.user_id.as_str().to_owned()),
        GroupBy::Metadata(path) => {
            path.scalar_text(&log.metadata.to_map()).map(std::borrow::Cow::into_owned)
        }
    }
}

/// Compares with a count of the logs themselves.
fn check(stats: &Stats, query: &StatsQuery, logs: &[LogEntry]) {
    let logs = expected(logs, &query.filter);
    let users = |logs: &[&LogEntry]| {
        logs.iter().map(|log| log.user_id.as_str()).collect::<BTreeSet<_>>().len() as u64
    };
    assert_eq!(stats.total, logs.len() as u64, "{query:?}");
    assert_eq!(stats.users, users(&logs.iter().collect::<Vec<_>>()));
    assert!(!stats.is_approximate);
    let bucket_of =
        |log: &LogEntry| query.starts.iter().rposition(|s| *s <= log.timestamp).unwrap();
    let mut groups: BTreeMap<String, Vec<&LogEntry>> = BTreeMap::new();
    for log in &logs {
        if let Some(value) = query.by.as_ref().and_then(|by| value_of(by, log)) {
            groups.entry(value).or_default().push(log);
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, logs)| std::cmp::Reverse(logs.len()));
    groups.truncate(query.top);
    assert_eq!(stats.top.len(), groups.len(), "{query:?}");
    for (found, (value, logs)) in stats.top.iter().zip(&groups) {
        let expected = (value.as_str(), logs.len() as u64, users(logs));
        assert_eq!((found.value.as_str(), found.count, found.users), expected, "{query:?}");
    }
    let in_top: u64 = stats.top.iter().map(|value| value.count).sum();
    assert_eq!(stats.other, if query.by.is_some() { stats.total - in_top } else { 0 });
    assert_eq!(stats.buckets.len(), query.starts.len());
    for (n, bucket) in stats.buckets.iter().enumerate() {
        let count =
            |logs: &[&LogEntry]| logs.iter().filter(|log| bucket_of(log) == n).count() as u64;
        assert_eq!(bucket.count, count(&logs.iter().collect::<Vec<_>>()));
        let by: Vec<_> = groups.iter().map(|(_, logs)| count(logs)).collect();
        assert_eq!(bucket.by, by, "{query:?}");
    }
}

pub(super) async fn statistics_count_exactly_the_matching_logs(fixture: Fixture) {
    let (repository, logs) = filled(&fixture).await;
    let path = |path| GroupBy::Metadata(MetadataPath::new(path).unwrap());
    let groups =
        [None, Some(GroupBy::Action), Some(GroupBy::UserId), Some(path("n")), Some(path("none"))];
    for by in groups {
        for top in [1, 2, 100] {
            for combination in 0..8_u32 {
                let given = |bit: u32| combination & (1 << bit) != 0;
                let mut query = query(by.clone(), top);
                query.filter.user_id = given(0).then(|| "bob".to_owned());
                query.filter.action = given(1).then(|| "CLICK".to_owned());
                if given(2) {
                    query.filter.metadata.push(MetadataFilter::new("even", "false").unwrap());
                }
                let stats = repository.stats(&query, unlimited()).await.unwrap();
                check(&stats, &query, &logs);
            }
        }
    }
}

pub(super) async fn statistics_of_an_empty_range_are_zero(fixture: Fixture) {
    let (repository, logs) = filled(&fixture).await;
    let mut query = query(Some(GroupBy::Action), 10);
    query.filter.to = query.filter.from;
    let stats = repository.stats(&query, unlimited()).await.unwrap();
    check(&stats, &query, &logs);
    assert_eq!((stats.total, stats.top.len()), (0, 0));
}

pub(super) async fn statistics_without_memory_are_refused(fixture: Fixture) {
    let (repository, _) = filled(&fixture).await;
    let memory = Arc::new(Limited(AtomicUsize::new(1_000)));
    let result = repository.stats(&query(Some(GroupBy::UserId), 10), memory).await;
    assert!(matches!(result, Err(ReadError::Overloaded(_))), "{result:?}");
}
