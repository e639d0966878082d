//! Reports properties that librdkafka rejects: their names and the reasons, never
//! their values, which may be secrets.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::KafkaOptions;
use crate::domain::subscription::QueueError;

/// Checks that librdkafka accepts the properties of a client.
///
/// # Errors
/// Returns an error that names the first property that librdkafka rejects.
pub(super) fn check(config: &ClientConfig) -> Result<(), QueueError> {
    let checked = config.create_native_config();
    checked
        .map(drop)
        .map_err(|error| QueueError::new(format!("EYEGO_KAFKA_PROPERTIES: {}", rejection(&error))))
}

/// Describes an error of creating a client. librdkafka's message can quote a value
/// or a part of it; such words are hidden.
pub(super) fn creation_error(options: &KafkaOptions, error: &KafkaError) -> QueueError {
    let message = match error {
        KafkaError::ClientCreation(message) => hide_values(options, message),
        error => rejection(error),
    };
    QueueError::new(format!("cannot create a Kafka client: {message}"))
}

/// Hides each word of librdkafka's text that is part of a property's value.
pub(super) fn hide_values(options: &KafkaOptions, message: &str) -> String {
    /// Shorter words are common, and too short for a secret.
    const MIN_LEN: usize = 4;
    let is_hidden = |word: &str| {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        word.len() >= MIN_LEN && options.properties.iter().any(|(_, value)| value.contains(word))
    };
    let words = message.split_whitespace().map(|word| if is_hidden(word) { "***" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Says why librdkafka rejects a property. Takes only those parts of librdkafka's
/// message that cannot contain a value.
fn rejection(error: &KafkaError) -> String {
    let KafkaError::ClientConfig(result, message, name, _) = error else {
        return "librdkafka rejects the properties".to_owned();
    };
    if *result == RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN {
        return match shown_name(name) {
            Some(name) => format!("unknown property {name}"),
            None => "unknown property, whose name is not shown because it may be part of a \
                     value: write values that contain `;` in a JSON object"
                .to_owned(),
        };
    }
    let after = |phrase: &str| message.rsplit_once(phrase).map(|(_, rest)| rest.trim());
    let reason = if let Some(range) = after("is outside allowed range") {
        format!("its value is outside the allowed range {range}")
    } else if let Some(reason) = after("not supported in this build:") {
        format!("not supported in this build: {reason}")
    } else {
        "librdkafka does not accept its value".to_owned()
    };
    format!("invalid property {name}: {reason}")
}

/// Returns `name` if it looks like the name of a property. If a value contains
/// the separator `;`, a part of the value is taken for a name.
fn shown_name(name: &str) -> Option<&str> {
    let is_plausible = name.len() <= 64
        && name.contains('.')
        && name.chars().all(|c| c.is_ascii_lowercase() || c == '.' || c == '_');
    is_plausible.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_for(name: &str, value: &str) -> String {
        let mut config = ClientConfig::new();
        config.set(name, value);
        check(&config).unwrap_err().to_string()
    }

    #[test]
    fn rejected_property_is_named_without_its_value() {
        for (name, value, expected) in [
            ("sasl.pasword", "SECRET", "unknown property sasl.pasword"),
            ("SECRET", "x", "unknown property, whose name is not shown"),
            ("security.protocol", "SECRET", "invalid property security.protocol: librdkafka does"),
            ("linger.ms", "SECRET", "invalid property linger.ms: "),
            ("linger.ms", "12345678", "its value is outside the allowed range"),
        ] {
            let error = error_for(name, value);
            assert!(error.starts_with("EYEGO_KAFKA_PROPERTIES: "), "{error}");
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("SECRET") && !error.contains("12345678"), "{error}");
        }
    }

    #[test]
    fn creation_error_hides_values_and_parts_of_them() {
        let options = KafkaOptions {
            brokers: "h:1".to_owned(),
            topic: "t".to_owned(),
            group: "g".to_owned(),
            partitions: 1,
            replication: None,
            properties: vec![("sasl.mechanism".to_owned(), "principal=a SECRET=".to_owned())],
            max_queued_bytes: 1024,
            max_prefetch_bytes: 1024,
            max_record_bytes: 1024,
            appends: true,
        };
        let creation = |message: &str| {
            let error = KafkaError::ClientCreation(message.to_owned());
            creation_error(&options, &error).to_string()
        };
        assert_eq!(
            creation("Unsupported SASL mechanism: principal=a SECRET="),
            "cannot create a Kafka client: Unsupported SASL mechanism: *** ***"
        );
        assert_eq!(creation("at: \"SECRET\""), "cannot create a Kafka client: at: ***");
    }

    #[cfg(not(feature = "kafka-tls"))]
    #[test]
    fn tls_property_without_tls_is_rejected_without_its_value() {
        for name in ["ssl.key.pem", "ssl.key.password", "ssl.ca.pem"] {
            let error = error_for(name, "SECRET");
            assert!(error.contains(&format!("invalid property {name}: ")), "{error}");
            assert!(!error.contains("SECRET"), "{error}");
        }
    }
}
