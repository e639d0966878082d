//! Detects that somebody deletes, replaces, truncates or overwrites an SQLite file
//! while it is open. SQLite would go on with the files that it has open, whose
//! content nobody finds after a restart.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Minimum time between two checks.
pub(in crate::infrastructure) const CHECK_INTERVAL: Duration = Duration::from_secs(2);

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 72;
const PAGE_COUNT_AT: usize = 28;
const APPLICATION_ID_AT: usize = 68;
const PAGE_BYTES: u64 = super::PAGE_BYTES as u64;

/// First bytes of a write-ahead log, without the bit for the byte order.
const LOG_MAGIC: u32 = 0x377f_0682;

/// The file and its companions as they were when the connection was opened.
#[derive(Debug)]
pub(super) struct FileWatch {
    path: PathBuf,
    /// Kept open. Closing it would release SQLite's locks on the file, which belong to
    /// the process, and an `sqlite3` shell would then delete the log when it ends.
    file: Arc<File>,
    application_id: i32,
    /// The companions that exist while the file is open, each with its identity.
    companions: Vec<(PathBuf, Identity)>,
    identity: Identity,
    bytes: u64,
    checked_at: Instant,
}

/// Device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

impl FileWatch {
    /// Starts to watch a file that has just been opened. `file` is that of an earlier
    /// watch of the same file.
    pub(super) fn start(
        path: &Path,
        application_id: i32,
        file: Option<Arc<File>>,
    ) -> std::io::Result<Self> {
        let file = match file {
            Some(file) => file,
            None => Arc::new(File::open(path)?),
        };
        let metadata = path.metadata()?;
        let mut companions = Vec::new();
        for suffix in ["-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            let companion = PathBuf::from(name);
            if let Ok(metadata) = companion.metadata() {
                companions.push((companion, Identity::from(&metadata)));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            application_id,
            companions,
            identity: Identity::from(&metadata),
            bytes: metadata.len(),
            checked_at: Instant::now(),
        })
    }

    /// Returns the open file, for the next watch of it.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Returns `true` if the last check was long enough ago.
    pub(super) fn is_due(&self) -> bool {
        self.checked_at.elapsed() >= CHECK_INTERVAL
    }

    /// Checks the file and its companions.
    ///
    /// # Errors
    /// Returns what has happened to the file.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.checked_at = Instant::now();
        self.check_file()?;
        for (path, identity) in &self.companions {
            check_identity(path, *identity)?;
            check_log(path)?;
        }
        Ok(())
    }

    /// Checks the file only, for example before it is opened again.
    ///
    /// # Errors
    /// Returns what has happened to the file.
    pub(super) fn check_file(&mut self) -> Result<(), String> {
        let metadata = check_identity(&self.path, self.identity)?;
        let path = self.path.display();
        let mut header = [0; HEADER_BYTES];
        let read = self.file.read_exact_at(&mut header, 0);
        if read.is_err() || !header.starts_with(MAGIC) {
            return Err(format!("{path} was overwritten"));
        }
        let number = |at: usize| {
            let bytes: [u8; 4] = header[at..at + 4].try_into().unwrap_or_default();
            u32::from_be_bytes(bytes)
        };
        if number(APPLICATION_ID_AT) != self.application_id.cast_unsigned() {
            return Err(format!("{path} was overwritten by another file"));
        }
        // VACUUM makes the file shorter, too, but then the header agrees.
        let expected = u64::from(number(PAGE_COUNT_AT)) * PAGE_BYTES;
        if metadata.len() < self.bytes && metadata.len() < expected {
            return Err(format!("{path} was truncated"));
        }
        self.bytes = metadata.len();
        Ok(())
    }
}

/// Returns the metadata of the file at `path` if it is still the same file.
pub(super) fn check_identity(path: &Path, identity: Identity) -> Result<Metadata, String> {
    match path.metadata() {
        Ok(metadata) if Identity::from(&metadata) == identity => Ok(metadata),
        Ok(_) => Err(format!("{} was replaced", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("{} was deleted", path.display()))
        }
        Err(error) => Err(format!("{} is not accessible: {error}", path.display())),
    }
}

/// Checks that a write-ahead log is empty or begins like one. SQLite has no locks on
/// it, so it can be opened and closed.
fn check_log(path: &Path) -> Result<(), String> {
    if !path.as_os_str().as_encoded_bytes().ends_with(b"-wal") {
        return Ok(());
    }
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    if read.is_ok() && u32::from_be_bytes(magic) & !1 != LOG_MAGIC {
        return Err(format!("{} was overwritten", path.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;
    use tempfile::TempDir;

    use super::*;

    fn open() -> (TempDir, PathBuf, Connection, FileWatch) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let file = Connection::open(&path).unwrap();
        file.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA application_id = 7; CREATE TABLE t(x);
             INSERT INTO t VALUES (randomblob(100000)); PRAGMA wal_checkpoint(TRUNCATE);",
        )
        .unwrap();
        let watch = FileWatch::start(&path, 7, None).unwrap();
        (dir, path, file, watch)
    }

    #[test]
    fn ordinary_work_is_not_reported() {
        let (_dir, _path, file, mut watch) = open();
        for sql in [
            "INSERT INTO t VALUES (randomblob(1000000))",
            "PRAGMA wal_checkpoint(PASSIVE)",
            "DELETE FROM t",
            "VACUUM",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "INSERT INTO t VALUES (1)",
        ] {
            file.execute_batch(sql).unwrap();
            assert_eq!(watch.check(), Ok(()), "{sql}");
        }
    }

    #[test]
    fn each_way_to_lose_the_file_is_reported() {
        type Change = fn(&Path);
        let changes: [(Change, &str); 8] = [
            (|path| std::fs::remove_file(path).unwrap(), "a.db was deleted"),
            (|path| std::fs::remove_dir_all(path.parent().unwrap()).unwrap(), "a.db was deleted"),
            (
                |path| {
                    let copy = path.with_extension("copy");
                    std::fs::copy(path, &copy).unwrap();
                    std::fs::rename(copy, path).unwrap();
                },
                "a.db was replaced",
            ),
            (|path| std::fs::write(path, "garbage").unwrap(), "a.db was overwritten"),
            (|path| std::fs::write(path, vec![b'x'; 1 << 20]).unwrap(), "a.db was overwritten"),
            (
                |path| File::options().write(true).open(path).unwrap().set_len(8192).unwrap(),
                "a.db was truncated",
            ),
            (
                |path| std::fs::remove_file(path.with_extension("db-wal")).unwrap(),
                "a.db-wal was deleted",
            ),
            (
                |path| std::fs::write(path.with_extension("db-wal"), "garbage").unwrap(),
                "a.db-wal was overwritten",
            ),
        ];
        for (change, expected) in changes {
            let (_dir, path, _file, mut watch) = open();
            change(&path);
            let reported = watch.check().unwrap_err();
            assert!(reported.ends_with(expected), "{reported}");
        }
    }
}
