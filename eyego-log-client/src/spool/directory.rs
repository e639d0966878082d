//! The spool directory: its lock, and the names and permissions of its files.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The name of the lock file.
pub(super) const LOCK: &str = "lock";

/// The extension of the file names.
const EXTENSION: &str = "spool";

/// Creates the directory and opens the file to lock.
pub(super) fn open_lock_file(dir: &Path) -> io::Result<File> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)?;
    private().create(true).truncate(false).write(true).open(dir.join(LOCK))
}

/// Creates a file that only this user can read. Its content is appended.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    private().append(true).create_new(true).open(path)
}

fn private() -> fs::OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Returns the path of a spool file.
pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.{EXTENSION}"))
}

/// Lists the spool files, oldest first. Other files are ignored.
pub(super) fn spool_files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let number_of = |path: PathBuf| {
        let number: u64 = path.file_stem()?.to_str()?.parse().ok()?;
        // The next file has the next number.
        (number < u64::MAX / 2).then_some((number, path))
    };
    let files = files_with_extension(dir, OsStr::new(EXTENSION))?;
    let mut files: Vec<_> = files.into_iter().filter_map(number_of).collect();
    files.sort_unstable();
    Ok(files)
}

/// Lists the files whose names have this extension.
pub(super) fn files_with_extension(dir: &Path, extension: &OsStr) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension() == Some(extension) {
            files.push(path);
        }
    }
    Ok(files)
}

/// Makes the name of a new file durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Returns whether a file exists, as far as that can be determined.
pub(super) fn exists(path: &Path) -> bool {
    let is_missing = |error: io::Error| {
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    };
    !fs::metadata(path).is_err_and(is_missing)
}

/// Returns whether an open file was deleted, or moved away from its path.
pub(super) fn is_deleted(file: &File, path: &Path) -> bool {
    has_no_name(file) || !exists(path)
}

#[cfg(unix)]
fn has_no_name(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
}

#[cfg(not(unix))]
fn has_no_name(_: &File) -> bool {
    false
}
