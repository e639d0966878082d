//! The `Host` check. A page whose DNS name is rebound to this server's address
//! sends its own name as `Host` and no `Origin`, so this is the only defence of a
//! server without keys.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::Request;
use http::header::HOST;
use http::uri::Authority;

use crate::interface::http::error::shortened;

/// The names under which this server may be addressed, in lower case.
/// `localhost` and IP addresses are always among them: no page can have them as
/// a rebound name.
#[derive(Debug)]
pub(super) struct Hosts(Vec<String>);

impl Hosts {
    pub(super) fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Checks the host of a request: that of the URI, if it has one, and `Host`.
    ///
    /// # Errors
    /// Returns the reason if a host is not allowed, or if there is none.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), String> {
        let mut is_given = false;
        if let Some(authority) = request.uri().authority() {
            self.check_host(authority.host())?;
            is_given = true;
        }
        for value in request.headers().get_all(HOST) {
            let host = value.to_str().ok().and_then(host_of);
            match host {
                Some(host) => self.check_host(host)?,
                None => return Err("the Host header is malformed".to_owned()),
            }
            is_given = true;
        }
        if is_given { Ok(()) } else { Err("the request has no Host header".to_owned()) }
    }

    fn check_host(&self, host: &str) -> Result<(), String> {
        let is_allowed = host.eq_ignore_ascii_case("localhost")
            || is_address(host)
            || self.0.iter().any(|name| host.eq_ignore_ascii_case(name));
        if is_allowed {
            return Ok(());
        }
        Err(format!(
            "this server is not `{}`: address it by a listed name (EYEGO_HOSTS), as localhost, or \
             by its IP address",
            shortened(host)
        ))
    }
}

/// Returns the host of a `Host` header without its port. The brackets of an IPv6
/// address stay.
pub(super) fn host_of(value: &str) -> Option<&str> {
    // An authority may have user information, which `Host` must not.
    if value.contains('@') {
        return None;
    }
    value.parse::<Authority>().ok()?;
    let end = match value.rfind(']') {
        Some(bracket) => bracket + 1,
        None => value.find(':').unwrap_or(value.len()),
    };
    value.get(..end)
}

fn is_address(host: &str) -> bool {
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    v6.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok()) || host.parse::<Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(hosts: &[&str], uri: &str, values: &[&str]) -> bool {
        let names: Vec<_> = hosts.iter().map(|&name| name.to_owned()).collect();
        let mut request = Request::builder().uri(uri);
        for value in values {
            request = request.header(HOST, *value);
        }
        Hosts::new(&names).check(&request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn localhost_addresses_and_listed_names_are_allowed() {
        for host in [
            "localhost",
            "LOCALHOST:3000",
            "127.0.0.1",
            "127.0.0.1:3000",
            "[::1]:3000",
            "10.1.2.3",
            "logs.example",
            "Logs.Example:443",
        ] {
            assert!(check(&["logs.example"], "/", &[host]), "{host}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "localhost@evil.example",
            "evil.example@localhost",
            "[::1",
            "a b",
            "logs.example.",
            "[evil]",
            "127.1",
            "2130706433",
        ] {
            assert!(!check(&["logs.example"], "/", &[host]), "{host}");
        }
        assert!(!check(&[], "/", &[]), "no host");
        assert!(!check(&[], "/", &["localhost", "evil.example"]), "two hosts");
        assert!(!check(&[], "http://evil.example/", &["localhost"]), "absolute form");
        assert!(check(&[], "http://localhost/", &["localhost:3000"]));
    }

    proptest! {
        /// Whatever surrounds it, a name that is not listed is never allowed.
        #[test]
        fn a_foreign_name_is_never_allowed(
            host in "[a-z]{1,8}\\.example", port in prop::option::of(any::<u16>()),
        ) {
            let value = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
            prop_assert!(!check(&["logs.test"], "/", &[&value]));
            prop_assert!(check(&[&host], "/", &[&value]));
        }

        #[test]
        fn any_value_is_parsed_or_refused(value in "\\PC{0,40}") {
            let _ = host_of(&value);
        }
    }
}
