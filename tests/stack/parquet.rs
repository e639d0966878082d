//! Reads Parquet files with `DuckDB`, which shares no code with the server's writer.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::download::{python_packages, workspace_dir};

/// A Parquet file.
#[derive(Debug)]
pub struct Table {
    /// The names of the columns.
    pub names: Vec<String>,
    /// The rows in the order of the file. Times are milliseconds since 1970.
    pub rows: Vec<Vec<Value>>,
}

/// Reads a file. `DuckDB` comes from pip, in the version that `tests/parquet` pins.
///
/// # Errors
/// Returns an error if the file cannot be read, or names what to install if Python or pip are missing.
pub fn read(file: &Path) -> Result<Table> {
    let dir = workspace_dir()?.join("tests/parquet");
    let packages = python_packages(&dir.join("requirements.txt"))?;
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.arg(dir.join("read.py")).arg(file).output().context("python3")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let mut lines = text.lines();
    let names = serde_json::from_str(lines.next().context("no columns")?)?;
    let rows = lines.map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<_>>()?;
    Ok(Table { names, rows })
}
