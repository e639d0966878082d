//! Event ids: 12 bytes in the layout of MongoDB's `ObjectId`.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Timestamp;

/// Unique event id.
///
/// It is 24 hex digits on the wire and `_id` in the store. The first component
/// that accepts an event (the caller, the SDK or the server) assigns the id, and
/// it never changes, so storing an event twice is a no-op.
///
/// ```
/// use eyego_log_core::LogId;
///
/// let id: LogId = "69682d8d81847b87ab93264b".parse()?;
/// assert_eq!(id.to_string(), "69682d8d81847b87ab93264b");
/// assert!("69682d8d".parse::<LogId>().is_err());
/// # Ok::<(), eyego_log_core::ParseLogIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId([u8; 12]);

impl LogId {
    /// Creates an id from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// Returns the id as bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    /// Returns the id as 24 lower-case hex digits, without allocating.
    #[must_use]
    #[inline]
    pub fn to_hex(self) -> [u8; 24] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 24];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        hex
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Hex digits are ASCII, so this cannot fail.
        f.write_str(std::str::from_utf8(&self.to_hex()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}

/// The error of parsing a [`LogId`] from text that is not 24 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 24 hex digits")]
pub struct ParseLogIdError;

impl FromStr for LogId {
    type Err = ParseLogIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 24 {
            return Err(ParseLogIdError);
        }
        let mut bytes = [0; 12];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

fn hex_digit(digit: u8) -> Result<u8, ParseLogIdError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(ParseLogIdError),
    }
}

impl Serialize for LogId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hex = self.to_hex();
        serializer.serialize_str(std::str::from_utf8(&hex).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for LogId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Generates ids that are strictly ascending within one generator and unique
/// across generators, processes and machines.
///
/// The layout is that of an `ObjectId`: 4 bytes of seconds, 5 bytes that are
/// random per generator, 3 bytes of a counter. If the clock steps back, or more
/// than 16,777,216 ids are generated within a second, the counter overflows into
/// the seconds, so the order still holds.
///
/// ```
/// use eyego_log_core::{LogIdGenerator, Timestamp};
///
/// let ids = LogIdGenerator::new();
/// let now = Timestamp::from_millis(1_768_435_085_442).unwrap();
/// assert!(ids.generate(now) < ids.generate(now));
/// ```
#[derive(Debug)]
pub struct LogIdGenerator {
    random: [u8; 5],
    /// `seconds << 24 | counter` of the last id.
    last: AtomicU64,
}

impl LogIdGenerator {
    /// Creates a generator whose random part comes from the operating system.
    ///
    /// # Panics
    /// Panics if the operating system has no random numbers.
    #[must_use]
    pub fn new() -> Self {
        // Two generators with the same random part would produce the same ids,
        // and the second event of an id is dropped. A seed from the clock is
        // therefore not good enough.
        let mut random = [0; 5];
        #[expect(clippy::expect_used, reason = "without randomness, ids would not be unique")]
        getrandom::fill(&mut random).expect("the operating system provides random numbers");
        Self { random, last: AtomicU64::new(0) }
    }

    /// Generates the next id at the time `now`.
    #[inline]
    pub fn generate(&self, now: Timestamp) -> LogId {
        let seconds = u64::try_from(now.as_millis() / 1000).unwrap_or(0) & 0xffff_ffff;
        let earliest = seconds << 24;
        let mut last = self.last.load(Ordering::Relaxed);
        let next = loop {
            let next = earliest.max(last + 1);
            // Relaxed suffices: no other memory depends on this value.
            match self.last.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => break next,
                Err(current) => last = current,
            }
        };
        let [_, s1, s2, s3, s4, c1, c2, c3] = next.to_be_bytes();
        let [r1, r2, r3, r4, r5] = self.random;
        // `next` has 56 bits: its first byte is zero until the year 2106.
        LogId([s1, s2, s3, s4, r1, r2, r3, r4, r5, c1, c2, c3])
    }
}

impl Default for LogIdGenerator {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    #[test]
    fn ids_start_with_the_seconds_of_their_generation() {
        let id = LogIdGenerator::new().generate(at(0x6968_2d8d * 1000 + 999));
        assert!(id.to_string().starts_with("69682d8d"));
    }

    #[test]
    fn ids_are_unique_across_threads_and_ascend_within_each() {
        let ids = LogIdGenerator::new();
        let generated: Vec<Vec<LogId>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|n| {
                    let ids = &ids;
                    scope
                        .spawn(move || (0..10_000).map(|i| ids.generate(at(n * 500 + i))).collect())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for ids in &generated {
            assert!(ids.is_sorted_by(|a, b| a < b));
        }
        let distinct: HashSet<_> = generated.iter().flatten().collect();
        assert_eq!(distinct.len(), 80_000);
    }

    #[test]
    fn two_generators_differ_within_the_same_second() {
        assert_ne!(LogIdGenerator::new().generate(at(0)), LogIdGenerator::new().generate(at(0)));
    }

    proptest! {
        #[test]
        fn ids_ascend_even_if_the_clock_steps_back(clock in prop::collection::vec(0i64..4_000_000_000_000, 1..100)) {
            let ids = LogIdGenerator::new();
            let generated: Vec<_> = clock.into_iter().map(|millis| ids.generate(at(millis))).collect();
            prop_assert!(generated.is_sorted_by(|a, b| a < b));
        }

        #[test]
        fn ids_round_trip_as_text(bytes: [u8; 12]) {
            let id = LogId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<LogId>().unwrap(), id);
            prop_assert_eq!(id.to_string().to_uppercase().parse::<LogId>().unwrap(), id);
        }

        #[test]
        fn only_24_hex_digits_parse(text in "\\PC{0,30}") {
            let hex = text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit());
            prop_assert_eq!(text.parse::<LogId>().is_ok(), hex);
        }
    }
}
