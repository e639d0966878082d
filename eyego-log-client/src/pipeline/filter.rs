//! Decides which valid events the program wants to log at all: none if the client
//! is disabled, those of some users, or what the program's own function lets pass.
//!
//! Events that are excluded here are counted, but not as accepted and not as
//! lost.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::model::draft::DraftEvent;

/// Called for each event before it is buffered; see
/// [`ClientBuilder::before_send`](crate::ClientBuilder::before_send).
pub(crate) type BeforeSend = Arc<dyn Fn(DraftEvent) -> Option<DraftEvent> + Send + Sync>;

/// The number of clients whose functions can log to one another.
const MAX_NESTED: usize = 8;

thread_local! {
    /// The functions that are running on this thread, as addresses, outermost first. It has
    /// no destructor, so that it exists while the thread ends.
    static RUNNING: Cell<[usize; MAX_NESTED]> = const { Cell::new([0; MAX_NESTED]) };
}

/// What [`Filter::review`] decides about an event.
#[derive(Debug, PartialEq)]
pub(crate) enum Review {
    /// Log the event as it is.
    Keep,
    Replace(Box<DraftEvent>),
    Drop,
    /// The function did not decide whether the event may be logged. The text is
    /// the reason.
    Failed(&'static str),
}

#[derive(Clone)]
pub(crate) struct Filter {
    pub(crate) is_disabled: bool,
    /// The share of users whose events are logged, from 0 to 1.
    pub(crate) sample_rate: f64,
    pub(crate) before_send: Option<BeforeSend>,
}

impl Filter {
    /// Returns whether events of this user are logged. The decision is the same in
    /// all processes.
    pub(crate) fn is_sampled(&self, user_id: &str) -> bool {
        self.sample_rate >= 1.0 || position_of(user_id) < self.sample_rate
    }

    /// Passes the event in `line` to the program's function. An event that the
    /// function itself logs is kept, because the function would call itself. The
    /// function of another client is called.
    pub(crate) fn review(&self, line: &[u8]) -> Review {
        let Some(hook) = &self.before_send else { return Review::Keep };
        let (address, outer) = (Arc::as_ptr(hook).addr(), RUNNING.get());
        if outer.contains(&address) {
            return Review::Keep;
        }
        let Some(free) = outer.iter().position(|running| *running == 0) else {
            return Review::Failed("before_send functions log to one another too deeply");
        };
        let Some(draft) = DraftEvent::from_line(line) else { return Review::Keep };
        let mut running = outer;
        running[free] = address;
        RUNNING.set(running);
        let result = catch_unwind(AssertUnwindSafe(|| hook(draft)));
        RUNNING.set(outer);
        match result {
            Ok(Some(draft)) => Review::Replace(Box::new(draft)),
            Ok(None) => Review::Drop,
            Err(_) => Review::Failed("before_send panicked"),
        }
    }
}

/// Maps a user to a number from 0 to 1, exclusive. It must never change: another
/// version of the program has to select the same users.
#[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
fn position_of(user_id: &str) -> f64 {
    // FNV-1a, followed by the finalizer of splitmix64, because the high bits of
    // FNV-1a are unevenly distributed for short texts.
    let mut hash = user_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("is_disabled", &self.is_disabled)
            .field("sample_rate", &self.sample_rate)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(rate: f64) -> usize {
        let filter = Filter { is_disabled: false, sample_rate: rate, before_send: None };
        (0..10_000).filter(|n| filter.is_sampled(&format!("user-{n}"))).count()
    }

    #[test]
    fn the_share_of_sampled_users_is_the_rate() {
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 10_000));
        for (rate, expected) in [(0.01, 100), (0.1, 1000), (0.5, 5000)] {
            assert!(sampled(rate).abs_diff(expected) < 150, "{rate}: {}", sampled(rate));
        }
    }

    #[test]
    fn the_position_of_a_user_never_changes() {
        let positions = ["ada", "user-123", ""].map(position_of);
        assert_eq!(
            positions.map(|position| (position * 1e6).floor()),
            [489201.0, 722202.0, 957673.0]
        );
    }
}
