//! What librdkafka reports about a client besides results: its errors and its
//! log. Neither may show the value of a property, which can be a secret.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{KafkaOptions, properties};

/// Age at which an error no longer explains a failure. librdkafka repeats an
/// error that persists after 30 s.
const MAX_AGE: Duration = Duration::from_secs(90);

/// The reports of one client.
pub(super) struct Reports {
    options: Arc<KafkaOptions>,
    client: &'static str,
    last_error: Mutex<Option<(Instant, String)>>,
}

impl Reports {
    pub(super) fn new(options: Arc<KafkaOptions>, client: &'static str) -> Self {
        Self { options, client, last_error: Mutex::default() }
    }

    /// Keeps an error of the client and writes it to the log.
    pub(super) fn error(&self, error: &KafkaError, reason: &str) {
        let reason = self.shorten(reason);
        tracing::debug!(client = self.client, %error, reason, "error of a Kafka client");
        // That all brokers are down says less than the error of one of them.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.last_error.lock() = Some((Instant::now(), reason));
        }
    }

    /// Writes a line of librdkafka's own log to the log.
    pub(super) fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let line = properties::hide_values(&self.options, line);
        let client = self.client;
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(client, facility, "librdkafka: {line}");
            }
            // Readiness and the log report failures themselves, with a count.
            RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning
            | RDKafkaLogLevel::Notice
            | RDKafkaLogLevel::Info => tracing::debug!(client, facility, "librdkafka: {line}"),
            RDKafkaLogLevel::Debug => tracing::trace!(client, facility, "librdkafka: {line}"),
        }
    }

    /// Returns the latest error that can explain a failure now.
    pub(super) fn last_error(&self) -> Option<String> {
        let last = self.last_error.lock();
        last.as_ref().filter(|(at, _)| at.elapsed() < MAX_AGE).map(|(_, reason)| reason.clone())
    }

    /// Describes an error of a request that needs this right on the topic.
    pub(super) fn describe_access(&self, error: &KafkaError, right: &str) -> String {
        describe_access(&self.options, error, right)
    }

    /// Forgets the last error, because the client works.
    pub(super) fn clear(&self) {
        *self.last_error.lock() = None;
    }

    fn shorten(&self, reason: &str) -> String {
        // Cuts durations and counts, which differ in each report of one cause.
        let reason = reason.split(" (after ").next().unwrap_or_default();
        properties::hide_values(&self.options, reason)
    }
}

/// Returns whether Kafka denies a right.
pub(super) fn is_denied(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| denied(code, "", "", "").is_some())
}

/// Describes an error of a request that needs `right` on the topic, such as "write
/// to". A right that Kafka denies is named, with what it applies to.
pub(super) fn describe_access(options: &KafkaOptions, error: &KafkaError, right: &str) -> String {
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        _ => error.rdkafka_error_code(),
    };
    code.and_then(|code| denied(code, right, &options.topic, &options.group))
        .unwrap_or_else(|| describe(error))
}

fn denied(code: RDKafkaErrorCode, right: &str, topic: &str, group: &str) -> Option<String> {
    let what = match code {
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed => format!("{right} the topic {topic}"),
        RDKafkaErrorCode::GroupAuthorizationFailed => format!("read the consumer group {group}"),
        _ => return None,
    };
    Some(format!("Kafka denies the right to {what}: {code}"))
}

/// Describes an error in a few words.
pub(super) fn describe(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown) => {
            "unreachable".to_owned()
        }
        Some(RDKafkaErrorCode::OperationTimedOut) => "request timed out".to_owned(),
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}
