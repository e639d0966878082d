//! Tools of others that read the document: schemathesis and generators of clients. They come from pip
//! and npm, in the versions that `tests/openapi` pins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::download::{node_packages, python_packages, workspace_dir};

/// Returns the path of a file in `tests/openapi`.
///
/// # Errors
/// Returns an error if the workspace is not found.
pub fn file(name: &str) -> Result<PathBuf> {
    Ok(workspace_dir()?.join("tests/openapi").join(name))
}

/// Returns a command that runs Python with the pinned packages and, before them, the modules in `dir`.
///
/// # Errors
/// Returns an error that names what to install if Python or pip are missing.
pub fn python(dir: &Path) -> Result<Command> {
    let packages = python_packages(&file("requirements.txt")?)?;
    let path = std::env::join_paths([dir, packages.as_path()])?;
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", path).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// A new directory in which Node finds the pinned packages.
#[derive(Debug)]
pub struct NodeDir {
    dir: TempDir,
    bin: PathBuf,
}

impl NodeDir {
    /// Creates a directory with these files of `tests/openapi`.
    ///
    /// # Errors
    /// Returns an error that names what to install if Node or npm are missing.
    pub fn new(files: &[&str]) -> Result<Self> {
        let packages = node_packages(&file("")?)?;
        let dir = tempfile::Builder::new().prefix("generated-").tempdir_in(&packages)?;
        for name in files {
            fs::copy(file(name)?, dir.path().join(name)).with_context(|| (*name).to_owned())?;
        }
        Ok(Self { dir, bin: packages.join("node_modules/.bin") })
    }

    /// Returns the path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns a command that runs a program of the packages in this directory.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(self.path());
        command
    }
}
