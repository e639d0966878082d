//! Reports properties that librdkafka rejects: their names and the reasons, never
//! their values, which may be secrets.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::{ClientKind, KafkaOptions, consumer, producer};
use crate::domain::subscription::QueueError;

/// Checks that librdkafka accepts the properties for each kind of client.
///
/// # Errors
/// Returns an error that names the first property that librdkafka rejects.
pub(super) fn check(options: &KafkaOptions) -> Result<(), QueueError> {
    let admin = options.finish(options.client("eyego-topic"), ClientKind::Admin);
    [admin, producer::config(options), consumer::config(options)].iter().try_for_each(check_config)
}

fn check_config(config: &ClientConfig) -> Result<(), QueueError> {
    let checked = config.create_native_config();
    checked
        .map(drop)
        .map_err(|error| QueueError::new(format!("EYEGO_KAFKA_PROPERTIES: {}", rejection(&error))))
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
        check_config(&config).unwrap_err().to_string()
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
