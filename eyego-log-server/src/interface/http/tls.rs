//! TLS on a listening address. The certificate can be replaced while connections
//! are open.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Maximum time for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The protocol that the server speaks, for ALPN.
const HTTP_1_1: &[u8] = b"http/1.1";

/// Why a certificate and its key cannot be used. It does not quote the key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file is not a chain of PEM certificates.
    #[error("the certificate file is not PEM: {0}")]
    Certificate(pem::Error),
    /// The certificate file contains no certificate.
    #[error("the certificate file contains no certificate")]
    NoCertificate,
    /// The key file contains no private key.
    #[error("the key file contains no private key in PEM, or only an encrypted one")]
    Key,
    /// The key does not belong to the certificate, or is of an unknown kind.
    #[error("the certificate and the key cannot be used together: {0}")]
    Mismatch(rustls::Error),
}

/// The certificate of a server.
#[derive(Clone)]
pub struct Tls {
    config: Arc<RwLock<Arc<ServerConfig>>>,
    failed: Arc<AtomicU64>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Creates it from a certificate chain and its private key, both in PEM.
    ///
    /// # Errors
    /// Returns an error if they cannot be used.
    pub fn new(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let config = Arc::new(RwLock::new(config(certificate, key)?));
        Ok(Self { config, failed: Arc::default() })
    }

    /// Replaces certificate and key for new connections.
    ///
    /// # Errors
    /// Returns an error if they cannot be used. The previous ones stay.
    pub fn replace(&self, certificate: &[u8], key: &[u8]) -> Result<(), TlsError> {
        *self.config.write() = config(certificate, key)?;
        Ok(())
    }

    /// Returns the number of failed handshakes.
    #[must_use]
    pub fn failed_handshakes(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Does the handshake of a connection.
    ///
    /// # Errors
    /// Returns an error if it fails or takes longer than 10 s.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config.read()));
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
        let result = handshake.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

fn config(certificate: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(TlsError::Certificate)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(TlsError::Mismatch)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Mismatch)?;
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_files_are_refused_with_a_reason() {
        let error = |certificate: &str, key: &str| {
            Tls::new(certificate.as_bytes(), key.as_bytes()).unwrap_err().to_string()
        };
        let pair = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (first, second) = (pair(), pair());
        let (certificate, key) = (first.cert.pem(), first.signing_key.serialize_pem());
        assert!(error("", &key).contains("contains no certificate"));
        assert!(error(&key, &key).contains("contains no certificate"));
        assert!(error("-----BEGIN CERTIFICATE-----\nx\n", &key).contains("not PEM"));
        assert!(error(&certificate, &certificate).contains("no private key"));
        let mismatch = error(&certificate, &second.signing_key.serialize_pem());
        assert!(mismatch.contains("cannot be used together"), "{mismatch}");
        let tls = Tls::new(certificate.as_bytes(), key.as_bytes()).unwrap();
        assert!(tls.replace(certificate.as_bytes(), b"").is_err());
    }
}
