//! What an operator asks of a running server, from the same binary: whether it
//! is ready, and what became of its dead letters. Over HTTP, in a few lines:
//! where the server runs there may be no other client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::Context;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::config::{DeadLettersCommand, ListArgs, ReplayArgs};

/// A health check wants to know at once.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// A replay works for up to 20 s, and counts what is left.
const WORK_TIMEOUT: Duration = Duration::from_secs(60);

const DEAD_LETTERS: &str = "/api/v1/dead-letters";

/// Succeeds if the server that listens at `address` is ready.
///
/// # Errors
/// It is not, or there is none.
pub fn ready(address: &str) -> anyhow::Result<()> {
    let (status, body) = ask(address, "GET", "/health/ready", "", PROBE_TIMEOUT)?;
    anyhow::ensure!(status == 200, "not ready: {body}");
    Ok(())
}

/// Has the server that listens at `address` do this; answers its answer, for
/// people and programs.
///
/// # Errors
/// It says why not, or there is none.
pub fn dead_letters(address: &str, command: &DeadLettersCommand) -> anyhow::Result<String> {
    let (method, path, body) = match command {
        DeadLettersCommand::List(list) => ("GET", format!("{DEAD_LETTERS}{}", query(list)), None),
        DeadLettersCommand::Show { id } => {
            ("GET", format!("{DEAD_LETTERS}/{}", utf8_percent_encode(id, NON_ALPHANUMERIC)), None)
        }
        DeadLettersCommand::Replay(which) => {
            ("POST", format!("{DEAD_LETTERS}/replay"), Some(selection(which)))
        }
    };
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let (status, answer) = ask(address, method, &path, &body, WORK_TIMEOUT)?;
    let answer: Value =
        serde_json::from_str(&answer).with_context(|| format!("no JSON: {answer}"))?;
    if status == 200 {
        return Ok(serde_json::to_string_pretty(&answer)?);
    }
    let message = answer["message"].as_str().unwrap_or("no reason given");
    anyhow::bail!("the server answers {status}: {message}")
}

fn query(list: &ListArgs) -> String {
    let ListArgs { code, from, to, limit, cursor } = list;
    let limit = limit.map(|limit| limit.to_string());
    let parameters =
        [("code", code), ("from", from), ("to", to), ("limit", &limit), ("cursor", cursor)];
    let said: Vec<_> = parameters
        .into_iter()
        .filter_map(|(name, value)| {
            let value = utf8_percent_encode(value.as_deref()?, NON_ALPHANUMERIC);
            Some(format!("{name}={value}"))
        })
        .collect();
    if said.is_empty() { String::new() } else { format!("?{}", said.join("&")) }
}

fn selection(which: &ReplayArgs) -> Value {
    match which {
        ReplayArgs { id: Some(id), .. } => json!({ "id": id }),
        ReplayArgs { code: Some(code), .. } => json!({ "code": code }),
        ReplayArgs { all, .. } => json!({ "all": all }),
    }
}

/// One request and its answer: the status and the body.
fn ask(
    address: &str,
    method: &str,
    path: &str,
    body: &str,
    timeout: Duration,
) -> anyhow::Result<(u16, String)> {
    let listening = address
        .to_socket_addrs()
        .with_context(|| format!("{address} is no address"))?
        .next()
        .with_context(|| format!("{address} is no address"))?;
    let address = reachable(listening);
    let mut stream = TcpStream::connect_timeout(&address, PROBE_TIMEOUT)
        .with_context(|| format!("no server listens at {address}"))?;
    stream.set_read_timeout(Some(timeout))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("the server does not answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the server's answer is not HTTP")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.context("the server's answer is not HTTP")?, body.to_owned()))
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
