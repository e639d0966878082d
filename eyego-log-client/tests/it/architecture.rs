//! The structure of the crate: folders import only from lower layers, and
//! modules never import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The folders and top-level files, lowest layer first. A module imports only
/// from its own folder and from lower layers.
const LAYERS: [&[&str]; 6] = [
    &["docs", "model", "sync"],
    &["spool", "transport"],
    &["pipeline"],
    &["delivery"],
    &["api"],
    &["integrations"],
];

/// Each module, such as `spool::files`, and the modules that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Collects the source text of all modules, without tests.
fn read_modules(dir: &Path, prefix: &str, modules: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let module = if prefix.is_empty() { name.clone() } else { format!("{prefix}::{name}") };
        if path.is_dir() {
            read_modules(&path, &module, modules);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !["lib", "tests", "models"].contains(&name.as_str())
        {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            modules.insert(module, lines.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// Returns the paths that follow `marker` in `code`. A path that ends in braces
/// yields one path for each item in them.
fn paths(code: &str, marker: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut paths = Vec::new();
    for (at, _) in code.match_indices(marker) {
        let rest = &code[at + marker.len()..];
        let (path, rest) = rest.split_at(rest.find(|c| !is_path(c)).unwrap_or(rest.len()));
        match rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((items, _)) => {
                paths.extend(items.split(',').map(|item| format!("{path}{}", item.trim())));
            }
            None => paths.push(path.to_owned()),
        }
    }
    paths
}

/// Returns the longest prefix of `path` that is a module.
fn module_of(path: &str, modules: &BTreeMap<String, String>) -> Option<String> {
    let mut prefix = path.trim_end_matches(':');
    loop {
        if modules.contains_key(prefix) {
            return Some(prefix.to_owned());
        }
        prefix = prefix.rsplit_once("::")?.0;
    }
}

fn imports() -> Imports {
    let mut modules = BTreeMap::new();
    read_modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut modules);
    let imports_of = |(module, code): (&String, &String)| {
        let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        let relative = paths(code, "super::").into_iter().map(|path| format!("{parent}::{path}"));
        let all = paths(code, "crate::").into_iter().chain(relative);
        let mut imported: BTreeSet<_> = all.filter_map(|path| module_of(&path, &modules)).collect();
        imported.remove(module);
        (module.clone(), imported)
    };
    modules.iter().map(imports_of).collect()
}

fn layer_of(module: &str) -> usize {
    let folder = module.split("::").next().unwrap();
    let layer = LAYERS.iter().position(|layer| layer.contains(&folder));
    layer.unwrap_or_else(|| panic!("{folder} belongs to no layer"))
}

#[test]
fn folders_import_only_from_lower_layers() {
    let imports = imports();
    assert!(imports.len() > 30, "the modules are found: {:?}", imports.keys());
    for (module, imported) in &imports {
        for other in imported {
            let is_same_folder = module.split("::").next() == other.split("::").next();
            assert!(
                is_same_folder || layer_of(other) < layer_of(module),
                "{module} must not import {other}"
            );
        }
    }
}

#[test]
fn modules_do_not_import_each_other() {
    let mut imports = imports();
    // Repeatedly removes the modules that import nothing. A circle remains.
    while !imports.is_empty() {
        let leaves: Vec<_> = imports
            .iter()
            .filter(|(_, imported)| imported.is_empty())
            .map(|(m, _)| m.clone())
            .collect();
        assert!(!leaves.is_empty(), "circular imports among {imports:#?}");
        for leaf in leaves {
            imports.remove(&leaf);
            imports.values_mut().for_each(|imported| {
                imported.remove(&leaf);
            });
        }
    }
}
