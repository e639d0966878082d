//! Event ids: 12 bytes in the layout of MongoDB's `ObjectId`.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};
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

/// Generates ids that are strictly ascending within one generator, unique across
/// generators, processes and machines, and that cannot be guessed from other ids.
///
/// An id begins with 4 bytes of seconds. The other 64 bits begin at a random
/// number in each second and grow by a random 32-bit step with each id. If the
/// clock steps back, the ids stay in the latest second, so the order still holds.
///
/// The random numbers are those of `ChaCha8`, which the operating system seeds
/// anew in each second. A process that was forked within a second can therefore
/// repeat the ids of its parent until that second ends.
///
/// ```
/// use eyego_log_core::{LogIdGenerator, Timestamp};
///
/// let ids = LogIdGenerator::new();
/// let now = Timestamp::from_millis(1_768_435_085_442).unwrap();
/// assert!(ids.generate(now) < ids.generate(now));
/// ```
pub struct LogIdGenerator {
    state: Mutex<State>,
}

/// The last id, and the source of the next.
struct State {
    seconds: u32,
    /// The last 64 bits of the id.
    tail: u64,
    /// Computes 64 words at a time, without allocating.
    random: ChaCha8Rng,
}

impl LogIdGenerator {
    /// Creates a generator that the operating system seeds.
    ///
    /// # Panics
    /// Panics if the operating system has no random numbers.
    #[must_use]
    pub fn new() -> Self {
        // Two generators with the same seed would produce the same ids, and the
        // second event of an id is dropped. A seed from the clock is therefore
        // not good enough.
        #[expect(clippy::expect_used, reason = "without randomness, ids would not be unique")]
        let random = seeded().expect("the operating system provides random numbers");
        Self { state: Mutex::new(State::new(random)) }
    }

    /// Generates the next id at the time `now`.
    #[inline]
    pub fn generate(&self, now: Timestamp) -> LogId {
        let seconds = now.as_millis().div_euclid(1000).max(0);
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        // A panic cannot leave the state invalid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner).next(seconds)
    }
}

impl State {
    fn new(random: ChaCha8Rng) -> Self {
        let mut state = Self { seconds: 0, tail: 0, random };
        state.start(0);
        state
    }

    fn next(&mut self, seconds: u32) -> LogId {
        if seconds > self.seconds {
            self.start(seconds);
        } else {
            let step = u64::from(self.random.next_u32().max(1));
            match self.tail.checked_add(step) {
                Some(tail) => self.tail = tail,
                // Takes 2^31 ids at least, so only after the clock stepped back
                // for long.
                None => self.start(self.seconds.saturating_add(1)),
            }
        }
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.seconds.to_be_bytes());
        id[4..].copy_from_slice(&self.tail.to_be_bytes());
        LogId(id)
    }

    /// Starts a second at a random number below 2^63, which leaves room to grow.
    #[cold]
    fn start(&mut self, seconds: u32) {
        // Without a new seed, the numbers of the old one are as good.
        if let Ok(random) = seeded() {
            self.random = random;
        }
        self.seconds = seconds;
        self.tail = self.random.next_u64() >> 1;
    }
}

fn seeded() -> Result<ChaCha8Rng, getrandom::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(ChaCha8Rng::from_seed(seed))
}

impl fmt::Debug for LogIdGenerator {
    /// Does not show the state, from which the next id can be computed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogIdGenerator").finish_non_exhaustive()
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

    fn tail(id: LogId) -> u64 {
        u64::from_be_bytes(id.as_bytes()[4..].try_into().unwrap())
    }

    #[test]
    fn each_second_starts_at_a_random_number_below_2_to_63() {
        let ids = LogIdGenerator::new();
        let starts: HashSet<_> =
            (1..1000).map(|second| tail(ids.generate(at(second * 1000)))).collect();
        assert_eq!(starts.len(), 999);
        assert!(starts.iter().all(|start| start >> 63 == 0));
        // Each of the other bits is set in some and clear in others.
        assert_eq!(starts.iter().fold(0, |any, start| any | start), u64::MAX >> 1);
        assert_eq!(starts.iter().fold(u64::MAX, |all, start| all & start), 0);
    }

    #[test]
    fn ids_grow_by_random_32_bit_steps_within_a_second() {
        let ids = LogIdGenerator::new();
        let tails: Vec<_> = (0..10_000).map(|_| tail(ids.generate(at(1000)))).collect();
        let steps: HashSet<_> = tails.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.len() > 9_900, "hardly any step occurs twice: {}", steps.len());
        assert!(steps.iter().all(|step| (1..1 << 32).contains(step)));
        let mean = steps.iter().sum::<u64>() / steps.len() as u64;
        assert!((1 << 30..3 << 30).contains(&mean), "{mean}");
    }

    #[test]
    fn the_ids_of_a_second_that_is_used_up_continue_in_the_next() {
        let mut state = State::new(seeded().unwrap());
        let first = state.next(7);
        state.tail = u64::MAX;
        let second = state.next(7);
        assert!(first < second);
        assert_eq!(second.as_bytes()[..4], 8_u32.to_be_bytes());
        assert!(second < state.next(7), "although the clock has not reached that second");
    }

    #[test]
    fn times_outside_the_range_of_the_seconds_do_not_panic() {
        let ids = LogIdGenerator::new();
        let early = ids.generate(Timestamp::MIN);
        let late = ids.generate(Timestamp::MAX);
        assert!(early < late && late < ids.generate(Timestamp::MAX));
    }

    #[test]
    fn the_state_is_not_shown() {
        assert_eq!(format!("{:?}", LogIdGenerator::new()), "LogIdGenerator { .. }");
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
