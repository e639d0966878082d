//! The structure of the crates: which layer may name which, which layer may use which dependency, and
//! that modules do not depend on one another in cycles.
//!
//! The tests read the sources as text. Code after a file's first `#[cfg(test)]` and files of tests
//! are not considered.

mod modules;

use std::collections::BTreeSet;

use crate::sources::{Source, read_below, workspace};

const SERVER: &str = "eyego-log-server/src";
const CRATES: [&str; 3] = ["eyego-log-core/src", "eyego-log-client/src", SERVER];

/// The modules that the files of a layer of the server may name after `crate::`. An arrow points
/// inward: `interface` and `infrastructure` name `application` and `domain`, never the reverse. Only
/// `app`, the composition root, names everything.
const LAYERS: [(&str, &[&str]); 6] = [
    ("domain", &["domain"]),
    ("application", &["application", "domain"]),
    ("infrastructure", &["infrastructure", "domain"]),
    ("interface", &["interface", "application", "domain"]),
    ("config", &["config"]),
    ("cli", &["cli", "app", "config", "telemetry"]),
];

/// The dependencies that a layer of the server may use, besides the standard library. A longer path
/// adds to the list of its parent.
const DEPENDENCIES: [(&str, &[&str]); 14] = [
    ("domain", &["async_trait", "bytes", "eyego_log_core", "thiserror"]),
    (
        "application",
        &[
            "async_trait",
            "bytes",
            "eyego_log_core",
            "fastrand",
            "futures_util",
            "getrandom",
            "governor",
            "parking_lot",
            "sha2",
            "subtle",
            "thiserror",
            "tokio",
            "tracing",
        ],
    ),
    (
        "infrastructure",
        &["async_trait", "bytes", "eyego_log_core", "parking_lot", "thiserror", "tokio", "tracing"],
    ),
    ("infrastructure/keys_file", &["serde", "toml"]),
    ("infrastructure/embedded", &["rusqlite", "rustix"]),
    ("infrastructure/queue/kafka", &["rdkafka", "fastrand"]),
    ("infrastructure/queue/sqlite", &["rusqlite", "crc32fast", "zstd"]),
    ("infrastructure/queue/spool", &["fastrand"]),
    (
        "infrastructure/repository/mongodb",
        &["mongodb", "bson", "base64", "futures_util", "serde", "serde_json", "fastrand"],
    ),
    ("infrastructure/repository/feed", &["serde_json"]),
    ("infrastructure/repository/sqlite", &["rusqlite", "serde_json"]),
    (
        "interface",
        &[
            "axum",
            "base64",
            "bytes",
            "eyego_log_core",
            "flate2",
            "futures_util",
            "governor",
            "http",
            "http_body_util",
            "httpdate",
            "humantime",
            "hyper",
            "hyper_util",
            "memchr",
            "parking_lot",
            "percent_encoding",
            "prometheus_client",
            "rustls",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
            "tokio",
            "tokio_rustls",
            "tokio_util",
            "tower",
            "tracing",
            "utoipa",
            "zstd",
        ],
    ),
    ("interface/http/export", &["parquet"]),
    ("interface/http/stats", &["jiff"]),
];

/// Returns the production code of a crate.
fn sources(crate_src: &str) -> Vec<Source> {
    let mut sources = read_below(crate_src, &["rs"]);
    sources.retain(|source| !is_test(source));
    for source in &mut sources {
        if let Some(start) = source.text.find("#[cfg(test)]") {
            source.text.truncate(start);
        }
    }
    assert!(!sources.is_empty(), "no sources in {crate_src}");
    sources
}

fn is_test(source: &Source) -> bool {
    source.path.file_name().is_some_and(|name| name == "tests.rs")
        || source.path.components().any(|component| component.as_os_str() == "tests")
}

/// Returns the sources of a module of the server: its file and the files in its directory.
fn server_module(module: &str) -> Vec<Source> {
    let (file, dir) = (format!("{SERVER}/{module}.rs"), format!("{SERVER}/{module}/"));
    let mut sources = sources(SERVER);
    sources.retain(|source| {
        let path = source.path.to_string_lossy();
        *path == file || path.starts_with(&dir)
    });
    sources
}

/// Returns the identifiers that follow `prefix` in a line, unless the prefix is a part of a longer
/// path.
fn after<'a>(line: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(prefix).filter_map(move |(start, _)| {
        let is_longer = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        if line[..start].chars().next_back().is_some_and(is_longer) {
            return None;
        }
        let rest = &line[start + prefix.len()..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        Some(&rest[..end])
    })
}

fn assert_empty(violations: &[String]) {
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

#[test]
fn layers_name_only_inner_layers() {
    let named = modules::named_modules(SERVER, &sources(SERVER));
    let mut violations = Vec::new();
    for (layer, allowed) in LAYERS {
        let of_layer = named.iter().filter(|(from, _)| from.first().is_some_and(|of| of == layer));
        let names: Vec<_> = of_layer.collect();
        assert!(!names.is_empty(), "the layer {layer} does not exist or names nothing");
        for (from, to) in names {
            if to.first().is_some_and(|to| !allowed.contains(&to.as_str())) {
                violations.push(format!("{} names crate::{}", from.join("::"), to.join("::")));
            }
        }
    }
    assert_empty(&violations);
}

/// Returns the dependencies of the server, as they are named in code.
fn server_dependencies() -> Vec<String> {
    let manifest = workspace().join("eyego-log-server/Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let (_, section) = manifest.split_once("\n[dependencies]\n").unwrap();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let name =
        |line: &str| line.split(['.', ' ', '=']).next().unwrap_or_default().replace('-', "_");
    let dependencies: Vec<_> = lines.map(name).filter(|name| !name.is_empty()).collect();
    assert!(dependencies.iter().any(|name| name == "tokio"), "{dependencies:?}");
    dependencies
}

#[test]
fn layers_use_only_their_dependencies() {
    let dependencies = server_dependencies();
    let mut violations = BTreeSet::new();
    for layer in ["domain", "application", "infrastructure", "interface"] {
        for source in server_module(layer) {
            let path = source.path.to_string_lossy().into_owned();
            let module = path.trim_start_matches(SERVER).trim_start_matches('/');
            let module = module.trim_end_matches(".rs");
            let is_allowed = |dependency: &str| {
                DEPENDENCIES.iter().any(|(of, allowed)| {
                    let is_within = module == *of || module.starts_with(&format!("{of}/"));
                    is_within && allowed.contains(&dependency)
                })
            };
            for dependency in dependencies.iter().filter(|dependency| !is_allowed(dependency)) {
                let prefix = format!("{dependency}::");
                for (number, line) in source.code() {
                    if after(line, &prefix).next().is_some() {
                        violations.insert(format!("{path}:{number}: {layer} uses {dependency}"));
                    }
                }
            }
        }
    }
    assert_empty(&violations.into_iter().collect::<Vec<_>>());
}

#[test]
fn adapters_do_not_name_one_another() {
    let adapters = [
        ("infrastructure/queue/kafka", "sqlite"),
        ("infrastructure/queue/kafka", "spool"),
        ("infrastructure/queue/sqlite", "kafka"),
        ("infrastructure/queue/sqlite", "spool"),
        ("infrastructure/queue/spool", "kafka"),
        ("infrastructure/repository/mongodb", "sqlite"),
        ("infrastructure/repository/sqlite", "mongodb"),
    ];
    let mut violations = Vec::new();
    for (adapter, other) in adapters {
        let sources = server_module(adapter);
        assert!(!sources.is_empty(), "the adapter {adapter} does not exist");
        for source in sources {
            for (number, line) in source.code() {
                let is_named = ["queue", "repository", "infrastructure", "super"]
                    .iter()
                    .any(|parent| line.contains(&format!("{parent}::{other}::")));
                if is_named {
                    let path = source.path.display();
                    violations.push(format!("{path}:{number}: {adapter} names {other}"));
                }
            }
        }
    }
    assert_empty(&violations);
}

#[test]
fn only_the_composition_root_names_adapters() {
    let is_exempt = |root: &str| ["app", "infrastructure"].contains(&root);
    let mut violations = Vec::new();
    for (from, to) in modules::named_modules(SERVER, &sources(SERVER)) {
        let is_adapter = to.len() > 1 && to[0] == "infrastructure";
        if is_adapter && !from.first().is_some_and(|root| is_exempt(root)) {
            violations.push(format!("{} names crate::{}", from.join("::"), to.join("::")));
        }
    }
    for source in sources(SERVER) {
        for (number, line) in source.code() {
            if after(line, "eyego_log_server::").any(|name| name == "infrastructure") {
                violations.push(format!("{}:{number}: {line}", source.path.display()));
            }
        }
    }
    assert_empty(&violations);
}

#[test]
fn modules_do_not_depend_on_one_another_in_cycles() {
    let mut violations = Vec::new();
    for crate_src in CRATES {
        for cycle in modules::cycles(crate_src, &sources(crate_src)) {
            violations.push(format!("{crate_src}: {cycle}"));
        }
    }
    assert_empty(&violations);
}

#[test]
fn modules_follow_one_convention() {
    let mut violations = Vec::new();
    for source in read_below("", &["rs"]) {
        let path = source.path.display();
        if source.path.file_name().is_some_and(|name| name == "mod.rs") {
            violations.push(format!("{path}: move it to `<directory>.rs` beside the directory"));
        }
        for (number, line) in source.code() {
            if line.trim_start().starts_with("#[path") {
                violations.push(format!("{path}:{number}: names the path of a module"));
            }
        }
    }
    assert_empty(&violations);
}

#[test]
fn fuzz_entry_points_are_not_in_production_builds() {
    let mut violations = Vec::new();
    for source in CRATES.iter().flat_map(|crate_src| read_below(crate_src, &["rs"])) {
        let lines: Vec<_> = source.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let line = line.trim_start();
            if !line.starts_with("pub") || !line.contains("fn fuzz_") {
                continue;
            }
            let attributes = lines[..index].iter().rev().map(|line| line.trim_start());
            let mut attributes =
                attributes.take_while(|line| line.starts_with("#[") || line.starts_with("///"));
            let is_gated = |line: &str| line.starts_with("#[cfg(") && line.contains("fuzzing");
            if !attributes.any(is_gated) && !source.text.contains("#![cfg(feature = \"fuzzing\")]")
            {
                violations.push(format!("{}:{}: {line}", source.path.display(), index + 1));
            }
        }
    }
    assert_empty(&violations);
}

#[test]
fn every_file_states_its_purpose() {
    let mut violations = Vec::new();
    for dir in CRATES.into_iter().chain(["tests"]) {
        for source in read_below(dir, &["rs"]) {
            if !source.text.starts_with("//!") {
                violations.push(format!("{}: begins without `//!`", source.path.display()));
            }
        }
    }
    assert_empty(&violations);
}
