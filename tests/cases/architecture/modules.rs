//! The graph of the modules of a crate, and its cycles.
//!
//! A module depends on another if it names it in a `use` or in a path that begins with `crate::`,
//! `super::`, `self::` or the name of one of its children. A name that a module imports or re-exports
//! counts as a dependency on the module that it comes from, so no cycle hides behind a re-export.
//!
//! A module and its descendants form one unit. A module may depend on its own children and children on
//! their parent; what is forbidden is a cycle between the children of one module, be they files or
//! folders.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::Source;

type Path = Vec<String>;

/// How many re-exports a path is followed through.
const MAX_DEPTH: usize = 8;

struct Module {
    /// The names that it imports, and their paths.
    imports: BTreeMap<String, Path>,
    /// All paths that it names, absolute.
    named: BTreeSet<Path>,
}

/// Returns what each module of a crate names within the crate: the paths of both.
pub(super) fn named_modules(crate_src: &str, sources: &[Source]) -> Vec<(Path, Path)> {
    let modules = parse_all(crate_src, sources);
    let names = |(from, module): (Path, Module)| {
        module.named.into_iter().map(move |to| (from.clone(), to)).collect::<Vec<_>>()
    };
    modules.into_iter().flat_map(names).collect()
}

fn parse_all(crate_src: &str, sources: &[Source]) -> BTreeMap<Path, Module> {
    let paths: BTreeSet<Path> =
        sources.iter().filter_map(|source| module_path(crate_src, source)).collect();
    let parsed = sources.iter().filter_map(|source| {
        let path = module_path(crate_src, source)?;
        let module = parse(&path, source, &paths);
        Some((path, module))
    });
    parsed.collect()
}

/// Returns the cycles between sibling modules of a crate, as text.
pub(super) fn cycles(crate_src: &str, sources: &[Source]) -> Vec<String> {
    let modules = parse_all(crate_src, sources);
    // For each parent: which child depends on which, and a dependency that proves it.
    let mut graphs: BTreeMap<Path, BTreeMap<(String, String), String>> = BTreeMap::new();
    for (from, module) in &modules {
        for named in &module.named {
            let to = resolve(named, &modules, MAX_DEPTH);
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if let (Some(child), Some(other)) = (from.get(common), to.get(common)) {
                let proof = format!("{} names {}", show(from), show(named));
                let graph = graphs.entry(from[..common].to_vec()).or_default();
                graph.entry((child.clone(), other.clone())).or_insert(proof);
            }
        }
    }
    graphs.iter().filter_map(|(parent, graph)| cycle(parent, graph)).collect()
}

/// Returns the path of a module: `a/b.rs` and `a/b/mod.rs` are `[a, b]`. Binaries are not modules.
fn module_path(crate_src: &str, source: &Source) -> Option<Path> {
    let relative = source.path.strip_prefix(crate_src).ok()?.with_extension("");
    let mut path: Path = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    match path.last()?.as_str() {
        "lib" | "mod" => drop(path.pop()),
        "main" => return None,
        _ => {}
    }
    (path.first().map(String::as_str) != Some("bin")).then_some(path)
}

fn parse(module: &Path, source: &Source, modules: &BTreeSet<Path>) -> Module {
    let code: Vec<_> = source.code().map(|(_, line)| strip_comment(line)).collect();
    let code = code.join("\n");
    let mut imports = BTreeMap::new();
    let mut named = BTreeSet::new();
    let mut rest = code.as_str();
    while let Some(start) = find_use(rest) {
        rest = &rest[start..];
        let end = rest.find(';').unwrap_or(rest.len());
        let mut tree = Vec::new();
        expand(rest[..end].trim(), &mut Vec::new(), &mut tree);
        for (path, name) in tree {
            if let Some(path) = absolute(&path, module, modules) {
                imports.insert(name, path.clone());
                named.insert(path);
            }
        }
        rest = &rest[end..];
    }
    for path in paths_in(&code) {
        named.extend(absolute(&path, module, modules));
    }
    Module { imports, named }
}

fn strip_comment(line: &str) -> &str {
    line.find(" // ").map_or(line, |start| &line[..start])
}

/// Returns where the tree of the next `use` begins.
fn find_use(code: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = code[from..].find("use ") {
        let start = from + found;
        let before = code[..start].trim_end_matches([' ', '\t']);
        let is_statement = before.is_empty()
            || before.ends_with(['\n', '}', ';', '{'])
            || before.ends_with("pub")
            || before.ends_with(')');
        if is_statement {
            return Some(start + "use ".len());
        }
        from = start + 1;
    }
    None
}

/// Expands a `use` tree into paths and the names that they are imported as.
fn expand(tree: &str, prefix: &mut Path, into: &mut Vec<(Path, String)>) {
    let tree = tree.trim();
    let depth = prefix.len();
    if let Some(open) = tree.find('{') {
        let head = tree[..open].trim().trim_end_matches("::");
        prefix.extend(head.split("::").filter(|part| !part.is_empty()).map(str::to_owned));
        let body = tree[open + 1..].trim_end();
        for part in split_top_level(body.strip_suffix('}').unwrap_or(body)) {
            expand(part, prefix, into);
        }
    } else if !tree.is_empty() {
        let (path, alias) = match tree.split_once(" as ") {
            Some((path, alias)) => (path.trim(), Some(alias.trim())),
            None => (tree, None),
        };
        prefix.extend(path.split("::").filter(|part| !part.is_empty()).map(str::to_owned));
        if prefix.len() > 1 && prefix.last().is_some_and(|last| last == "self") {
            prefix.pop();
        }
        let name = alias.map(str::to_owned).or_else(|| prefix.last().cloned());
        into.push((prefix.clone(), name.unwrap_or_default()));
    }
    prefix.truncate(depth);
}

/// Splits at the commas that are not within braces.
fn split_top_level(list: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (index, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts
}

/// Returns the paths in code that have at least two segments.
fn paths_in(code: &str) -> Vec<Path> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.split(|c: char| !is_path(c))
        .filter(|word| word.contains("::"))
        .map(|word| word.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect())
        .filter(|path: &Path| path.len() > 1)
        .collect()
}

/// Returns the absolute path of a path in a module, or `None` if it names another crate.
fn absolute(path: &[String], module: &[String], modules: &BTreeSet<Path>) -> Option<Path> {
    let first = path.first()?;
    let (mut base, rest) = match first.as_str() {
        "crate" => (Path::new(), &path[1..]),
        "self" => (module.to_vec(), &path[1..]),
        "super" => {
            let supers = path.iter().take_while(|part| *part == "super").count();
            let length = module.len().checked_sub(supers)?;
            (module[..length].to_vec(), &path[supers..])
        }
        child => {
            let mut base = module.to_vec();
            base.push(child.to_owned());
            if !modules.contains(&base) {
                return None;
            }
            (base, &path[1..])
        }
    };
    base.extend(rest.iter().filter(|part| *part != "*").cloned());
    Some(base)
}

/// Returns the module that a path leads to, through imports and re-exports.
fn resolve(path: &Path, modules: &BTreeMap<Path, Module>, depth: usize) -> Path {
    let length = (0..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]));
    let (module, rest) = path.split_at(length.unwrap_or(0));
    let imported = modules.get(module).zip(rest.first());
    match imported.and_then(|(module, name)| module.imports.get(name)) {
        Some(import) if depth > 0 && import != path => {
            let mut target = import.clone();
            target.extend(rest[1..].iter().cloned());
            resolve(&target, modules, depth - 1)
        }
        _ => module.to_vec(),
    }
}

/// Returns a shortest cycle among the children of one module.
fn cycle(parent: &Path, graph: &BTreeMap<(String, String), String>) -> Option<String> {
    let nodes: BTreeSet<&String> = graph.keys().flat_map(|(from, to)| [from, to]).collect();
    let shortest = nodes.into_iter().filter_map(|start| path_back_to(start, graph));
    let cycle = shortest.min_by_key(Vec::len)?;
    let mut text = format!("a cycle in {}: {}", show(parent), cycle.join(" -> "));
    for edge in cycle.windows(2) {
        text.push_str("\n    ");
        text.push_str(&graph[&(edge[0].clone(), edge[1].clone())]);
    }
    Some(text)
}

/// Returns a shortest path from a node back to itself.
fn path_back_to(start: &String, graph: &BTreeMap<(String, String), String>) -> Option<Vec<String>> {
    let mut paths = vec![vec![start.clone()]];
    let mut visited = BTreeSet::new();
    while !paths.is_empty() {
        let mut longer = Vec::new();
        for path in paths {
            let last = path.last()?;
            for (_, to) in graph.keys().filter(|(from, _)| from == last) {
                let mut path = path.clone();
                path.push(to.clone());
                if to == start {
                    return Some(path);
                }
                if visited.insert(to.clone()) {
                    longer.push(path);
                }
            }
        }
        paths = longer;
    }
    None
}

fn show(path: &[String]) -> String {
    if path.is_empty() { "crate".to_owned() } else { path.join("::") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycles_of(files: &[(&str, &str)]) -> Vec<String> {
        let source = |(path, text): &(&str, &str)| Source {
            path: format!("src/{path}").into(),
            text: (*text).to_owned(),
        };
        cycles("src", &files.iter().map(source).collect::<Vec<_>>())
    }

    #[test]
    fn cycle_between_siblings_is_found() {
        let found = cycles_of(&[
            ("lib.rs", "mod a;\nmod b;\nmod c;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "pub fn f() { super::c::g() }"),
            ("c.rs", "use super::{x, a::{self, A}};"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("a -> b -> c -> a"), "{found:?}");
    }

    #[test]
    fn cycle_between_folders_is_found_through_a_re_export() {
        let found = cycles_of(&[
            ("lib.rs", "pub mod a;\npub mod b;"),
            ("a.rs", "mod inner;\npub use inner::A;"),
            ("a/inner.rs", "use crate::b::B;"),
            ("b.rs", "use crate::a::A;"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("a::inner names b::B"), "{found:?}");
    }

    #[test]
    fn sibling_cycle_is_found_through_the_parents_re_export() {
        let found = cycles_of(&[
            ("lib.rs", "mod a;\nmod b;\npub use b::B;"),
            ("a.rs", "use super::B;"),
            ("b.rs", "use crate::a::A;"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn parent_and_child_may_depend_on_each_other() {
        let files = [
            ("lib.rs", "mod a;"),
            ("a.rs", "mod child;\nuse child::C;\npub struct A;"),
            ("a/child.rs", "use super::A;\n// use crate::b::B;"),
        ];
        assert_eq!(cycles_of(&files), [""; 0]);
    }
}
