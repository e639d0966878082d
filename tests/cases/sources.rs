//! The source files of the workspace, for the tests that read them.

use std::path::{Path, PathBuf};

/// Directories that hold no sources of this project.
const SKIPPED: [&str; 3] = ["target", "node_modules", "corpus"];

/// A text file of the workspace.
pub(crate) struct Source {
    /// The path relative to the workspace.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Source {
    /// Returns the lines with their numbers, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Returns the lines that are not comments, with their numbers.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// Returns the directory of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Reads all files with one of these extensions below a directory of the workspace, sorted by path.
pub(crate) fn read_below(dir: &str, extensions: &[&str]) -> Vec<Source> {
    let workspace = workspace();
    let mut paths = Vec::new();
    collect(&workspace.join(dir), extensions, &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        Source { path: path.strip_prefix(&workspace).unwrap().to_path_buf(), text }
    };
    paths.into_iter().map(read).collect()
}

fn collect(dir: &Path, extensions: &[&str], paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() {
            if !name.starts_with('.') && !SKIPPED.contains(&&*name) {
                collect(&path, extensions, paths);
            }
        } else if path.extension().is_some_and(|of| extensions.iter().any(|wanted| of == *wanted)) {
            paths.push(path);
        }
    }
}
