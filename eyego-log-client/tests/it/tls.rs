//! `https://`: which certificates the client trusts, and its error messages.

use std::path::{Path, PathBuf};
#[cfg(feature = "tls")]
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use eyego_log_client::transport::http;
use eyego_log_client::{Client, Event, LossReason, SendError};
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{WantsServerCert, WebPkiClientVerifier};
use rustls::{ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};
use tempfile::TempDir;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::eventually::TIMEOUT;
use crate::server::{FakeServer, accepted, quick};

const RESPONSE: &[u8] = b"HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: 28\r\n\r\n\
    {\"accepted\":1,\"rejected\":[]}";

/// A certificate authority for tests.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes the certificate to a file in `dir`.
    fn file(&self, dir: &Path) -> PathBuf {
        let path = dir.join("ca.pem");
        std::fs::write(&path, &self.pem).unwrap();
        path
    }

    /// Issues a certificate for a name.
    fn issue(&self, name: &str) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Returns the settings of a server for `localhost`. `verify` decides which
    /// clients are accepted.
    fn server_config(
        &self,
        verify: impl FnOnce(
            ConfigBuilder<ServerConfig, WantsVerifier>,
        ) -> ConfigBuilder<ServerConfig, WantsServerCert>,
    ) -> ServerConfig {
        let (certificate, key) = self.issue("localhost");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap();
        verify(config).with_single_cert(vec![certificate.der().clone()], key).unwrap()
    }

    /// Starts a server for `localhost` with a certificate of this authority that
    /// accepts one event per request. Returns its port.
    async fn serve(&self) -> u16 {
        self.serve_with(ConfigBuilder::<ServerConfig, WantsVerifier>::with_no_client_auth).await
    }

    /// Like `serve`, but `verify` decides which clients are accepted.
    async fn serve_with(
        &self,
        verify: impl FnOnce(
            ConfigBuilder<ServerConfig, WantsVerifier>,
        ) -> ConfigBuilder<ServerConfig, WantsServerCert>,
    ) -> u16 {
        let config = self.server_config(verify);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                // A client that does not trust the certificate aborts.
                let Ok(mut stream) = acceptor.accept(socket).await else { continue };
                read_request(&mut stream).await;
                let _ = stream.write_all(RESPONSE).await;
                let _ = stream.shutdown().await;
            }
        });
        port
    }
}

async fn read_request(stream: impl AsyncRead + Unpin) {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
    }
    stream.read_exact(&mut vec![0; length]).await.unwrap();
}

async fn send(client: &Client) -> Result<(), (LossReason, String)> {
    match client.send(Event::new("a", "A")).await {
        Ok(_) => Ok(()),
        Err(SendError::Lost { reason, message, .. }) => Err((reason, message)),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_authority_in_ca_file_is_trusted() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("trusted"));
    let url = format!("https://localhost:{}", authority.serve().await);
    let client = quick(&url).ca_file(authority.file(dir.path())).build().unwrap();
    send(&client).await.unwrap();
    assert_eq!(client.stats().delivered, 1);
    assert!(CryptoProvider::get_default().is_none(), "the client must not install a provider");
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn an_untrusted_certificate_is_rejected_with_a_clear_message() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("trusted"));
    let port = authority.serve().await;
    let other = Authority::new("untrusted").file(dir.path());
    let client = quick(&format!("https://localhost:{port}")).ca_file(&other);
    let client = client.delivery_timeout(Duration::ZERO).build().unwrap();
    let (reason, message) = send(&client).await.unwrap_err();
    assert_eq!(reason, LossReason::Expired);
    assert!(message.contains("invalid peer certificate: UnknownIssuer"), "{message}");

    // The authority is trusted, but the name does not match.
    let client = quick(&format!("https://127.0.0.1:{port}")).ca_file(authority.file(dir.path()));
    let client = client.delivery_timeout(Duration::ZERO).build().unwrap();
    let (_, message) = send(&client).await.unwrap_err();
    assert!(message.contains("not valid for name"), "{message}");

    // The server does not use TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = socket.read(&mut [0; 1024]).await;
    });
    let client = quick(&url).ca_file(&other).delivery_timeout(Duration::ZERO).build().unwrap();
    assert!(send(&client).await.is_err());
}

/// The server offers HTTP/2 only and reads how the connection begins.
#[tokio::test]
async fn http_2_is_used_where_the_server_offers_it() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("trusted"));
    let no_auth = ConfigBuilder::<ServerConfig, WantsVerifier>::with_no_client_auth;
    let mut config = authority.server_config(no_auth);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let client = quick(&url).ca_file(authority.file(dir.path())).build().unwrap();
    client.log(Event::new("a", "A")).unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let mut stream = TlsAcceptor::from(Arc::new(config)).accept(socket).await.unwrap();
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    drop(stream);
    let _ = client.shutdown_within(Duration::ZERO).await;
}

/// Accepts HTTP/2 connections, and refuses the first streams.
async fn serve_http_2(
    authority: &Authority,
    refusals: usize,
) -> (u16, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let no_auth = ConfigBuilder::<ServerConfig, WantsVerifier>::with_no_client_auth;
    let mut config = authority.server_config(no_auth);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (connections, streams) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (connected, opened) = (Arc::clone(&connections), Arc::clone(&streams));
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            connected.fetch_add(1, Ordering::SeqCst);
            let (acceptor, opened) = (acceptor.clone(), Arc::clone(&opened));
            tokio::spawn(async move {
                let stream = acceptor.accept(socket).await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_request, mut respond))) = connection.accept().await {
                    if opened.fetch_add(1, Ordering::SeqCst) < refusals {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                        continue;
                    }
                    let response = http::Response::builder().status(202).body(()).unwrap();
                    let body = r#"{"accepted":1,"rejected":[]}"#.into();
                    respond.send_response(response, false).unwrap().send_data(body, true).unwrap();
                }
            });
        }
    });
    (port, connections, streams)
}

/// The HTTP library would send such a request again by itself, at once.
#[tokio::test]
async fn each_request_that_an_http_2_server_refuses_is_counted() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("trusted"));
    let (port, _, streams) = serve_http_2(&authority, 5).await;
    let url = format!("https://localhost:{port}");
    let client = quick(&url).ca_file(authority.file(dir.path())).build().unwrap();
    send(&client).await.unwrap();
    let stats = client.stats();
    assert_eq!((stats.requests, stats.failed_requests), (6, 5));
    assert_eq!(streams.load(Ordering::SeqCst), 6);
}

/// Forwards connections. After the switch is set, nothing arrives any more on those that
/// exist, as if a firewall had forgotten them.
async fn proxy(target: u16) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let cut = Arc::new(AtomicBool::new(false));
    let is_cut = Arc::clone(&cut);
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
            // A new connection works again.
            let is_cut =
                if is_cut.load(Ordering::SeqCst) { Arc::default() } else { is_cut.clone() };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(forward(from_client, to_server, Arc::clone(&is_cut)));
            tokio::spawn(forward(from_server, to_client, is_cut));
        }
    });
    (port, cut)
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, is_cut: Arc<AtomicBool>) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if !is_cut.load(Ordering::SeqCst) && to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_dead_http_2_connection_is_replaced() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("trusted"));
    let (port, connections, _) = serve_http_2(&authority, 0).await;
    let (port, cut) = proxy(port).await;
    let client = quick(&format!("https://localhost:{port}")).ca_file(authority.file(dir.path()));
    // The connection ends although no request times out.
    let timeout = Duration::from_secs(600);
    let client = client.request_timeout(timeout).delivery_timeout(timeout).build().unwrap();
    send(&client).await.unwrap();
    cut.store(true, Ordering::SeqCst);
    tokio::time::timeout(TIMEOUT, send(&client)).await.unwrap().unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_dead_http_1_connection_ends_with_its_request() {
    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let (port, cut) = proxy(server.server.address().port()).await;
    let client = quick(&format!("http://localhost:{port}"));
    let client = client.request_timeout(Duration::from_millis(500)).build().unwrap();
    send(&client).await.unwrap();
    cut.store(true, Ordering::SeqCst);
    send(&client).await.unwrap();
    assert!(client.stats().failed_requests <= 2, "{:?}", client.stats());
}

#[tokio::test]
async fn a_client_certificate_is_sent_to_a_server_that_requires_one() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("trusted"));
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(
        CertificateDer::pem_slice_iter(authority.pem.as_bytes()).map(Result::unwrap),
    );
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let port = authority.serve_with(|config| config.with_client_cert_verifier(verifier)).await;
    let url = format!("https://localhost:{port}");
    let ca = authority.file(dir.path());
    let without = quick(&url).ca_file(&ca).delivery_timeout(Duration::ZERO).build().unwrap();
    assert!(send(&without).await.is_err());

    let (certificate, key) = authority.issue("the client");
    let identity = dir.path().join("identity.pem");
    std::fs::write(&identity, certificate.pem() + &key.serialize_pem()).unwrap();
    let mismatch = dir.path().join("mismatch.pem");
    let other = KeyPair::generate().unwrap();
    std::fs::write(&mismatch, certificate.pem() + &other.serialize_pem()).unwrap();
    let error = quick(&url).ca_file(&ca).identity_file(&mismatch).build().unwrap_err();
    assert_eq!(error.option(), "identity_file", "{error}");
    assert!(error.to_string().contains("mismatch.pem"), "{error}");
    let damaged = dir.path().join("damaged.pem");
    let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(&damaged, text).unwrap();
    let error = quick(&url).ca_file(&damaged).build().unwrap_err();
    assert_eq!(error.option(), "ca_file", "{error}");
    assert!(error.to_string().contains("damaged.pem"), "{error}");
    let with = quick(&url).ca_file(&ca).identity_file(&identity).build().unwrap();
    send(&with).await.unwrap();
}

/// Runs a test of this binary as a separate program, with `file` as the system's
/// certificates.
#[cfg(feature = "tls")]
fn with_system_certificates(program: &str, file: &Path, own: &Path) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", &format!("tls::{program}")]);
    command.env("SSL_CERT_FILE", file).env_remove("SSL_CERT_DIR");
    command.env("EYEGO_TEST_CA", own).output().unwrap()
}

#[cfg(feature = "tls")]
#[tokio::test]
#[ignore = "a program that another test runs"]
async fn runs_where_no_certificates_are_installed() {
    let error = Client::builder("https://localhost").build().unwrap_err();
    assert_eq!(error.option(), "ca_file");
    assert!(error.to_string().contains("install ca-certificates"), "{error}");
    Client::builder("http://localhost").build().unwrap();

    // With `ca_file`, no system certificates are needed.
    let authority = Authority::new("trusted");
    let file = authority.file(Path::new(&std::env::var_os("EYEGO_TEST_CA").unwrap()));
    let url = format!("https://localhost:{}", authority.serve().await);
    let client = quick(&url).ca_file(file).build().unwrap();
    send(&client).await.unwrap();
}

#[cfg(all(feature = "tls", target_os = "linux"))]
#[test]
fn a_system_without_certificates_is_a_config_error() {
    let dir = TempDir::new().unwrap();
    let nothing = dir.path().join("nothing.pem");
    let output =
        with_system_certificates("runs_where_no_certificates_are_installed", &nothing, dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // An empty file has the same effect.
    std::fs::write(&nothing, "").unwrap();
    let output =
        with_system_certificates("runs_where_no_certificates_are_installed", &nothing, dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
