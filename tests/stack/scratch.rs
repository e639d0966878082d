//! Directories that vanish with whoever made them, also when that is killed.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Waits for the end of the pipe, then removes the directory. More than once: the processes that
/// write into it are being killed by their own watchdogs in the same moment.
const JANITOR: &str = r#"
read -r _
for _ in 1 2 3 4 5 6; do rm -rf -- "$1"; sleep 0.3; done
"#;

/// A directory of its own under the system's temporary directory.
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
            .context("cannot make a temporary directory")?;
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
        // The directory itself is removed by its own drop, right after; here only the janitor
        // must not stay behind as a zombie.
        let _ = self.janitor.kill();
        let _ = self.janitor.wait();
    }
}
