//! The topic's settings: what the server needs to know, and what endangers
//! acknowledged events. This module does no I/O.

use std::time::Duration;

use rdkafka::admin::ConfigResource;

use crate::domain::queue::SettingProblem;

/// A retention below this is reported: an outage of the store easily lasts
/// longer.
const MIN_RETENTION: Duration = Duration::from_secs(3600);

/// What a record may need beyond its event: the key, the id and the time of
/// receipt.
pub(super) const RECORD_MARGIN: usize = 64 << 10;

/// The settings of the topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// How long records are kept. `None` if that is unlimited, or not only a
    /// question of time.
    pub(super) retention: Option<Duration>,
    /// Maximum size of a group of records in one request, and so of a record.
    pub(super) max_message_bytes: Option<usize>,
    /// Minimum number of in-sync replicas for a record to be acknowledged.
    pub(super) min_in_sync: Option<usize>,
    /// What an operator should change.
    pub(super) problems: Vec<SettingProblem>,
}

impl Settings {
    /// The settings of a topic that could not be read.
    pub(super) fn unreadable(topic: &str, reason: &str) -> Self {
        let message = format!(
            "topic {topic}: its settings cannot be read ({reason}): whether Kafka deletes events \
             before they are stored is unknown; allow DescribeConfigs on the topic"
        );
        let problem = SettingProblem { setting: "describe_configs", message };
        Self { problems: vec![problem], ..Self::default() }
    }

    /// Reads the settings that Kafka returned. `replicas` is the number of
    /// replicas of each partition.
    pub(super) fn read(
        resource: &ConfigResource,
        topic: &str,
        replicas: usize,
        max_record_bytes: usize,
    ) -> Self {
        let text = |name: &str| resource.get(name).and_then(|entry| entry.value.as_deref());
        let number = |name: &str| text(name).and_then(|value| value.parse::<i64>().ok());
        let positive = |name: &str| number(name).and_then(|value| u64::try_from(value).ok());
        let mut problems = Vec::new();
        let mut report = |setting: &'static str, value: &str, consequence: &str| {
            let message = format!("topic {topic}: {setting} is {value}: {consequence}");
            problems.push(SettingProblem { setting, message });
        };

        let policy = text("cleanup.policy").unwrap_or("delete");
        let is_compacted = policy.contains("compact");
        if is_compacted {
            report(
                "cleanup.policy",
                policy,
                "Kafka deletes all events of a user but the newest, stored or not; set it to delete",
            );
        }
        let by_size = positive("retention.bytes");
        if let Some(bytes) = by_size {
            report(
                "retention.bytes",
                &bytes.to_string(),
                "Kafka deletes events by size, stored or not, and the time until then cannot be \
                 computed; set it to -1",
            );
        }
        // -1 means unlimited.
        let retention = positive("retention.ms").map(Duration::from_millis);
        if let Some(retention) = retention.filter(|retention| *retention < MIN_RETENTION) {
            report(
                "retention.ms",
                &retention.as_millis().to_string(),
                "events that are not stored within this time are lost; set it to several days",
            );
        }
        let max_message_bytes =
            positive("max.message.bytes").and_then(|bytes| usize::try_from(bytes).ok());
        let needed = max_record_bytes + RECORD_MARGIN;
        if let Some(bytes) = max_message_bytes.filter(|bytes| *bytes < needed) {
            let consequence = format!("larger events are refused; set it to at least {needed}");
            report("max.message.bytes", &bytes.to_string(), &consequence);
        }
        let min_in_sync =
            positive("min.insync.replicas").and_then(|count| usize::try_from(count).ok());
        if replicas > 1 && min_in_sync == Some(1) {
            let consequence = format!(
                "the topic has {replicas} replicas, and an event acknowledged by only one broker is \
                 lost with it; set it to {}",
                replicas - 1
            );
            report("min.insync.replicas", "1", &consequence);
        }
        if text("unclean.leader.election.enable") == Some("true") {
            report(
                "unclean.leader.election.enable",
                "true",
                "a replica that lacks acknowledged events can become leader; set it to false",
            );
        }
        let retention = retention.filter(|_| by_size.is_none() && !is_compacted);
        Self { retention, max_message_bytes, min_in_sync, problems }
    }
}

/// Returns one message about all problems, or `None` if there is none.
pub(in crate::infrastructure::queue::kafka) fn describe(
    problems: &[SettingProblem],
) -> Option<String> {
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    (!messages.is_empty()).then(|| messages.join("; "))
}

#[cfg(test)]
mod tests {
    use rdkafka::admin::{ConfigEntry, ConfigSource, OwnedResourceSpecifier};

    use super::*;

    const EVENT: usize = 256 << 10;
    const DAY_MS: &str = "86400000";

    fn read(settings: &[(&str, &str)], replicas: usize) -> Settings {
        let entry = |(name, value): &(&str, &str)| ConfigEntry {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
            source: ConfigSource::DynamicTopic,
            is_read_only: false,
            is_default: false,
            is_sensitive: false,
        };
        let resource = ConfigResource {
            specifier: OwnedResourceSpecifier::Topic("t".to_owned()),
            entries: settings.iter().map(entry).collect(),
        };
        Settings::read(&resource, "t", replicas, EVENT)
    }

    #[test]
    fn settings_that_keep_events_are_no_problem() {
        let settings = read(
            &[
                ("cleanup.policy", "delete"),
                ("retention.ms", DAY_MS),
                ("retention.bytes", "-1"),
                ("max.message.bytes", "1048588"),
                ("min.insync.replicas", "2"),
                ("unclean.leader.election.enable", "false"),
            ],
            3,
        );
        let expected = Settings {
            retention: Some(Duration::from_secs(86_400)),
            max_message_bytes: Some(1_048_588),
            min_in_sync: Some(2),
            problems: Vec::new(),
        };
        assert_eq!(settings, expected);
        assert_eq!(read(&[("retention.ms", "-1")], 1), Settings::default());
    }

    #[test]
    fn each_dangerous_setting_is_reported_with_topic_setting_and_value() {
        for (setting, value, replicas) in [
            ("cleanup.policy", "compact", 1),
            ("cleanup.policy", "compact,delete", 1),
            ("retention.bytes", "2000000", 1),
            ("retention.ms", "60000", 1),
            ("max.message.bytes", "100000", 1),
            ("min.insync.replicas", "1", 3),
            ("unclean.leader.election.enable", "true", 1),
        ] {
            let problems = read(&[(setting, value)], replicas).problems;
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].setting, setting);
            let start = format!("topic t: {setting} is {value}: ");
            assert!(problems[0].message.starts_with(&start), "{problems:?}");
        }
    }

    #[test]
    fn time_to_retention_is_unknown_if_it_depends_on_size_or_keys() {
        for (setting, value) in [("retention.bytes", "5"), ("cleanup.policy", "compact")] {
            let settings = read(&[("retention.ms", DAY_MS), (setting, value)], 1);
            assert_eq!(settings.retention, None);
        }
    }
}
