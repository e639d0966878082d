//! Environment variables that no option reads.
//!
//! A misspelt variable must not be ignored: without `EYEGO_KAFKA_BROKERS`, for
//! example, the server would acknowledge events into a local file.

use clap::Command;

use super::ConfigError;

const PREFIX: &str = "EYEGO_";

/// Variables of the client crate, which may share an environment with the server.
const CLIENT_VARIABLES: [&str; 22] = [
    "EYEGO_LOG_API_KEY",
    "EYEGO_LOG_API_KEY_FILE",
    "EYEGO_LOG_CA_FILE",
    "EYEGO_LOG_COMPRESSION",
    "EYEGO_LOG_DELIVERY_TIMEOUT",
    "EYEGO_LOG_DISABLED",
    "EYEGO_LOG_IDENTITY_FILE",
    "EYEGO_LOG_LINGER",
    "EYEGO_LOG_MAX_BATCH_BYTES",
    "EYEGO_LOG_MAX_BATCH_EVENTS",
    "EYEGO_LOG_MAX_BUFFER_BYTES",
    "EYEGO_LOG_MAX_EVENT_BYTES",
    "EYEGO_LOG_MAX_IN_FLIGHT",
    "EYEGO_LOG_OVERFLOW",
    "EYEGO_LOG_REQUEST_TIMEOUT",
    "EYEGO_LOG_SAMPLE_RATE",
    "EYEGO_LOG_SHUTDOWN_TIMEOUT",
    "EYEGO_LOG_SPOOL_DIR",
    "EYEGO_LOG_SPOOL_MAX_AGE",
    "EYEGO_LOG_SPOOL_MAX_BYTES",
    "EYEGO_LOG_SPOOL_SYNC",
    "EYEGO_LOG_URL",
];

/// Prefixes of variables that the project's tests and benchmarks read.
const TEST_PREFIXES: [&str; 2] = ["EYEGO_TEST_", "EYEGO_BENCH_"];

/// Similarity from which a known name is suggested: 1.0 is equality.
const SIMILAR: f64 = 0.8;

/// Checks the names of environment variables against the options of `command`.
///
/// # Errors
/// Returns [`ConfigError::Invalid`] naming each variable that starts with
/// `EYEGO_` and that neither an option nor the client reads.
pub(super) fn check(
    command: &Command,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    let known: Vec<_> = command
        .get_arguments()
        .filter_map(|option| option.get_env())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let mut unknown: Vec<_> = variables
        .into_iter()
        .filter(|(name, value)| is_unknown(name, value, &known))
        .map(|(name, _)| describe(&name, &known))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    unknown.sort();
    Err(ConfigError::Invalid(unknown.join("; ")))
}

fn is_unknown(name: &str, value: &str, known: &[String]) -> bool {
    name.starts_with(PREFIX)
        && !known.iter().any(|known| known == name)
        && !CLIENT_VARIABLES.contains(&name)
        && !TEST_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        && !is_service_link(name, value)
}

/// Returns whether Kubernetes or Docker set the variable because a service's name
/// starts with `eyego`, such as `EYEGO_LOG_SERVICE_HOST` or
/// `EYEGO_LOG_PORT_3000_TCP=tcp://10.0.0.1:3000`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_address = value.starts_with("tcp://") || value.starts_with("udp://");
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.contains("_PORT") && is_address)
        || ["_PROTO", "_PORT", "_ADDR"].iter().any(|suffix| {
            name.strip_suffix(suffix)
                .is_some_and(|link| link.ends_with("_TCP") || link.ends_with("_UDP"))
        })
}

fn describe(name: &str, known: &[String]) -> String {
    let similarity = |known: &str| {
        let without_prefix = |name: &str| name.trim_start_matches(PREFIX).to_ascii_uppercase();
        strsim::jaro_winkler(&without_prefix(name), &without_prefix(known))
    };
    let nearest = known
        .iter()
        .map(|known| (similarity(known), known))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let remedy = match nearest {
        Some((_, known)) => format!("did you mean {known}?"),
        None => "`eyego-log-server --help` lists all variables".to_owned(),
    };
    format!("unknown environment variable {name}: {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Args as _;

    fn check_names(names: &[&str]) -> Result<(), String> {
        let command = crate::config::Config::augment_args(Command::new("test"));
        let variables = names.iter().map(|name| ((*name).to_owned(), String::new()));
        check(&command, variables).map_err(|error| error.to_string())
    }

    #[test]
    fn misspelt_variable_is_an_error_that_suggests_the_nearest_name() {
        for (name, expected) in [
            ("EYEGO_KAFKA_BROKER", "did you mean EYEGO_KAFKA_BROKERS?"),
            ("EYEGO_MONGO_URI", "did you mean EYEGO_MONGODB_URI?"),
            ("EYEGO_LOG_FROMAT", "did you mean EYEGO_LOG_FORMAT?"),
            ("EYEGO_XYZ", "`eyego-log-server --help` lists all variables"),
        ] {
            let error = check_names(&["EYEGO_ROLE", name]).unwrap_err();
            assert_eq!(error, format!("unknown environment variable {name}: {expected}"));
        }
        let both = check_names(&["EYEGO_B", "EYEGO_A"]).unwrap_err();
        assert!(
            both.contains("EYEGO_A:") && both.contains("; unknown environment variable EYEGO_B:")
        );
    }

    #[test]
    fn variables_of_the_client_of_tests_and_of_service_links_are_accepted() {
        check_names(&CLIENT_VARIABLES).unwrap();
        check_names(&["EYEGO_TEST_SEED", "EYEGO_LOG_SERVICE_HOST", "EYEGO_LOG_SERVICE_PORT_HTTP"])
            .unwrap();
        check_names(&["EYEGO_LOG_PORT_3000_TCP_ADDR", "KAFKA_BROKER", "EYEGOX"]).unwrap();
        let known = [];
        assert!(!is_unknown("EYEGO_LOG_PORT", "tcp://10.0.0.1:3000", &known));
        assert!(is_unknown("EYEGO_LOG_PORT", "3000", &known));
    }

    #[test]
    fn client_variables_are_those_that_the_client_reads() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../eyego-log-client/src/api/builder/env.rs");
        let source = std::fs::read_to_string(path).unwrap();
        let mut read: Vec<_> = source
            .split(|c: char| !(c.is_ascii_uppercase() || c == '_'))
            .filter(|word| word.starts_with("EYEGO_LOG_") && !word.ends_with('_'))
            .collect();
        read.sort_unstable();
        read.dedup();
        for name in read {
            assert!(CLIENT_VARIABLES.contains(&name), "{name} is missing");
        }
    }
}
