//! Tests of sources, values and rules across options.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Command, FromArgMatches};

use super::*;

fn load(args: &[&str]) -> Result<Config, ConfigError> {
    let command = Config::augment_args(Command::new("test")).no_binary_name(true);
    let args: Vec<_> = args.iter().map(Into::into).collect();
    let config = Config::from_arg_matches(&parse(command, &args)?)?;
    config.resolve()
}

fn error(args: &[&str]) -> String {
    load(args).unwrap_err().to_string()
}

fn load_file(text: &str, args: &[&str]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("eyego.toml");
    std::fs::write(&path, text).unwrap();
    load(&[&["--config", path.to_str().unwrap()], args].concat())
}

#[test]
fn flag_wins_over_file_and_file_over_default() {
    let text = "log = \"debug\"\n\
                [http]\nlisten = \"127.0.0.1:1\"\nmax_body_bytes = \"1 MiB\"\n\
                max_batch_events = 7\n\
                [mongodb]\ncreate_indexes = false\n\
                [worker]\nmax_bytes = 16777216\n\
                [kafka]\nbrokers = \"k:9092\"\n\
                [kafka.properties]\n\"sasl.password\" = \"secret\"\n\
                \"ssl.ca.pem\" = \"first;\\nsecond\"\n";
    let config = load_file(text, &["--listen", "127.0.0.1:2"]).unwrap();
    assert_eq!(config.http.listen, "127.0.0.1:2");
    assert_eq!(config.http.max_body_bytes, 1 << 20);
    assert_eq!(config.http.max_batch_events, 7);
    assert!(!config.mongodb.create_indexes);
    assert_eq!(config.worker.max_bytes, 16 << 20);
    assert_eq!(config.log, "debug");
    assert_eq!(config.role, Role::All);
    let properties = config.kafka.properties.clone().unwrap();
    assert!(properties.iter().any(|pair| pair == ("ssl.ca.pem", "first;\nsecond")));
    let debug = format!("{config:?}");
    assert!(!debug.contains("secret"), "{debug}");
}

#[test]
fn empty_value_in_the_file_counts_as_unset() {
    let config = load_file("[kafka]\nbrokers = \"\"\ntopic = \" \"\n", &[]).unwrap();
    assert_eq!(config.kafka.brokers, None);
    assert_eq!(config.kafka.topic, "logs-topic");
}

#[test]
fn unknown_key_in_the_file_is_named() {
    for (text, key) in [
        ("[http]\nlissten = \"x\"\n", "http.lissten"),
        ("[htp]\nlisten = \"x\"\n", "htp"),
        ("config = \"x\"\n", "config"),
    ] {
        let error = load_file(text, &[]).unwrap_err().to_string();
        assert!(error.contains(&format!("eyego.toml: unknown key {key}")), "{error}");
    }
}

#[test]
fn invalid_value_in_the_file_is_named_even_if_a_flag_overrides_it() {
    let text = "[http]\nmax_event_bytes = \"20 MiB\"\n";
    let error = load_file(text, &["--max-event-bytes", "1 MiB"]).unwrap_err().to_string();
    let expected = "http.max_event_bytes: expected a size from 1 KiB to 15 MiB, not `20 MiB` \
                    (flag --max-event-bytes, variable EYEGO_MAX_EVENT_BYTES)";
    assert!(error.ends_with(expected), "{error}");
    let error = load_file("[http]\nlisten = [1]\n", &[]).unwrap_err().to_string();
    assert!(error.contains("http.listen: expected a string"), "{error}");
}

#[test]
fn invalid_value_of_a_secret_option_is_not_shown() {
    let text = "[kafka.properties]\n\"sasl.password\" = \"secret\"\n\"linger.ms\" = 5\n";
    for error in [
        load_file(text, &[]).unwrap_err().to_string(),
        error(&["--kafka-properties", "secret"]),
        error(&["--kafka-properties", "{\"sasl.password\": [\"secret\"]}"]),
        error(&["--kafka-properties", "{\"sasl.password\": secret}"]),
        error(&["--mongodb-uri", "mongodb://user:secret@h/?w=1"]),
    ] {
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn invalid_value_names_variable_flag_and_limits() {
    assert_eq!(
        error(&["--spool-max-bytes", "1 KiB"]),
        "EYEGO_SPOOL_MAX_BYTES: expected a size from 1 MiB to 1 PiB, not `1 KiB` \
         (flag --spool-max-bytes, file key spool.max_bytes)"
    );
    assert_eq!(
        error(&["--role", "both"]),
        "EYEGO_ROLE: expected all, api or worker, not `both` (flag --role, file key role)"
    );
    assert_eq!(
        error(&["--shutdown-delay", "99h"]),
        "EYEGO_SHUTDOWN_DELAY: expected a duration from 0s to 1h, such as 25s or 1m 30s, not `99h` \
         (flag --shutdown-delay, file key http.shutdown_delay)"
    );
    assert_eq!(
        error(&["--kafka-partitions", "0"]),
        "EYEGO_KAFKA_PARTITIONS: expected a whole number of at least 1, not `0` \
         (flag --kafka-partitions, file key kafka.partitions)"
    );
}

#[test]
fn invalid_retention_is_rejected() {
    assert_eq!(
        error(&["--retention", "5 parsecs"]),
        "EYEGO_RETENTION: expected a duration of at least 1s, such as 90d, not `5 parsecs` \
         (flag --retention, file key retention.default)"
    );
    assert_eq!(
        error(&["--retention-by-action", "A=1d;B:2d"]),
        "EYEGO_RETENTION_BY_ACTION: `B:2d` is not an action with a duration: expected actions with \
         a duration of at least 1s each, such as PAGE_VIEW=30d;LOGIN=365d, not `A=1d;B:2d` \
         (flag --retention-by-action, file key retention.by_action)"
    );
    let retention = load(&["--retention-by-action", "A=1d"]).unwrap().retention;
    assert_eq!(retention.default, None);
    assert_eq!(retention.by_action(), [("A".to_owned(), Duration::from_secs(86_400))]);
}

#[test]
fn misspelt_log_level_is_rejected() {
    for filter in ["warning", "info,eyego_log_server=warning", "eyego_log_server", "debug,", "x="] {
        assert_eq!(
            error(&["--log", filter]),
            format!(
                "EYEGO_LOG: invalid filter `{filter}`: expected a level (error, warn, info, debug, \
                 trace) or directives such as info,eyego_log_server=debug (flag --log, file key log)"
            )
        );
    }
    for filter in
        ["warn", "INFO", "off", "info,eyego_log_server=debug", "a[b{c=d}]=trace,info", "info,a[b]"]
    {
        assert_eq!(load(&["--log", filter]).unwrap().log, filter);
    }
}

#[test]
fn limits_that_depend_on_other_limits_are_checked() {
    let error = error(&["--max-body-bytes", "1 KiB"]);
    assert!(error.contains("EYEGO_MAX_BODY_BYTES must be at least"), "{error}");
    let too_little = ["--max-body-bytes", "64 MiB", "--max-in-flight-bytes", "128 MiB"];
    let error = load(&too_little).unwrap_err().to_string();
    assert!(error.contains("which is 256 MiB, not 128 MiB"), "{error}");
    let config = load(&["--max-body-bytes", "64 MiB"]).unwrap();
    assert_eq!(config.http.max_in_flight_bytes(), 256 << 20);
}

#[test]
fn separate_roles_require_kafka_and_mongodb() {
    let missing = error(&["--role", "worker"]);
    assert!(missing.contains("EYEGO_KAFKA_BROKERS"), "{missing}");
    let missing = error(&["--role", "api", "--kafka-brokers", "k:9092"]);
    assert!(missing.contains("EYEGO_MONGODB_URI"), "{missing}");
}

#[test]
fn spool_requires_kafka_and_its_own_directory() {
    let missing = error(&["--spool-dir", "s"]);
    assert!(missing.contains("EYEGO_KAFKA_BROKERS"), "{missing}");
    let kafka = ["--kafka-brokers", "k:9092", "--spool-dir", "s"];
    let spool = load(&kafka).unwrap().spool;
    assert_eq!((spool.dir, spool.max_bytes), (Some(PathBuf::from("s")), 1 << 30));
    let same = error(&[&kafka[..], &["--data-dir", "s"]].concat());
    assert!(same.contains("EYEGO_DATA_DIR"), "{same}");
}

#[test]
fn settings_that_the_guarantee_depends_on_are_rejected() {
    for property in ["acks=1", "enable.idempotence=false", "enable.auto.commit=true"] {
        let error = error(&["--kafka-brokers", "k:9092", "--kafka-properties", property]);
        assert!(error.contains(property.split('=').next().unwrap()), "{error}");
    }
    for uri in
        ["mongodb://h/?w=1", "mongodb://h/?journal=false", "mongodb://h/?readPreference=secondary"]
    {
        let error = error(&["--mongodb-uri", uri]);
        assert!(error.contains("EYEGO_MONGODB_URI"), "{error}");
    }
}

#[test]
fn addresses_and_names_that_kafka_or_mongodb_never_accept_are_rejected() {
    for brokers in
        ["k", "k:9092", "SSL://k:9093", "a:1, b:2", "[::1]:9092", "[::1]", "10.0.0.1:65535"]
    {
        load(&["--kafka-brokers", brokers]).unwrap();
    }
    for brokers in
        ["k:b", ":1", "http://k:1", "a:1,,b:2", "k:0", "k:99999", "[::1]x", "u@k:1", "k/t"]
    {
        let error = error(&["--kafka-brokers", brokers]);
        assert!(error.starts_with("EYEGO_KAFKA_BROKERS: expected host:port"), "{error}");
    }
    for (option, variable, names) in [
        ("--kafka-topic", "EYEGO_KAFKA_TOPIC", ["", "a b", "..", "a/b"]),
        ("--mongodb-database", "EYEGO_MONGODB_DATABASE", ["", "a.b", "a b", "a$"]),
        ("--mongodb-collection", "EYEGO_MONGODB_COLLECTION", ["", "$a", "system.a", "erasures"]),
    ] {
        for name in names {
            let error = error(&[option, name]);
            assert!(error.starts_with(variable), "{name}: {error}");
        }
        let longest = "a".repeat(if option == "--mongodb-database" { 63 } else { 120 });
        load(&[option, &longest]).unwrap();
        error(&[option, &longest.repeat(3)]);
    }
}

#[test]
fn secrets_can_be_read_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let uri = file("uri", "mongodb://user:secret@h\r\n");
    let properties = file("properties", "sasl.password=secret\nlinger.ms=5\n");
    let config =
        load(&["--mongodb-uri-file", &uri, "--kafka-properties-file", &properties]).unwrap();
    assert_eq!(config.mongodb.uri.unwrap().reveal(), "mongodb://user:secret@h");
    let pairs: Vec<_> = config.kafka.properties.iter().flat_map(Properties::iter).collect();
    assert_eq!(pairs, [("linger.ms", "5"), ("sasl.password", "secret")]);

    let both = error(&["--mongodb-uri-file", &uri, "--mongodb-uri", "mongodb://h"]);
    assert!(both.starts_with("EYEGO_MONGODB_URI and EYEGO_MONGODB_URI_FILE"), "{both}");
    let weak = error(&["--mongodb-uri-file", &file("weak", "mongodb://user:secret@h/?w=1")]);
    assert!(weak.starts_with("EYEGO_MONGODB_URI_FILE: ") && !weak.contains("secret"), "{weak}");
    let empty = error(&["--kafka-properties-file", &file("empty", "\n")]);
    assert!(empty.ends_with("empty: the file is empty"), "{empty}");
    let missing = error(&["--kafka-properties-file", "/does/not/exist"]);
    assert!(missing.contains("/does/not/exist: cannot read the file"), "{missing}");
}

#[test]
fn syntax_error_in_the_file_does_not_quote_it() {
    for line in [
        "uri = \"mongodb://user:secret@h",
        "uri = mongodb://user:secret@h",
        "uri = \"mongodb://user:secret@h\" x",
        "uri = \"\\secret\"",
    ] {
        let error = load_file(&format!("[mongodb]\n{line}\n"), &[]).unwrap_err();
        let (shown, debug) = (error.to_string(), format!("{error:?}"));
        assert!(shown.contains("is not valid TOML: line 2, column "), "{shown}");
        assert!(!shown.contains("secret") && !debug.contains("secret"), "{shown} {debug}");
    }
}
