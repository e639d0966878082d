//! A minimal HTTP client for commands that talk to a running server on the same
//! host. It reads responses with a known length only, which is all the server
//! sends for these routes.

mod tls;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Status code and body of a response.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: String,
}

/// The server that a command talks to.
pub(super) struct Target {
    /// Its address.
    pub(super) address: String,
    /// Its certificate, if it expects TLS.
    pub(super) certificate: Option<PathBuf>,
    /// The token to send.
    pub(super) token: Option<String>,
}

impl Target {
    /// Sends a request with a JSON body and returns the response. `timeout` applies
    /// to each read.
    ///
    /// # Errors
    /// Returns an error if the address is invalid, no server accepts the
    /// connection, or it does not send an HTTP response in time.
    pub(super) fn request(
        &self,
        method: &str,
        path: &str,
        body: &str,
        timeout: Duration,
    ) -> anyhow::Result<Response> {
        let address = &self.address;
        let listening = address
            .to_socket_addrs()
            .with_context(|| format!("invalid address: {address}"))?
            .next()
            .with_context(|| format!("{address} does not resolve to an address"))?;
        let address = reachable(listening);
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
            .with_context(|| format!("no server listens at {address}"))?;
        stream.set_read_timeout(Some(timeout))?;
        let token = self.token.as_ref().map(|token| format!("authorization: Bearer {token}\r\n"));
        let (token, length) = (token.unwrap_or_default(), body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{token}\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        match &self.certificate {
            Some(file) => exchange(tls::connect(stream, address, file)?, &request),
            None => exchange(stream, &request),
        }
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> anyhow::Result<Response> {
    stream.write_all(request.as_bytes()).context("the server does not take the request")?;
    stream.flush()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).context("the server does not respond")?;
    let (head, body) = response.split_once("\r\n\r\n").context("the response is not valid HTTP")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Response {
        status: status.context("the response is not valid HTTP")?,
        body: body.to_owned(),
    })
}

/// Replaces the unspecified address by the loopback address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_address_becomes_loopback() {
        let reachable = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reachable("0.0.0.0:3000"), "127.0.0.1:3000");
        assert_eq!(reachable("[::]:3000"), "[::1]:3000");
        assert_eq!(reachable("10.0.0.1:3000"), "10.0.0.1:3000");
    }
}
