//! Creates and checks entries of the keys file, for the command line.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Context as _;
use eyego_log_core::Timestamp;

use super::reload::read_file;
use crate::application::access::{generate_token, hash_token};
use crate::domain::access::{EventLimit, Key};
use crate::infrastructure::keys_file;

/// A new key as it is to be entered. `scopes`, `rate` and `expires` have the form
/// that they have in the keys file.
#[derive(Debug, Clone)]
pub struct NewKey<'a> {
    /// Name of the key.
    pub id: &'a str,
    /// What it allows.
    pub scopes: &'a [String],
    /// Events per second, such as `5000/s`.
    pub rate: Option<&'a str>,
    /// Events at once; requires `rate`.
    pub burst: Option<std::num::NonZeroU32>,
    /// Requests at the same time.
    pub concurrent: Option<std::num::NonZeroU32>,
    /// When it expires.
    pub expires: Option<&'a str>,
}

/// Creates a token and the entry of its key. The entry does not contain the token.
///
/// # Errors
/// Returns an error if a field is invalid, or if the operating system provides no
/// random numbers.
pub fn create(new: &NewKey<'_>) -> anyhow::Result<(String, String)> {
    anyhow::ensure!(
        Key::is_valid_id(new.id),
        "--id: expected 1 to 64 letters, digits, `-`, `_` or `.`"
    );
    let scopes = new.scopes.iter().map(|scope| scope.parse().map_err(anyhow::Error::msg));
    let scopes: Vec<_> = scopes.collect::<anyhow::Result<_>>().context("--scope")?;
    let rate = new.rate.map(|rate| rate.parse().map_err(anyhow::Error::msg));
    let rate: Option<crate::domain::access::Rate> = rate.transpose().context("--rate")?;
    let events = match (rate, new.burst) {
        (None, Some(_)) => anyhow::bail!("--burst has no effect without --rate"),
        (rate, burst) => {
            rate.map(|rate| EventLimit { rate, burst: burst.unwrap_or(rate.per_second()) })
        }
    };
    let expires = new.expires.map(str::parse::<Timestamp>).transpose().context("--expires")?;
    let now = Timestamp::from(SystemTime::now());
    anyhow::ensure!(expires.is_none_or(|time| time > now), "--expires: the time has passed");
    let token = generate_token(new.id).context("cannot generate a token")?;
    let key = Key {
        id: new.id.to_owned(),
        hash: hash_token(&token),
        scopes,
        events,
        concurrent: new.concurrent,
        expires,
    };
    Ok((token, keys_file::entry(&key)))
}

/// Checks a keys file. Returns a line about each key.
///
/// # Errors
/// Returns an error that names the file, the line, the entry and the field.
pub fn check(path: &Path) -> anyhow::Result<Vec<String>> {
    let name = || path.display().to_string();
    let keys = keys_file::parse(&read_file(path).with_context(name)?).with_context(name)?;
    let now = Timestamp::from(SystemTime::now());
    let describe = |key: &Key| {
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.name()).collect();
        let rate = key.events.map(|limit| format!(", {}, burst {}", limit.rate, limit.burst));
        let expires = key.expires.map(|time| {
            let verb = if key.is_expired(now) { "expired" } else { "expires" };
            format!(", {verb} {time}")
        });
        let (rate, expires) = (rate.unwrap_or_default(), expires.unwrap_or_default());
        format!("{}: {}{rate}{expires}", key.id, scopes.join(", "))
    };
    Ok(keys.iter().map(describe).collect())
}
