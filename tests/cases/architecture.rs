//! The direction of the arrows: which layer of the server may name which.

use std::path::{Path, PathBuf};

/// What the files of a layer may name after `crate::`.
const ALLOWED: [(&str, &[&str]); 5] = [
    ("domain", &["domain"]),
    ("application", &["application", "domain"]),
    ("infrastructure", &["infrastructure", "domain"]),
    ("interface", &["interface", "application", "domain"]),
    ("config", &["config"]),
];

/// Crates that speak with an engine or a network: the inner layers do without.
const ENGINES: [&str; 7] = ["rdkafka", "mongodb", "rusqlite", "axum", "hyper", "bson", "reqwest"];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../eyego-log-server/src")
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The first segment of every path that begins with `prefix`, outside comments.
fn named<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(move |line| {
        line.match_indices(prefix).map(move |(start, _)| {
            let rest = &line[start + prefix.len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            &rest[..end]
        })
    })
}

#[test]
fn imports_point_inward() {
    for (layer, allowed) in ALLOWED {
        let files = files_below(&sources().join(layer));
        assert!(!files.is_empty(), "{layer} is gone");
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for name in named(&text, "crate::") {
                assert!(allowed.contains(&name), "{}: names crate::{name}", file.display());
            }
        }
    }
}

#[test]
fn the_inner_layers_know_no_engine() {
    for layer in ["domain", "application"] {
        for file in files_below(&sources().join(layer)) {
            let text = std::fs::read_to_string(&file).unwrap();
            for engine in ENGINES {
                let path = format!("{engine}::");
                let is_named = text
                    .lines()
                    .any(|line| !line.trim_start().starts_with("//") && line.contains(&path));
                assert!(!is_named, "{}: names {engine}", file.display());
            }
        }
    }
}

#[test]
fn adapters_do_not_know_one_another() {
    let adapters = [
        ("infrastructure/queue/kafka", "sqlite"),
        ("infrastructure/queue/sqlite", "kafka"),
        ("infrastructure/repository/mongodb", "sqlite"),
        ("infrastructure/repository/sqlite", "mongodb"),
    ];
    for (adapter, other) in adapters {
        for file in files_below(&sources().join(adapter)) {
            let text = std::fs::read_to_string(&file).unwrap();
            let names_other = text
                .lines()
                .any(|line| line.starts_with("use ") && line.contains(&format!("::{other}")));
            assert!(!names_other, "{}: names {other}", file.display());
        }
    }
}

#[test]
fn only_the_composition_root_names_adapters() {
    for file in files_below(&sources()) {
        let is_root = file.ends_with("app.rs")
            || file.components().any(|c| c.as_os_str() == "infrastructure");
        if is_root {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for name in named(&text, "crate::") {
            assert_ne!(name, "infrastructure", "{}", file.display());
        }
    }
}

#[test]
fn every_file_says_what_lives_in_it() {
    for file in files_below(&sources()) {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{}", file.display());
    }
}
