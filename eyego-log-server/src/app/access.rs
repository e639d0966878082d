//! Builds the access rules from the configuration, and re-reads their files.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context as _;

use super::reload::{Reload, Watched};
use crate::application::access::{AddressLimits, Keys};
use crate::config::{AccessConfig, Config, Names};
use crate::domain::access::{EventLimit, Key, Rate};
use crate::infrastructure::keys_file;
use crate::interface::http::{Access, Tls};

/// How often files are checked for changes. Twice this, and the time to read
/// them, must stay below the 10 s in which a removed key is revoked.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Who may use the process.
pub(super) struct AccessParts {
    pub(super) access: Arc<Access>,
    pub(super) tls: Option<Tls>,
    pub(super) reload: Reload,
}

impl AccessParts {
    /// Reads the keys and the certificate.
    ///
    /// # Errors
    /// Returns an error that names the option, the file and what is wrong with it.
    pub(super) fn load(config: &Config) -> anyhow::Result<Self> {
        let mut watched = Vec::new();
        let keys = match &config.access.keys_file {
            Some(path) => {
                let (keys, file) = load_keys(path).context("EYEGO_KEYS_FILE")?;
                watched.push(file);
                Some(keys)
            }
            None => None,
        };
        let tls = match config.tls.files() {
            Some((certificate, key)) => {
                let (tls, files) = load_tls(certificate, key)
                    .context("EYEGO_TLS_CERT_FILE and EYEGO_TLS_KEY_FILE")?;
                watched.push(files);
                Some(tls)
            }
            None => None,
        };
        let names = |names: &Option<Names>| {
            names.as_ref().map(|names| names.as_slice().to_vec()).unwrap_or_default()
        };
        let access = Arc::new(Access::new(
            keys,
            address_limit(&config.access)?.map(AddressLimits::new),
            names(&config.access.hosts),
            &names(&config.access.cors_origins),
        ));
        let reload = Reload::new(watched);
        Ok(Self { access, tls, reload })
    }

    /// Starts to re-read the files when they change, until the process ends.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub(super) fn watch(reload: Reload, access: &Arc<Access>) -> anyhow::Result<()> {
        let access: Weak<Access> = Arc::downgrade(access);
        reload
            .start(CHECK_INTERVAL, move || access.upgrade().map(|access| access.tidy()))
            .context("cannot start the thread that re-reads files")
    }
}

/// Fails if `address` can be reached from other hosts, and neither keys nor
/// `EYEGO_AUTH=none` say who may use it.
pub(super) fn check_exposure(config: &AccessConfig, address: SocketAddr) -> anyhow::Result<()> {
    anyhow::ensure!(
        is_loopback(address) || config.is_decided(),
        "{address} is not a loopback address, so other hosts may reach it: set EYEGO_KEYS_FILE to \
         a keys file (`eyego-log-server keys new` creates entries), or EYEGO_AUTH=none to let every \
         caller do everything"
    );
    Ok(())
}

/// Returns whether only this host can reach `address`.
pub(super) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn address_limit(config: &AccessConfig) -> anyhow::Result<Option<EventLimit>> {
    let Some(rate) = config.address_rate else { return Ok(None) };
    let rate = Rate::new(rate)
        .with_context(|| format!("EYEGO_ADDRESS_RATE must be at most {}", Rate::MAX))?;
    let burst = config.address_burst.and_then(NonZeroU32::new);
    Ok(Some(EventLimit { rate, burst: burst.unwrap_or(rate.per_second()) }))
}

fn load_keys(path: &Path) -> anyhow::Result<(Arc<Keys>, Watched)> {
    let parse = |contents: &[Vec<u8>]| -> anyhow::Result<Vec<Key>> {
        let bytes = contents.first().map(Vec::as_slice).unwrap_or_default();
        Ok(keys_file::parse(bytes)?)
    };
    let (mut file, contents) = Watched::open("keys", &[path])?;
    let keys = parse(&contents).with_context(|| path.display().to_string())?;
    let keys = Arc::new(Keys::new(keys));
    let target = Arc::clone(&keys);
    file.on_change(move |contents| {
        let keys = parse(contents)?;
        let count = keys.len();
        target.replace(keys);
        Ok(format!("{count} keys"))
    });
    Ok((keys, file))
}

fn load_tls(certificate: &Path, key: &Path) -> anyhow::Result<(Tls, Watched)> {
    let (mut files, contents) = Watched::open("tls", &[certificate, key])?;
    let pair = |contents: &[Vec<u8>]| match contents {
        [certificate, key] => (certificate.clone(), key.clone()),
        _ => (Vec::new(), Vec::new()),
    };
    let (chain, private) = pair(&contents);
    let tls = Tls::new(&chain, &private)
        .with_context(|| format!("{}, {}", certificate.display(), key.display()))?;
    let target = tls.clone();
    files.on_change(move |contents| {
        let (chain, private) = pair(contents);
        target.replace(&chain, &private)?;
        Ok("the certificate".to_owned())
    });
    Ok((tls, files))
}
