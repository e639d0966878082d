//! The API key: fixed, or from a file that is read again when it changes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use http::HeaderValue;

use crate::model::errors::ConfigError;
use crate::model::setup_error::SetupError;
use crate::transport::tls::read_file;

/// The source of the `authorization` header.
pub(crate) enum ApiKey {
    None,
    Fixed(HeaderValue),
    File(KeyFile),
}

pub(crate) struct KeyFile {
    path: PathBuf,
    loaded: Mutex<Loaded>,
}

#[derive(Default)]
struct Loaded {
    /// The last valid key.
    header: Option<HeaderValue>,
    /// The version of the file that was read last.
    version: Option<Version>,
    /// Why that version has no valid key.
    problem: Option<String>,
}

/// Changes whenever the file does.
#[derive(PartialEq, Eq)]
struct Version {
    modified: Option<SystemTime>,
    length: u64,
    /// The inode, and when it was changed in any way. A program that copies a file
    /// can give the copy the time at which the original was modified.
    inode: (u64, i64, i64),
}

/// The key for one attempt.
#[derive(Default)]
pub(crate) struct CurrentKey {
    pub(crate) header: Option<HeaderValue>,
    /// Why the file's present content cannot be used.
    pub(crate) problem: Option<String>,
}

impl ApiKey {
    /// # Errors
    /// Returns a [`ConfigError`] if the key contains other characters than
    /// visible ASCII.
    pub(crate) fn fixed(key: &str) -> Result<Self, ConfigError> {
        let header = header(key).map_err(|problem| ConfigError::new("api_key", problem))?;
        Ok(Self::Fixed(header))
    }

    /// Reads the key from a file, now and whenever the file changes.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] if the file cannot be read or contains no valid
    /// key. If the process has no free file descriptor, the file is read before
    /// the first attempt instead.
    pub(crate) fn from_file(path: PathBuf) -> Result<Self, ConfigError> {
        let mut loaded = Loaded::default();
        match read(&path) {
            Ok(header) => {
                loaded.version = version(&path);
                loaded.header = Some(header);
            }
            Err(SetupError::NoDescriptor(_)) => {}
            Err(SetupError::Config(error)) => return Err(error),
        }
        Ok(Self::File(KeyFile { path, loaded: Mutex::new(loaded) }))
    }

    /// Returns whether another attempt may have another key.
    pub(crate) fn can_change(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Returns the key for an attempt. If the file has changed and its content
    /// is not valid, this is the previous key.
    pub(crate) fn current(&self) -> CurrentKey {
        match self {
            Self::None => CurrentKey::default(),
            Self::Fixed(header) => CurrentKey { header: Some(header.clone()), problem: None },
            Self::File(file) => file.current(),
        }
    }
}

impl KeyFile {
    fn current(&self) -> CurrentKey {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let version = version(&self.path);
        if version.is_none() || version != loaded.version {
            loaded.problem = None;
            match read(&self.path) {
                Ok(header) => loaded.header = Some(header),
                Err(SetupError::Config(error)) => loaded.problem = Some(error.to_string()),
                Err(SetupError::NoDescriptor(problem)) => loaded.problem = Some(problem),
            }
            // A file that could not be read is read again next time.
            loaded.version = version.filter(|_| loaded.problem.is_none());
        }
        CurrentKey { header: loaded.header.clone(), problem: loaded.problem.clone() }
    }
}

fn version(path: &Path) -> Option<Version> {
    let metadata = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let inode = {
        use std::os::unix::fs::MetadataExt as _;

        (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
    };
    #[cfg(not(unix))]
    let inode = (0, 0, 0);
    Some(Version { modified: metadata.modified().ok(), length: metadata.len(), inode })
}

fn read(path: &Path) -> Result<HeaderValue, SetupError> {
    const OPTION: &str = "api_key_file";
    let contents = read_file(OPTION, path)?;
    let invalid = |problem| {
        let problem = format!("{}: the key {problem}", path.display());
        SetupError::Config(ConfigError::new(OPTION, problem))
    };
    let key = String::from_utf8(contents).map_err(|_| invalid(INVALID.to_owned()))?;
    header(&key).map_err(invalid)
}

const INVALID: &str = "must consist of visible ASCII characters without spaces";

fn header(key: &str) -> Result<HeaderValue, String> {
    let key = key.trim();
    if key.is_empty() {
        return Err("is empty".to_owned());
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(INVALID.to_owned());
    }
    let mut header =
        HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| INVALID.to_owned())?;
    // Hides the key in `Debug` output.
    header.set_sensitive(true);
    Ok(header)
}

impl fmt::Debug for ApiKey {
    /// Hides the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Fixed(_) => f.write_str("***"),
            Self::File(file) => f.debug_tuple("File").field(&file.path).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
    }

    fn text(key: &ApiKey) -> String {
        key.current().header.unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_key_file_is_read_again_when_it_changes() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("key");
        write(&path, "first\n");
        let key = ApiKey::from_file(path.clone()).unwrap();
        assert_eq!(text(&key), "Bearer first");
        write(&path, "the second");
        assert_eq!(text(&key), "Bearer first", "a key has no spaces");
        let problem = key.current().problem.unwrap();
        assert!(problem.contains("visible ASCII") && !problem.contains("second"), "{problem}");
        write(&path, "third-key");
        assert_eq!(text(&key), "Bearer third-key");
        assert!(key.current().problem.is_none());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text(&key), "Bearer third-key", "the previous key is kept");
        assert!(key.current().problem.unwrap().contains("cannot be read"));
    }

    #[cfg(unix)]
    #[test]
    fn a_replaced_file_is_read_whatever_its_length_and_time() {
        let dir = tempfile::TempDir::new().unwrap();
        let [path, new] = ["key", "new"].map(|name| dir.path().join(name));
        let time = SystemTime::UNIX_EPOCH;
        let write_at = |path: &Path, text| {
            write(path, text);
            std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        };
        write_at(&path, "first");
        let key = ApiKey::from_file(path.clone()).unwrap();
        write_at(&new, "other");
        std::fs::rename(&new, &path).unwrap();
        assert_eq!(text(&key), "Bearer other");
    }

    #[test]
    fn a_key_file_without_end_is_refused() {
        let dir = tempfile::TempDir::new().unwrap();
        let large = dir.path().join("large");
        write(&large, &"k".repeat((1 << 20) + 1));
        for (path, expected) in
            [(large, "it is larger than 1 MiB"), (dir.path().into(), "it is not a regular file")]
        {
            let error = ApiKey::from_file(path).unwrap_err();
            assert!(error.to_string().ends_with(expected), "{error}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = ApiKey::fixed("secret").unwrap();
        let header = key.current().header;
        assert!(!format!("{key:?} {header:?}").contains("secret"));
        let error = ApiKey::fixed("secret with spaces").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
