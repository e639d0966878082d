//! Ports for the processes of the stack.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

/// Below the range that systems hand out to outgoing connections. A port from that range could
/// be taken by any client while a killed process waits for its restart; worse, a client that
/// keeps reconnecting to a dead port on the loopback can end up connected to itself.
const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;

/// A port of 127.0.0.1 that nobody listens on and that this process has not handed out before.
///
/// # Errors
/// When none is left.
pub(crate) fn free() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another process that asks at the same moment begins elsewhere.
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
    fn ports_are_handed_out_once() {
        let (one, other) = (super::free().unwrap(), super::free().unwrap());
        assert_ne!(one, other);
    }
}
