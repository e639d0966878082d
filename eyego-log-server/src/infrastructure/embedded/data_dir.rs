//! The data directory of the embedded parts, locked for one process.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::EmbeddedError;
use super::file_watch::check_identity;

const LOCK: &str = "lock";

/// The directory of the embedded parts, locked for this process.
///
/// The lock is released when the last clone is dropped, or when the process
/// ends for any reason.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: File,
}

impl DataDir {
    /// Locks the directory for this process. Creates it if it does not exist.
    ///
    /// # Errors
    /// Returns an error if the directory cannot be created or written, or if
    /// another process has locked it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Arc<Self>, EmbeddedError> {
        let path = path.into();
        let lock = Self::prepare(&path)
            .map_err(|source| EmbeddedError::Directory { path: path.clone(), source })?;
        match lock.try_lock() {
            Ok(()) => Ok(Arc::new(Self { path, lock })),
            Err(TryLockError::WouldBlock) => Err(EmbeddedError::InUse { path }),
            Err(TryLockError::Error(source)) => Err(EmbeddedError::Directory { path, source }),
        }
    }

    fn prepare(path: &Path) -> std::io::Result<File> {
        if !path.is_dir() {
            std::fs::create_dir_all(path)?;
            // A durable file is lost if the directory that contains it is not
            // durable. (The parent of a relative path without `/` is `.`.)
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        File::options().create(true).truncate(false).write(true).open(path.join(LOCK))
    }

    /// Checks that the lock still keeps other processes out.
    ///
    /// # Errors
    /// Returns what has happened to the file of the lock.
    pub(super) fn check(&self) -> Result<(), String> {
        let lock = self.lock.metadata().map_err(|error| error.to_string())?;
        check_identity(&self.path.join(LOCK), (&lock).into()).map(drop)
    }

    /// Returns the path of the file with this name.
    pub(in crate::infrastructure) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("does/not/exist");
        let first = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(error.contains("stop that process"), "{error}");
        drop(first);
        DataDir::open(&path).unwrap();
    }
}
