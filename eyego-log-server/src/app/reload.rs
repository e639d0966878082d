//! Re-reads files when they change.
//!
//! The files are read every few seconds instead of watching for notifications:
//! they are small, and this works on network file systems and with the symbolic
//! links by which orchestrators replace files.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::application::reload::ReloadStatus;

/// Maximum size of a file. `/dev/zero` in its place must not fill the memory.
const MAX_BYTES: u64 = 16 << 20;

/// Applies the contents of files. Returns what is now in effect, for the log.
type Apply = Box<dyn FnMut(&[Vec<u8>]) -> anyhow::Result<String> + Send>;

type Contents = Result<Vec<Vec<u8>>, io::ErrorKind>;

/// Files that take effect together.
pub(super) struct Watched {
    paths: Vec<PathBuf>,
    /// What the last call of `check` read.
    last_read: Contents,
    /// What was last applied, or could not be.
    seen: Contents,
    apply: Apply,
    status: Arc<ReloadStatus>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl Watched {
    /// Reads files and returns their contents. `name` is their part in readiness.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub(super) fn open(
        name: &'static str,
        paths: &[&Path],
    ) -> anyhow::Result<(Self, Vec<Vec<u8>>)> {
        let paths: Vec<_> = paths.iter().map(|path| path.to_path_buf()).collect();
        let contents = read(&paths)?;
        let seen = Ok(contents.clone());
        let status = Arc::new(ReloadStatus::new(name));
        let apply: Apply = Box::new(|_| Ok(String::new()));
        Ok((Self { paths, last_read: seen.clone(), seen, apply, status }, contents))
    }

    /// Sets what applies changed contents.
    pub(super) fn on_change(
        &mut self,
        apply: impl FnMut(&[Vec<u8>]) -> anyhow::Result<String> + Send + 'static,
    ) {
        self.apply = Box::new(apply);
    }

    /// Applies the files if they have changed, and did not change between this call
    /// and the last one: a file that is being written lacks a part of its content.
    fn check(&mut self) {
        let read = read(&self.paths);
        self.status.note_check(Instant::now());
        let seen = match &read {
            Ok(contents) => Ok(contents.clone()),
            Err(error) => Err(error.downcast_ref().map_or(io::ErrorKind::Other, io::Error::kind)),
        };
        let is_settled = seen == self.last_read;
        self.last_read = seen.clone();
        if seen == self.seen || !is_settled {
            return;
        }
        self.seen = seen;
        let names: Vec<_> = self.paths.iter().map(|path| path.display().to_string()).collect();
        let files = names.join(", ");
        match read.and_then(|contents| (self.apply)(&contents)) {
            Ok(what) => {
                tracing::info!(files, "re-read {what}");
                self.status.set(Ok(()));
            }
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::warn!(
                    files,
                    reason,
                    "cannot re-read files: the previous content stays in effect"
                );
                self.status
                    .set(Err(format!("the previous content of {files} stays in effect: {reason}")));
            }
        }
    }
}

fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Vec<u8>>> {
    let read =
        |path: &PathBuf| read_file(path).with_context(|| format!("cannot read {}", path.display()));
    paths.iter().map(read).collect()
}

/// Returns the content of a file without a byte order mark.
///
/// # Errors
/// Returns an error if the file cannot be read, is not a regular file, or is too
/// large. Reading a pipe would block until somebody writes to it.
pub(super) fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(
        std::fs::metadata(path)?.is_file(),
        "it is not a regular file, which can be read again when it changes"
    );
    let mut content = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    anyhow::ensure!(content.len() as u64 <= MAX_BYTES, "it is larger than {} MiB", MAX_BYTES >> 20);
    Ok(content.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(content))
}

/// All files that are re-read.
#[derive(Debug)]
pub(super) struct Reload(Vec<Watched>);

impl Reload {
    pub(super) fn new(watched: Vec<Watched>) -> Self {
        Self(watched)
    }

    /// Returns whether each group of files is in effect as it is.
    pub(super) fn statuses(&self) -> Vec<Arc<ReloadStatus>> {
        self.0.iter().map(|watched| Arc::clone(&watched.status)).collect()
    }

    /// Checks the files every `interval`, until `tick` returns `None`. A thread of
    /// its own, because a network file system can block a read for minutes.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub(super) fn start(
        mut self,
        interval: Duration,
        tick: impl Fn() -> Option<()> + Send + 'static,
    ) -> io::Result<()> {
        let work = move || {
            while tick().is_some() {
                std::thread::sleep(interval);
                for watched in &mut self.0 {
                    watched.check();
                }
            }
        };
        std::thread::Builder::new().name("reload".to_owned()).spawn(work).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::domain::health::PartState;

    #[test]
    fn a_change_is_applied_once_and_an_error_keeps_the_previous_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "a").unwrap();
        let (mut watched, contents) = Watched::open("keys", &[&path]).unwrap();
        assert_eq!(contents, [b"a"]);
        let applied = Arc::new(Mutex::new(Vec::new()));
        let target = Arc::clone(&applied);
        watched.on_change(move |contents| {
            anyhow::ensure!(contents[0] != b"bad", "it is bad");
            target.lock().unwrap().push(contents[0].clone());
            Ok("it".to_owned())
        });
        let state = |watched: &Watched| watched.status.health(Instant::now()).state;
        let steps: [(Option<&str>, bool); 7] = [
            (Some("a"), true),
            (Some("b"), true),
            (Some("b"), true),
            (Some("bad"), false),
            (None, false),
            (Some("bad"), false),
            (Some("b"), true),
        ];
        for (content, is_up) in steps {
            match content {
                Some(content) => std::fs::write(&path, content).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            watched.check();
            watched.check();
            match state(&watched) {
                PartState::Up => assert!(is_up, "{content:?}"),
                PartState::Warning(reason) => {
                    assert!(!is_up && reason.contains("stays in effect"), "{content:?}: {reason}");
                }
                PartState::Down(reason) => panic!("{reason}"),
            }
        }
        assert_eq!(*applied.lock().unwrap(), [b"b", b"b"]);
    }

    #[test]
    fn a_file_that_is_still_changing_is_not_applied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "old").unwrap();
        let (mut watched, _) = Watched::open("keys", &[&path]).unwrap();
        let applied = Arc::new(Mutex::new(Vec::new()));
        let target = Arc::clone(&applied);
        watched.on_change(move |contents| {
            target.lock().unwrap().push(contents[0].clone());
            Ok("it".to_owned())
        });
        for content in ["n", "ne", "new", "new", "new"] {
            std::fs::write(&path, content).unwrap();
            watched.check();
        }
        assert_eq!(*applied.lock().unwrap(), [b"new"]);
    }

    #[test]
    fn only_regular_files_of_a_limited_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "\u{feff}a").unwrap();
        assert_eq!(read_file(&path).unwrap(), b"a");
        File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(read_file(&path).unwrap_err().to_string(), "it is larger than 16 MiB");
        for path in ["/dev/zero", "/dev/null", "/"] {
            let error = read_file(Path::new(path)).unwrap_err().to_string();
            assert!(error.starts_with("it is not a regular file"), "{error}");
        }
    }
}
