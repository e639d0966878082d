//! Options of access: keys, TLS, browsers, and a separate address for operations.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::value::{non_empty, number};
use super::{ConfigError, invalid_option};

/// Keys, browsers and the address for operations.
#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Access")]
pub struct AccessConfig {
    /// File with the keys of callers. Every route except `/health/*` then requires
    /// a token. The file is read again when it changes [default: none]
    #[arg(long, env = "EYEGO_KEYS_FILE", value_name = "FILE")]
    pub keys_file: Option<PathBuf>,

    /// `none` lets every caller do everything on an address that is not a loopback
    /// address. Without it, such an address requires `keys-file` [default: not set]
    #[arg(long, env = "EYEGO_AUTH", value_enum)]
    pub auth: Option<Auth>,

    /// Names under which the server may be addressed, separated by commas. Requests
    /// with another `Host` get 421; `localhost` and IP addresses are always allowed.
    /// Without it, names are checked only on a loopback address without keys
    /// [default: none]
    #[arg(long, env = "EYEGO_HOSTS", value_name = "NAMES", value_parser = hosts)]
    pub hosts: Option<Names>,

    /// Origins whose pages may use the API from a browser (CORS), separated by
    /// commas, such as `https://app.example` [default: none]
    #[arg(long, env = "EYEGO_CORS_ORIGINS", value_name = "ORIGINS", value_parser = origins)]
    pub cors_origins: Option<Names>,

    /// Maximum number of events per second from one connection address. Only
    /// without keys; behind a proxy, all callers have the address of the proxy
    /// [default: no limit]
    #[arg(
        long,
        env = "EYEGO_ADDRESS_RATE",
        value_name = "COUNT",
        value_parser = number::<u32>(1)
    )]
    pub address_rate: Option<u32>,

    /// Events that one connection address may send at once; larger batches get 413
    /// [default: one second's worth of `address-rate`]
    #[arg(
        long,
        env = "EYEGO_ADDRESS_BURST",
        value_name = "COUNT",
        value_parser = number::<u32>(1)
    )]
    pub address_burst: Option<u32>,

    /// Address and port for `/metrics` and `/health/*`, which `listen` then does not
    /// serve. A worker then listens only here [default: none]
    #[arg(
        long,
        env = "EYEGO_OPERATIONS_LISTEN",
        value_name = "ADDRESS",
        value_parser = non_empty
    )]
    pub operations_listen: Option<String>,
}

/// TLS for callers.
#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "TLS")]
pub struct TlsConfig {
    /// File with the certificate chain of the server in PEM. All addresses then
    /// expect TLS. Both files are read again when they change [default: none]
    #[arg(long, env = "EYEGO_TLS_CERT_FILE", value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,

    /// File with the private key of the certificate in PEM [default: none]
    #[arg(long, env = "EYEGO_TLS_KEY_FILE", value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,
}

/// How callers are recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Not at all: every caller may do everything.
    None,
}

/// A list of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl Names {
    /// Returns the names.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl AccessConfig {
    pub(super) fn validate(&self, listen: &str) -> Result<(), ConfigError> {
        if self.auth.is_some() && self.keys_file.is_some() {
            return invalid_option(
                "EYEGO_AUTH",
                "EYEGO_AUTH=none contradicts EYEGO_KEYS_FILE: give only one of them",
            );
        }
        if self.address_rate.is_some() && self.keys_file.is_some() {
            return invalid_option(
                "EYEGO_ADDRESS_RATE",
                "EYEGO_ADDRESS_RATE limits callers without keys: with EYEGO_KEYS_FILE, set `rate` \
                 in the entries of the keys file instead",
            );
        }
        if self.address_burst.is_some() && self.address_rate.is_none() {
            return invalid_option(
                "EYEGO_ADDRESS_BURST",
                "EYEGO_ADDRESS_BURST has no effect without EYEGO_ADDRESS_RATE",
            );
        }
        if self.operations_listen.as_deref() == Some(listen) {
            return invalid_option(
                "EYEGO_OPERATIONS_LISTEN",
                "EYEGO_OPERATIONS_LISTEN must differ from EYEGO_LISTEN",
            );
        }
        Ok(())
    }

    /// Returns whether keys decide what a caller may do, or `EYEGO_AUTH=none` says
    /// that nothing does.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        self.keys_file.is_some() || self.auth.is_some()
    }
}

impl TlsConfig {
    /// Returns the files of the certificate and of its key, if TLS is on.
    #[must_use]
    pub fn files(&self) -> Option<(&PathBuf, &PathBuf)> {
        self.tls_cert_file.as_ref().zip(self.tls_key_file.as_ref())
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let missing = match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(_), None) => "EYEGO_TLS_KEY_FILE",
            (None, Some(_)) => "EYEGO_TLS_CERT_FILE",
            _ => return Ok(()),
        };
        let message = format!("TLS requires {missing} as well: the certificate and its key");
        invalid_option(missing, &message)
    }
}

fn names(text: &str, check: impl Fn(&str) -> bool, expected: &str) -> Result<Names, String> {
    let names: Vec<_> =
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    match names.iter().find(|name| !check(name)) {
        Some(name) => Err(format!("expected {expected}, not `{name}`")),
        None if names.is_empty() => Err(format!("expected {expected}")),
        None => Ok(Names(names)),
    }
}

fn hosts(text: &str) -> Result<Names, String> {
    let is_host = |name: &str| {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        name.chars().all(is_allowed) && name.parse::<IpAddr>().is_err()
    };
    names(text, is_host, "host names without scheme and port, separated by commas")
}

fn origins(text: &str) -> Result<Names, String> {
    let is_origin = |name: &str| {
        let authority = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://"));
        authority.is_some_and(|authority| {
            let is_allowed =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_:[]".contains(c);
            !authority.is_empty() && authority.chars().all(is_allowed)
        })
    };
    let expected = "origins such as https://app.example or http://localhost:8080, in lower case and \
                    without a path, separated by commas";
    names(text, is_origin, expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_and_origins_are_checked() {
        let names = hosts("logs.example, api_1 ,").unwrap();
        assert_eq!(names.as_slice(), ["logs.example", "api_1"]);
        for text in ["", ",", "http://logs.example", "logs.example:3000", "10.0.0.1", "*", "a b"] {
            assert!(hosts(text).is_err(), "{text}");
        }
        let names = origins("https://app.example,http://localhost:8080").unwrap();
        assert_eq!(names.as_slice().len(), 2);
        for text in [
            "",
            "*",
            "null",
            "app.example",
            "https://",
            "https://app.example/",
            "https://App.example",
            "ftp://app.example",
        ] {
            let error = origins(text).unwrap_err();
            assert!(error.starts_with("expected origins such as"), "{text}: {error}");
        }
    }
}
