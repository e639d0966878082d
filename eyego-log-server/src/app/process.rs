//! Limits of the process: the access to its files, and the number of open files
//! and connections.

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

/// Default of `EYEGO_MAX_CONNECTIONS`. Each connection may buffer 64 KiB.
const DEFAULT_MAX_CONNECTIONS: usize = 1024;

/// Returns the limit of connections, and the number of connections above it that
/// are accepted for health and metrics. Both are lower if the process may not open
/// enough files.
pub(super) fn connection_limit(configured: Option<usize>) -> (usize, usize) {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    // These are the files, database connections and sockets that are open already.
    let open = std::fs::read_dir("/dev/fd").map_or(64, Iterator::count);
    let (available, reserve) = divide(limit.saturating_sub(open));
    let wanted = configured.unwrap_or(DEFAULT_MAX_CONNECTIONS);
    if configured.is_some() && wanted > available {
        tracing::warn!(
            wanted,
            available,
            limit,
            "EYEGO_MAX_CONNECTIONS is lowered: raise the limit of open files (ulimit -n)"
        );
    }
    (wanted.min(available), reserve)
}

/// Divides the files that may still be opened into connections and the reserve. A
/// quarter, up to 128, is left for the engines.
fn divide(free: usize) -> (usize, usize) {
    let reserve = (free / 8).clamp(1, 16);
    let engines = (free / 4).min(128);
    (free.saturating_sub(reserve + engines).max(1), reserve)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_to_the_engines() {
        assert_eq!(divide(0), (1, 1));
        assert_eq!(divide(24), (15, 3));
        assert_eq!(divide(1000), (856, 16));
    }
}
