//! Generates `docs/configuration.md` from the definitions of the options.

use std::fmt::Write as _;
use std::path::Path;

use clap::Arg;

use super::{file, options};

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from eyego-log-server/src/config. To regenerate:
     UPDATE_DOCS=1 cargo test -p eyego-log-server configuration_docs -->

Every option can be set by a flag, an environment variable, or a key of a TOML file. A flag wins over
a variable, a variable over the file, and the file over the default. A variable set to an empty value
counts as unset. `eyego-log-server --help` shows all options.

`--config FILE` or `EYEGO_CONFIG` names the file. It has one table per group of options:

```toml
log = \"info,eyego_log_server=debug\"

[http]
listen = \"0.0.0.0:3000\"
max_body_bytes = \"32MiB\"

[access]
keys_file = \"/etc/eyego-log/keys.toml\"

[kafka]
brokers = \"kafka-1:9092,kafka-2:9092\"

[kafka.properties]
\"compression.type\" = \"lz4\"
\"sasl.password\" = \"...\"

[mongodb]
uri = \"mongodb://mongo-1,mongo-2,mongo-3/?replicaSet=rs0\"
```

Sizes are written as `16MiB`, `16 MB` or a number of bytes; durations as `25s`, `500ms` or `1m 30s`.
An unknown key, an unknown variable that starts with `EYEGO_`, or an invalid value stops the server at
startup with a message that names it. The variables of the Rust client (`EYEGO_LOG_URL` and so on) are
accepted and ignored. The
values of `EYEGO_KAFKA_PROPERTIES` and `EYEGO_MONGODB_URI` are never logged or shown. Each can be read
from a file instead (`EYEGO_KAFKA_PROPERTIES_FILE`, `EYEGO_MONGODB_URI_FILE`); a trailing newline is
removed.
";

#[test]
fn configuration_docs_are_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let expected = render();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &expected).unwrap();
    }
    let actual = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        actual == expected,
        "docs/configuration.md is stale; regenerate it with: \
         UPDATE_DOCS=1 cargo test -p eyego-log-server configuration_docs"
    );
}

fn render() -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut current = None;
    for option in options::definitions() {
        let heading = option.get_help_heading().unwrap_or("General").to_owned();
        if current.as_ref() != Some(&heading) {
            let columns = "| Flag | Variable | File key | Default | Values | Description |";
            write!(text, "\n## {heading}\n\n{columns}\n|---|---|---|---|---|---|\n").unwrap();
            current = Some(heading);
        }
        text.push_str(&row(&option));
    }
    text
}

fn row(option: &Arg) -> String {
    let help = option.get_long_help().or(option.get_help()).unwrap().to_string();
    let (description, default) = match help.split_once(" [default: ") {
        Some((description, default)) => (description, default.trim_end_matches(']').to_owned()),
        None => (help.as_str(), format!("`{}`", option.get_default_values()[0].display())),
    };
    let flag = option.get_long().unwrap();
    let variable = option.get_env().unwrap().display();
    let key = file::file_key(option);
    let values = values(option);
    let description = description.trim_end_matches('.');
    format!("| `--{flag}` | `{variable}` | `{key}` | {default} | {values} | {description}. |\n")
}

/// Returns which values an option accepts, as its error for an invalid value says,
/// or the name of its value if it accepts any text.
fn values(option: &Arg) -> String {
    let Err(reason) = options::check(option, "?") else {
        return format!("`{}`", option.get_value_names().unwrap()[0]);
    };
    let reason = reason.trim_end_matches(", not `?`");
    let expected = reason.split_once("expected ").map_or(reason, |(_, expected)| expected);
    expected.replace('|', "\\|")
}
