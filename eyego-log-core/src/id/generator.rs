//! Generation of ids that ascend and cannot be guessed.

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};

use super::LogId;
use crate::Timestamp;

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
    /// The second of the latest ids, or [`STARTING`].
    second: AtomicU64,
    /// The last 64 bits of the latest id of that second.
    tail: AtomicU64,
    /// Held while a second starts. Seeds the steps of threads if the operating
    /// system cannot.
    random: Mutex<ChaCha8Rng>,
}

/// The value of [`LogIdGenerator::second`] while `tail` belongs to no second.
const STARTING: u64 = u64::MAX;

/// A second ends early when its tail reaches this value. The distance to the
/// maximum is larger than the sum of the steps that can be added meanwhile.
const LAST_TAIL: u64 = u64::MAX - (1 << 56);

thread_local! {
    /// The steps of this thread's ids.
    static STEPS: RefCell<Steps> = const { RefCell::new(Steps { second: STARTING, random: None }) };
}

struct Steps {
    /// The second in which `random` was seeded.
    second: u64,
    /// Computes 64 words at a time, without allocating.
    random: Option<ChaCha8Rng>,
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
        let mut random = seeded().expect("the operating system provides random numbers");
        Self {
            second: AtomicU64::new(0),
            tail: AtomicU64::new(first_tail(&mut random)),
            random: Mutex::new(random),
        }
    }

    /// Generates the next id at the time `now`.
    #[inline]
    pub fn generate(&self, now: Timestamp) -> LogId {
        let now = now.as_millis().div_euclid(1000).clamp(0, i64::from(u32::MAX)).cast_unsigned();
        loop {
            let second = self.second.load(Ordering::Acquire);
            if second == STARTING || second < now {
                self.start(now);
                continue;
            }
            let step = self.step(second);
            let tail = self.tail.fetch_add(step, Ordering::AcqRel) + step;
            // The tail may be that of a later second by now. Then this load
            // returns another value, because `start` stores `STARTING` before it
            // stores the tail, and seconds never repeat.
            if self.second.load(Ordering::Acquire) != second {
                continue;
            }
            if tail > LAST_TAIL {
                // Takes 2^30 ids at least, so only after the clock stepped back
                // for long.
                self.start(second + 1);
                continue;
            }
            // Seconds beyond 2^32 exist only after the last of them is used up.
            return id(u32::try_from(second).unwrap_or(u32::MAX), tail);
        }
    }

    /// Starts the second `second`, unless it or a later one has started already.
    #[cold]
    fn start(&self, second: u64) {
        let mut random = self.random();
        if self.second.load(Ordering::Acquire) >= second {
            return;
        }
        // Without a new seed, the numbers of the old one are as good.
        if let Ok(seeded) = seeded() {
            *random = seeded;
        }
        self.second.store(STARTING, Ordering::Release);
        self.tail.store(first_tail(&mut random), Ordering::Release);
        self.second.store(second, Ordering::Release);
    }

    /// Returns the distance to the next id of `second`: a random number that is not 0.
    #[inline]
    fn step(&self, second: u64) -> u64 {
        let step = STEPS.try_with(|steps| {
            let mut steps = steps.borrow_mut();
            if steps.second != second {
                *steps = Steps { second, random: Some(self.seed_for_thread()) };
            }
            steps.random.as_mut().map_or(1, Rng::next_u32)
        });
        // This fails in destructors of a thread that ends.
        u64::from(step.unwrap_or_else(|_| self.random().next_u32()).max(1))
    }

    /// Locks the random numbers of this generator. A panic cannot leave them invalid.
    fn random(&self) -> MutexGuard<'_, ChaCha8Rng> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn seed_for_thread(&self) -> ChaCha8Rng {
        seeded().unwrap_or_else(|_| ChaCha8Rng::from_rng(&mut *self.random()))
    }
}

fn id(second: u32, tail: u64) -> LogId {
    let [_, _, _, _, id @ ..] = (u128::from(second) << 64 | u128::from(tail)).to_be_bytes();
    LogId::from_bytes(id)
}

/// Returns a random number below 2^63, which leaves room to grow.
fn first_tail(random: &mut ChaCha8Rng) -> u64 {
    random.next_u64() >> 1
}

fn seeded() -> Result<ChaCha8Rng, getrandom::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(ChaCha8Rng::from_seed(seed))
}

impl fmt::Debug for LogIdGenerator {
    /// Does not show the state, from which the next id can be guessed.
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
    use std::sync::atomic::AtomicI64;

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
    fn ids_ascend_in_each_thread_while_others_start_new_seconds() {
        let ids = LogIdGenerator::new();
        let clock = AtomicI64::new(0);
        let generated: Vec<Vec<LogId>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let next = || ids.generate(at(clock.fetch_add(250, Ordering::Relaxed)));
                    scope.spawn(move || (0..10_000).map(|_| next()).collect())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for ids in &generated {
            assert!(ids.is_sorted_by(|a, b| a < b));
        }
        let distinct: HashSet<_> = generated.iter().flatten().collect();
        assert_eq!(distinct.len(), 40_000);
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
        let ids = LogIdGenerator::new();
        let first = ids.generate(at(7000));
        ids.tail.store(LAST_TAIL, Ordering::Relaxed);
        let second = ids.generate(at(7000));
        assert!(first < second);
        assert_eq!(second.as_bytes()[..4], 8_u32.to_be_bytes());
        assert!(second < ids.generate(at(7000)), "although the clock has not reached that second");
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
    }
}
