//! Asks a running server whether it is ready: for container health checks,
//! where there is no curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::Context;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Succeeds if the server that listens at `address` is ready.
///
/// # Errors
/// It is not, or there is none.
pub fn ready(address: &str) -> anyhow::Result<()> {
    let listening = address
        .to_socket_addrs()
        .with_context(|| format!("{address} is no address"))?
        .next()
        .with_context(|| format!("{address} is no address"))?;
    let address = reachable(listening);
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("no server listens at {address}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /health/ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("the server does not answer")?;
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or(answer.as_str(), |(_, body)| body);
    anyhow::bail!("not ready: {body}")
}

/// A server that listens on every address is asked on the loopback one.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr = if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        address.set_ip(loopback);
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_every_address_is_asked_on_the_loopback_one() {
        let ask = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(ask("0.0.0.0:3000"), "127.0.0.1:3000");
        assert_eq!(ask("[::]:3000"), "[::1]:3000");
        assert_eq!(ask("10.0.0.1:3000"), "10.0.0.1:3000");
    }
}
