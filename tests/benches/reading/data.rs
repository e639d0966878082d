//! The events: of 10,000 users and ten actions over seven days, one event in 100,000 with a rare
//! action, and a user with 2,000 events.

use anyhow::{Context as _, Result};
use eyego_log_core::{Action, LogEntry, LogId, Metadata, Timestamp, UserId};

/// Start of the first day.
pub(crate) const START: i64 = 1_767_225_600_000;
pub(crate) const DAYS: i64 = 7;
pub(crate) const HOUR: i64 = 3_600_000;

pub(crate) const RARE: &str = "PAYMENT_FAILED";
/// The user with 2,000 events, and an action that others often did.
pub(crate) const BUSY_USER: &str = "busy";
pub(crate) const NEVER_DONE: &str = "SEARCH";

const ACTIONS: [&str; 10] = [
    "PAGE_VIEW",
    "CLICK_BUTTON",
    "SEARCH",
    "ADD_TO_CART",
    "LOGIN",
    "LOGOUT",
    "PURCHASE",
    "SIGN_UP",
    "SHARE",
    "COMMENT",
];

/// Returns the `n`th of all events.
pub(crate) fn entry(n: u64, events: u64) -> Result<LogEntry> {
    let mut random = fastrand::Rng::with_seed(n);
    let is_rare = n % 100_000 == 50_000;
    let is_busy = n % (events / 2_000).max(1) == 1;
    // The first actions are the most frequent ones.
    let skewed = random.f64() * random.f64() * ACTIONS.len() as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 10")]
    let action = ACTIONS[skewed as usize];
    let (user, action) = match (is_rare, is_busy) {
        (true, _) => (format!("user-{}", random.u32(..10_000)), RARE),
        (_, true) => (BUSY_USER.to_owned(), if action == NEVER_DONE { "LOGIN" } else { action }),
        _ => (format!("user-{}", random.u32(..10_000)), action),
    };
    let span = u64::try_from(DAYS * 24 * HOUR)?;
    // Events arrive up to a second out of order.
    let millis = START + i64::try_from(n * (span - 1_000) / events)? + random.i64(0..1_000);
    let timestamp = Timestamp::from_millis(millis).context("time")?;
    let metadata = format!(
        r#"{{"page":"home","browser":"chrome","n":{n},"referrer":"https://example.com/a/b","width":1920,"tags":["a","b"],"ratio":0.75}}"#
    );
    let mut id = [0x68; 12];
    id[4..].copy_from_slice(&n.to_be_bytes());
    let mut entry = LogEntry::new(
        LogId::from_bytes(id),
        UserId::from_stored(user).context("userId")?,
        Action::from_stored(action.to_owned()).context("action")?,
        timestamp,
        Metadata::from_json(metadata)?,
    );
    entry.received_at = Some(timestamp);
    Ok(entry)
}

/// Returns all events in bulks.
pub(crate) fn bulks(events: u64, size: u64) -> impl Iterator<Item = Result<Vec<LogEntry>>> {
    (0..events)
        .step_by(usize::try_from(size).unwrap_or(1))
        .map(move |first| (first..(first + size).min(events)).map(|n| entry(n, events)).collect())
}
