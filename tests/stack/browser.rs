//! Runs the browser tests in `tests/browser`: Playwright drives Chromium against a running server.
//!
//! Playwright's packages come from npm, once. Chromium must be installed: Playwright's own download is
//! not used, because distributions patch their browser and most machines have one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::download::{run, succeeds, workspace_dir};

/// The names of the browsers that Playwright can drive over Chromium's protocol.
const BROWSERS: [&str; 4] =
    ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Returns a command that posts events to the server at `url` and runs the browser tests whose names
/// match `pattern`. It expects new servers, and an empty one at `empty_url`.
///
/// # Errors
/// Returns an error that names what to install if Node, npm or Chromium are missing.
pub fn command(url: &str, empty_url: &str, pattern: &str) -> Result<Command> {
    let dir = workspace_dir()?.join("tests/browser");
    ensure!(
        succeeds(
            "node",
            &["-e", "process.exit(+process.versions.node.split('.')[0] < 20 ? 1 : 0)"]
        ),
        "the browser tests need Node.js 20 or newer as `node`"
    );
    let chromium = chromium()?;
    install(&dir)?;
    let mut command = Command::new("node");
    command
        .args(["run.mjs", pattern])
        .current_dir(&dir)
        .env("EYEGO_URL", url)
        .env("EYEGO_EMPTY_URL", empty_url)
        .env("EYEGO_TEST_CHROMIUM", chromium);
    Ok(command)
}

/// Returns `EYEGO_TEST_CHROMIUM` or the first installed browser.
fn chromium() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("EYEGO_TEST_CHROMIUM") {
        return Ok(PathBuf::from(path));
    }
    match BROWSERS.iter().find(|name| succeeds(name, &["--version"])) {
        Some(name) => which(name),
        None => bail!(
            "the browser tests need Chromium: install the package `chromium`, or set \
             EYEGO_TEST_CHROMIUM to the path of a Chromium or Chrome"
        ),
    }
}

/// Playwright takes a path and does not search `PATH`.
fn which(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("{name} runs but is not in PATH"))
}

/// Installs the locked packages, unless they are up to date.
fn install(dir: &Path) -> Result<()> {
    // Two tests of one run install at the same time.
    let lock = File::create(std::env::temp_dir().join("eyego-browser-tests.lock"))?;
    lock.lock()?;
    let modified = |name: &str| fs::metadata(dir.join(name)).and_then(|data| data.modified()).ok();
    let (wanted, installed) =
        (modified("package-lock.json"), modified("node_modules/.package-lock.json"));
    if installed.is_some() && installed >= wanted {
        return Ok(());
    }
    run(Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(dir))
    .context("cannot install the packages of the browser tests with npm")
}
