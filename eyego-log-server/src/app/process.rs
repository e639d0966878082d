//! Limits of the process: the access to its files, and the number of open files.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// Makes directories and files that this process creates accessible to its user
/// only: 0700 and 0600.
pub(super) fn protect_new_files() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// Warns if other users may access `dir`, whose files contain events.
pub(super) fn warn_if_shared(variable: &str, dir: &Path) {
    let Ok(metadata) = dir.metadata() else { return };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            dir = %dir.display(),
            mode = %format_args!("{mode:04o}"),
            "{variable} is accessible to other users: change its mode to 0700"
        );
    }
}

/// Raises the soft limit of open files to the hard limit.
pub(super) fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(from = current, to = maximum, "raised the limit of open files"),
        Err(error) => {
            tracing::debug!(limit = current, %error, "cannot raise the limit of open files");
        }
    }
}
