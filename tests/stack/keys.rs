//! Keys files for servers under test.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use eyego_log_server::app::keys::{NewKey, create};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::scratch::Scratch;

/// A keys file. It is removed when this is dropped.
#[derive(Debug)]
pub struct KeysFile {
    scratch: Scratch,
    entries: Mutex<Vec<(String, String)>>,
}

impl KeysFile {
    /// Creates the file, without keys.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn new() -> Result<Self> {
        let keys = Self { scratch: Scratch::new("keys")?, entries: Mutex::default() };
        keys.write(&[])?;
        Ok(keys)
    }

    /// Returns the path of the file, for `EYEGO_KEYS_FILE`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.scratch.path().join("keys.toml")
    }

    /// Adds a key with these scopes, and returns its token.
    ///
    /// # Errors
    /// Returns an error if a scope does not exist or the file cannot be written.
    pub fn add(&self, id: &str, scopes: &[&str]) -> Result<String> {
        self.add_with(id, scopes, "")
    }

    /// Adds a key with further fields, as lines of its entry.
    ///
    /// # Errors
    /// Returns an error if a scope does not exist or the file cannot be written.
    pub fn add_with(&self, id: &str, scopes: &[&str], fields: &str) -> Result<String> {
        let scopes: Vec<_> = scopes.iter().map(|&scope| scope.to_owned()).collect();
        let (token, entry) = create(&NewKey {
            id,
            scopes: &scopes,
            rate: None,
            burst: None,
            concurrent: None,
            expires: None,
        })?;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push((id.to_owned(), format!("{entry}{fields}\n")));
        self.write(&entries)?;
        Ok(token)
    }

    /// Removes the key with this id.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn remove(&self, id: &str) -> Result<()> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|(key, _)| key != id);
        self.write(&entries)
    }

    /// Writes the file in one step.
    fn write(&self, entries: &[(String, String)]) -> Result<()> {
        let text: String = entries.iter().map(|(_, entry)| entry.as_str()).collect();
        let new = self.scratch.path().join("keys.new");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(new, self.path())?)
    }
}

/// Returns an HTTP client that sends this token with each request.
///
/// # Errors
/// Returns an error if the token is not visible ASCII.
pub fn client_with(token: Option<&str>, timeout: Duration) -> Result<reqwest::Client> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}"))?);
    }
    Ok(reqwest::Client::builder().default_headers(headers).timeout(timeout).build()?)
}
