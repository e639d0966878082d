//! Limits of events per second with a burst.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::domain::access::EventLimit;

/// Addresses whose recent events are remembered. Further addresses share one
/// limit until some have been idle.
const MAX_ADDRESSES: usize = 65_536;

/// Why events are not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// The limit is used up. The same events may pass after `retry_after`.
    Rate {
        /// Time until the events can be admitted.
        retry_after: Duration,
    },
    /// There are more events than the limit ever admits at once.
    Burst {
        /// Maximum number of events at once.
        burst: u32,
    },
}

/// Limits the events of one caller.
pub struct Limiter {
    limit: EventLimit,
    limiter: DefaultDirectRateLimiter,
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Limiter {
    /// Creates a limiter whose burst is available at once.
    #[must_use]
    pub fn new(limit: EventLimit) -> Self {
        Self { limit, limiter: RateLimiter::direct(quota(limit)) }
    }

    /// Returns the limit.
    #[must_use]
    pub fn limit(&self) -> EventLimit {
        self.limit
    }

    /// Admits all of these events, or none.
    ///
    /// # Errors
    /// Returns an error if the limit does not admit them now.
    pub fn charge(&self, events: usize) -> Result<(), Exceeded> {
        let Some(events) = count(events, self.limit)? else { return Ok(()) };
        match self.limiter.check_n(events) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(wait(until.wait_time_from(DefaultClock::default().now()))),
            Err(_) => Err(Exceeded::Burst { burst: self.limit.burst.get() }),
        }
    }
}

/// Limits the events of each connection address.
pub struct AddressLimits {
    limit: EventLimit,
    limiter: DefaultKeyedRateLimiter<IpAddr>,
}

impl fmt::Debug for AddressLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressLimits").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl AddressLimits {
    /// Creates the limits. Each address has the whole `limit`.
    #[must_use]
    pub fn new(limit: EventLimit) -> Self {
        Self { limit, limiter: RateLimiter::keyed(quota(limit)) }
    }

    /// Returns the limit of each address.
    #[must_use]
    pub fn limit(&self) -> EventLimit {
        self.limit
    }

    /// Admits all of these events from `address`, or none.
    ///
    /// # Errors
    /// Returns an error if the limit does not admit them now.
    pub fn charge(&self, address: IpAddr, events: usize) -> Result<(), Exceeded> {
        let Some(events) = count(events, self.limit)? else { return Ok(()) };
        match self.limiter.check_key_n(&self.place(address), events) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(wait(until.wait_time_from(DefaultClock::default().now()))),
            Err(_) => Err(Exceeded::Burst { burst: self.limit.burst.get() }),
        }
    }

    /// Forgets addresses whose burst is available again. To be called every few
    /// seconds.
    pub fn forget_idle(&self) {
        self.limiter.retain_recent();
    }

    /// Returns what is limited together with `address`: all addresses of its IPv6
    /// network, which one caller can own, and all addresses beyond
    /// [`MAX_ADDRESSES`].
    fn place(&self, address: IpAddr) -> IpAddr {
        if self.limiter.len() >= MAX_ADDRESSES {
            return IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        }
        match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
            v4 @ IpAddr::V4(_) => v4,
        }
    }
}

fn quota(limit: EventLimit) -> Quota {
    Quota::per_second(limit.rate.per_second()).allow_burst(limit.burst)
}

/// Returns the number of events to charge, `None` for nothing.
fn count(events: usize, limit: EventLimit) -> Result<Option<NonZeroU32>, Exceeded> {
    let events = u32::try_from(events).unwrap_or(u32::MAX);
    if events > limit.burst.get() {
        return Err(Exceeded::Burst { burst: limit.burst.get() });
    }
    Ok(NonZeroU32::new(events))
}

fn wait(retry_after: Duration) -> Exceeded {
    Exceeded::Rate { retry_after }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::access::Rate;

    fn limit(rate: u32, burst: u32) -> EventLimit {
        EventLimit { rate: Rate::new(rate).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
    }

    #[test]
    fn events_beyond_the_burst_wait() {
        let limiter = Limiter::new(limit(1, 5));
        assert_eq!(limiter.charge(0), Ok(()));
        assert_eq!(limiter.charge(6), Err(Exceeded::Burst { burst: 5 }));
        assert_eq!(limiter.charge(5), Ok(()));
        let Err(Exceeded::Rate { retry_after }) = limiter.charge(2) else { panic!("admitted") };
        assert!(retry_after > Duration::from_secs(1) && retry_after <= Duration::from_secs(2));
    }

    #[test]
    fn addresses_have_limits_of_their_own() {
        let limits = AddressLimits::new(limit(1, 2));
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(limits.charge(address("10.0.0.1"), 2), Ok(()));
        assert!(limits.charge(address("10.0.0.1"), 1).is_err());
        assert!(limits.charge(address("::ffff:10.0.0.1"), 1).is_err(), "the same address");
        assert_eq!(limits.charge(address("10.0.0.2"), 2), Ok(()));
        assert_eq!(limits.charge(address("2001:db8::1"), 2), Ok(()));
        assert!(limits.charge(address("2001:db8::2"), 1).is_err(), "the same network");
        assert_eq!(limits.charge(address("2001:db8:0:1::1"), 2), Ok(()));
    }

    #[test]
    fn many_addresses_use_bounded_memory() {
        let limits = AddressLimits::new(limit(1, 1));
        for number in 0..MAX_ADDRESSES as u32 + 1000 {
            let _ = limits.charge(IpAddr::V4(number.into()), 1);
        }
        assert!(limits.limiter.len() <= MAX_ADDRESSES + 1);
    }

    proptest! {
        /// With a rate of one event per second, a burst is all that a test's time
        /// admits, give or take one event.
        #[test]
        fn no_more_than_the_burst_is_admitted_at_once(
            burst in 1_u32..50,
            charges in prop::collection::vec(0_usize..60, 0..40),
        ) {
            let limiter = Limiter::new(limit(1, burst));
            let mut admitted = 0;
            for events in charges {
                let left = burst as usize - admitted.min(burst as usize);
                match limiter.charge(events) {
                    Ok(()) => admitted += events,
                    Err(Exceeded::Burst { .. }) => prop_assert!(events > burst as usize),
                    Err(Exceeded::Rate { .. }) => prop_assert!(events > left),
                }
            }
            prop_assert!(admitted <= burst as usize + 1);
        }
    }
}
