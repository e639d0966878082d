//! TLS: a client verifies the chain, and the certificate is replaced under load.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore};
use stack::eventually;
use stack::server::{Server, ServerBuilder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::refused_start;
use crate::fixture::TIMEOUT;

/// A certificate authority, and the files of a server.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, dir: tempfile::tempdir().unwrap() };
        authority.issue();
        authority
    }

    /// Writes a new certificate and its key, one file after the other.
    fn issue(&self) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["logs.example".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.certificate_file(), certificate.pem()).unwrap();
        std::fs::write(self.key_file(), key.serialize_pem()).unwrap();
        certificate.der().clone()
    }

    fn certificate_file(&self) -> impl AsRef<Path> + AsRef<std::ffi::OsStr> + use<> {
        self.dir.path().join("tls.crt")
    }

    fn key_file(&self) -> impl AsRef<Path> + AsRef<std::ffi::OsStr> + use<> {
        self.dir.path().join("tls.key")
    }

    fn server(&self) -> ServerBuilder {
        Server::builder()
            .env("EYEGO_TLS_CERT_FILE", self.certificate_file())
            .env("EYEGO_TLS_KEY_FILE", self.key_file())
    }

    /// Starts a server with TLS, and waits until it listens.
    async fn start(&self) -> Server {
        let server = self.server().launch().await.unwrap();
        eventually("the server to respond over TLS", TIMEOUT, async || {
            let mut connection = connect(server.address(), &self.client(&[])).await?;
            get(&mut connection, "/health/ready").await
        })
        .await
        .unwrap();
        server
    }

    /// Returns a client that trusts only this authority.
    fn client(&self, protocols: &[&[u8]]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

async fn connect(address: SocketAddr, client: &TlsConnector) -> Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("logs.example")?;
    Ok(client.connect(name, TcpStream::connect(address).await?).await?)
}

/// Sends a request on an open connection. An error if the response is not 200.
async fn get(connection: &mut TlsStream<TcpStream>, path: &str) -> Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut received = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let read = connection.read(&mut buffer).await?;
        ensure!(read > 0, "closed after {:?}", String::from_utf8_lossy(&received));
        received.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&received);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("no content-length")?.parse()?;
        if body.len() >= length {
            ensure!(head.starts_with("HTTP/1.1 200 "), "{text}");
            return Ok(());
        }
    }
}

fn certificate_of(connection: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    connection.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn a_client_verifies_the_chain() {
    let authority = Authority::new();
    let server = authority.start().await;
    let connection = connect(server.address(), &authority.client(&[b"h2", b"http/1.1"])).await;
    let mut connection = connection.unwrap();
    let (_, session) = connection.get_ref();
    assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    get(&mut connection, "/health/ready").await.unwrap();

    let stranger = Authority::new().client(&[]);
    assert!(connect(server.address(), &stranger).await.is_err(), "another authority");
    let http_2 = authority.client(&[b"h2"]);
    assert!(connect(server.address(), &http_2).await.is_err(), "HTTP/2 only");
    let plain = reqwest::get(format!("{}/health/live", server.base_url())).await;
    assert!(plain.is_err(), "without TLS");

    let health = authority.server().port(server.port()).arg("health").launch().await.unwrap();
    let status = health.wait_exit(TIMEOUT).await.unwrap();
    assert!(status.success(), "{}", health.log());
    let other = Authority::new();
    let health = other.server().port(server.port()).arg("health").launch().await.unwrap();
    assert!(!health.wait_exit(TIMEOUT).await.unwrap().success(), "another certificate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_is_replaced_under_load_without_a_failed_request() {
    let authority = Authority::new();
    let server = authority.start().await;
    let client = authority.client(&[]);
    let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    // Some callers keep their connection, others open one for each request.
    let callers: Vec<_> = (0..4)
        .map(|number| {
            let (client, address) = (client.clone(), server.address());
            let (stop, requests) = (Arc::clone(&stop), Arc::clone(&requests));
            tokio::spawn(async move {
                let mut connection = connect(address, &client).await?;
                while !stop.load(Ordering::Relaxed) {
                    if number % 2 == 0 {
                        connection = connect(address, &client).await?;
                    }
                    get(&mut connection, "/health/live").await?;
                    requests.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for _ in 0..2 {
        let new = authority.issue();
        eventually("the new certificate", TIMEOUT, async || {
            let connection = connect(server.address(), &client).await?;
            ensure!(certificate_of(&connection) == new, "still the old one");
            Ok(())
        })
        .await
        .unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert!(requests.load(Ordering::Relaxed) > 100);

    std::fs::write(authority.key_file(), "not a key").unwrap();
    eventually("the warning in the log", TIMEOUT, async || {
        ensure!(server.log().contains("no private key"), "{}", server.log());
        Ok(())
    })
    .await
    .unwrap();
    let mut connection = connect(server.address(), &client).await.unwrap();
    get(&mut connection, "/health/ready").await.unwrap();
}

#[tokio::test]
async fn a_connection_without_a_handshake_is_closed() {
    let authority = Authority::new();
    let server = authority.start().await;
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(20), silent.read(&mut [0; 16])).await;
    assert_eq!(read.expect("still open").unwrap_or(0), 0);
}

#[tokio::test]
async fn tls_needs_both_files_and_a_key_that_fits() {
    let authority = Authority::new();
    let half = Server::builder().env("EYEGO_TLS_CERT_FILE", authority.certificate_file());
    assert!(refused_start(half).await.contains("EYEGO_TLS_KEY_FILE"));
    let key = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(authority.key_file(), &key).unwrap();
    let log = refused_start(authority.server()).await;
    assert!(log.contains("cannot be used together") && !log.contains("PRIVATE"), "{log}");
}
