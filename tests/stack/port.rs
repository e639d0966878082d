//! Ports for the processes of the stack.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

/// Below the range that systems assign to outgoing connections. A client could take a port from
/// that range while a killed process waits for its restart, and a client that keeps reconnecting
/// to a closed port on the loopback interface can end up connected to itself.
const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;

/// Returns a port of 127.0.0.1 that is free and that this process has not returned before.
///
/// # Errors
/// Returns an error if no port is left.
pub(crate) fn free() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that ask at the same moment begin at different ports.
    let start = u128::from(std::process::id()) * 7_919
        + SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos() / 1_000);
    for _ in 0..COUNT {
        let first = u16::try_from(start % u128::from(COUNT)).unwrap_or_default();
        let _ = NEXT.compare_exchange(0, first + 1, Ordering::Relaxed, Ordering::Relaxed);
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_port_is_returned_once() {
        let (one, other) = (super::free().unwrap(), super::free().unwrap());
        assert_ne!(one, other);
    }
}
