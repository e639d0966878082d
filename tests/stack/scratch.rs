//! Temporary directories that are removed even if the process that made them is killed.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Waits for the end of the pipe, then removes the directory. It tries several times, because
/// the watchdogs of the processes that write into the directory kill them at the same moment.
const JANITOR: &str = r#"
read -r _
for _ in 1 2 3 4 5 6; do rm -rf -- "$1"; sleep 0.3; done
"#;

/// A directory under the system's temporary directory. Dropping it removes the directory.
#[derive(Debug)]
pub(crate) struct Scratch {
    dir: TempDir,
    janitor: Child,
}

impl Scratch {
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("eyego-{prefix}-"))
            .tempdir()
            .context("cannot create a temporary directory")?;
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "sh"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        Ok(Self { dir, janitor })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // `TempDir` removes the directory; the janitor must not remain as a zombie.
        let _ = self.janitor.kill();
        let _ = self.janitor.wait();
    }
}
