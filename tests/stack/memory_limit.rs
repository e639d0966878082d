//! A memory limit for a process, by a control group of version 1 or 2.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::eventually_blocking;

/// The time until the kernel has removed a group whose process was killed.
const REMOVED: Duration = Duration::from_secs(5);

/// A control group. It is removed when this is dropped, if its process is gone.
#[derive(Debug)]
pub struct MemoryLimit {
    dir: PathBuf,
    peak: &'static str,
}

impl MemoryLimit {
    /// Limits the memory of a process, including what it uses already.
    ///
    /// # Errors
    /// Returns an error if this process may not create control groups.
    pub fn of_process(pid: u32, bytes: u64) -> Result<Self> {
        let roots = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
            ("/sys/fs/cgroup", "memory.max", "memory.peak"),
        ];
        for (root, limit, peak) in roots {
            let dir = PathBuf::from(root).join(format!("eyego-log-{pid}"));
            if fs::create_dir(&dir).is_err() {
                continue;
            }
            let group = Self { dir, peak };
            if !group.dir.join(limit).exists() {
                continue;
            }
            fs::write(group.dir.join(limit), bytes.to_string())?;
            fs::write(group.dir.join("cgroup.procs"), pid.to_string())?;
            return Ok(group);
        }
        bail!("cannot create a control group with a memory limit (root may do so)")
    }

    /// Returns the most memory that was used, the cache of files included, in bytes.
    ///
    /// # Errors
    /// Returns an error if the kernel does not report it.
    pub fn peak_bytes(&self) -> Result<u64> {
        let text = fs::read_to_string(self.dir.join(self.peak))?;
        text.trim().parse().with_context(|| format!("{} is {text}", self.peak))
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = eventually_blocking("the group to be removed", REMOVED, || {
            Ok(fs::remove_dir(&self.dir)?)
        });
    }
}
