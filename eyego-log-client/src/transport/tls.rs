//! The TLS options: which certificates are trusted, and the client's own.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::model::errors::ConfigError;
use crate::model::os_error::is_out_of_descriptors;
use crate::model::setup_error::SetupError;
use crate::transport::describe::error_chain;

/// The TLS options that refer to files.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsFiles {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) identity_file: Option<PathBuf>,
}

/// The greatest size of a file with certificates or a key, in bytes. Those of an
/// operating system's certificates are about 256 KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads a file that the option `option` names.
///
/// # Errors
/// Returns a [`SetupError`] if the file cannot be read, is not a regular file, or is
/// larger than 1 MiB.
pub(crate) fn read_file(option: &'static str, path: &Path) -> Result<Vec<u8>, SetupError> {
    read_regular_file(path).map_err(|error| {
        let problem = format!("{} cannot be read: {error}", path.display());
        if is_out_of_descriptors(&error) {
            SetupError::NoDescriptor(format!("{option} {problem}"))
        } else {
            SetupError::Config(ConfigError::new(option, problem))
        }
    })
}

fn read_regular_file(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe could block for ever, and a device may never end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut contents = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(contents)
}

/// Explains why the HTTP client could not be built. `can_build` tells whether it can be
/// with these files.
pub(crate) fn setup_error(
    error: &reqwest::Error,
    files: &TlsFiles,
    needs_tls: bool,
    can_build: impl Fn(&TlsFiles) -> bool,
) -> SetupError {
    let reason = error_chain(error);
    // The system's certificates cannot be read then, and the library hides that cause.
    if File::open(".").is_err_and(|error| is_out_of_descriptors(&error)) {
        return SetupError::NoDescriptor(format!("no file descriptor is free ({reason})"));
    }
    if let Some(path) = &files.identity_file
        && can_build(&TlsFiles { identity_file: None, ..files.clone() })
    {
        let problem = format!("{} cannot be used: {reason}", path.display());
        return SetupError::Config(ConfigError::new("identity_file", problem));
    }
    if let Some(path) = &files.ca_file
        && can_build(&TlsFiles { ca_file: None, ..files.clone() })
    {
        let problem = format!("{} cannot be used: {reason}", path.display());
        return SetupError::Config(ConfigError::new("ca_file", problem));
    }
    SetupError::Config(if needs_tls {
        let problem = format!(
            "is required because the system's certificates cannot be used ({reason}): \
             install ca-certificates or set ca_file"
        );
        ConfigError::new("ca_file", problem)
    } else {
        ConfigError::new("build", format!("cannot create the HTTP client: {reason}"))
    })
}

#[cfg(any(feature = "tls", feature = "native-tls"))]
pub(crate) use enabled::configure;

#[cfg(any(feature = "tls", feature = "native-tls"))]
mod enabled {
    use std::path::Path;

    use reqwest::{Certificate, ClientBuilder, Identity};

    use super::{TlsFiles, error_chain, read_file};
    use crate::model::errors::ConfigError;
    use crate::model::setup_error::SetupError;

    /// Sets the certificates. The system's are loaded only if TLS is needed,
    /// because that takes milliseconds and may fail.
    pub(crate) fn configure(
        builder: ClientBuilder,
        files: &TlsFiles,
        needs_tls: bool,
    ) -> Result<ClientBuilder, SetupError> {
        let extra = files.ca_file.as_deref().map(certificates).transpose()?.unwrap_or_default();
        let identity = files.identity_file.as_deref().map(identity).transpose()?;
        let builder = backend(builder);
        let builder =
            if needs_tls { builder.tls_certs_merge(extra) } else { builder.tls_certs_only(extra) };
        Ok(match identity {
            Some(identity) => builder.identity(identity),
            None => builder,
        })
    }

    fn certificates(path: &Path) -> Result<Vec<Certificate>, SetupError> {
        let pem = read_file("ca_file", path)?;
        let unusable = |reason: String| {
            let problem = format!("{} cannot be read: {reason}", path.display());
            SetupError::Config(ConfigError::new("ca_file", problem))
        };
        let certificates = Certificate::from_pem_bundle(&pem);
        let certificates = certificates.map_err(|error| unusable(error_chain(&error)))?;
        if certificates.is_empty() {
            return Err(unusable("it contains no certificate".to_owned()));
        }
        Ok(certificates)
    }

    fn identity(path: &Path) -> Result<Identity, SetupError> {
        let pem = read_file("identity_file", path)?;
        parse_identity(&pem).map_err(|error| {
            let problem = format!(
                "{}: expected a certificate and an unencrypted private key in PEM format: {}",
                path.display(),
                error_chain(&error)
            );
            SetupError::Config(ConfigError::new("identity_file", problem))
        })
    }

    #[cfg(feature = "tls")]
    fn backend(builder: ClientBuilder) -> ClientBuilder {
        builder.tls_backend_rustls()
    }

    #[cfg(feature = "tls")]
    fn parse_identity(pem: &[u8]) -> reqwest::Result<Identity> {
        Identity::from_pem(pem)
    }

    #[cfg(not(feature = "tls"))]
    fn backend(builder: ClientBuilder) -> ClientBuilder {
        builder.tls_backend_native()
    }

    /// The library wants the key apart from the certificates.
    #[cfg(not(feature = "tls"))]
    fn parse_identity(pem: &[u8]) -> reqwest::Result<Identity> {
        const BEGIN: &[u8] = b"-----BEGIN PRIVATE KEY-----";
        let at = pem.windows(BEGIN.len()).position(|part| part == BEGIN).unwrap_or(pem.len());
        Identity::from_pkcs8_pem(pem, &pem[at..])
    }
}

/// The crate features `tls` and `native-tls` are disabled.
#[cfg(not(any(feature = "tls", feature = "native-tls")))]
pub(crate) fn configure(
    builder: reqwest::ClientBuilder,
    files: &TlsFiles,
    needs_tls: bool,
) -> Result<reqwest::ClientBuilder, SetupError> {
    const NEEDS: &str = "needs the crate feature `tls` or `native-tls`";
    let error = |option, problem| Err(SetupError::Config(ConfigError::new(option, problem)));
    if needs_tls {
        return error("url", format!("begins with https://, which {NEEDS}"));
    }
    if files.ca_file.is_some() {
        return error("ca_file", NEEDS.to_owned());
    }
    if files.identity_file.is_some() {
        return error("identity_file", NEEDS.to_owned());
    }
    Ok(builder)
}
