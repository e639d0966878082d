//! The oracle: compares everything that is stored with the ack log. It reads one log after another
//! and keeps one bit per event.
//!
//! The invariants:
//! - Each acknowledged event is stored exactly once, unchanged and under its id, or is one dead
//!   letter with a reason.
//! - Each event that was not acknowledged is stored at most once, and unchanged.
//! - Each poison message in the topic is one dead letter with a reason and unchanged bytes. Its producer
//!   is not idempotent, so the topic can contain one twice, at different positions.
//! - No event and no dead letter of an erased user that was received before the erasure is left; each
//!   later event is stored exactly once.
//! - No event that is older than its retention is left, and none came back; all others are kept.
//! - Nothing else is stored.

use std::collections::HashSet;

use serde_json::Value;

use super::ack_log::{AckLog, fingerprint, index};
use super::aged::AgedEvents;
use super::eraser::ErasedUsers;
use super::event::{Retries, difference, number, own_id, send_mode};
use super::violations::Violations;
use super::{event, poison};

/// Reads everything that is stored, then returns the violations.
#[derive(Debug)]
pub(super) struct Oracle<'a> {
    ack_log: &'a AckLog,
    /// The ids of logs that the callers did not send, such as probes.
    others: HashSet<String>,
    erased: Option<&'a ErasedUsers>,
    aged: Option<&'a AgedEvents>,
    seen: Vec<bool>,
    /// The positions in the topic at which each poison message was found.
    seen_poison: Vec<Vec<String>>,
    violations: Violations,
    found: Found,
}

/// What the oracle found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Logs in the store, including probes.
    pub(super) logs: u64,
    pub(super) dead_letters: u64,
    /// Stored events that were not acknowledged.
    pub(super) unacknowledged: u64,
    /// Dead letters that are events of the callers.
    pub(super) dead_events: u64,
    /// Poison messages that are in the topic again, at another position.
    pub(super) repeated_poison: u64,
    /// Acknowledged events that are not stored.
    pub(super) lost: u64,
}

impl<'a> Oracle<'a> {
    pub(super) fn new(ack_log: &'a AckLog, others: impl IntoIterator<Item = String>) -> Self {
        Self {
            ack_log,
            others: others.into_iter().collect(),
            erased: None,
            aged: None,
            seen: vec![false; index(ack_log.events())],
            seen_poison: vec![Vec::new(); index(ack_log.poison())],
            violations: Violations::default(),
            found: Found::default(),
        }
    }

    /// Also checks the events of erased users.
    pub(super) fn with_erased(mut self, erased: &'a ErasedUsers) -> Self {
        self.erased = Some(erased);
        self
    }

    /// Also checks the events with a short retention. All of them must be expired.
    pub(super) fn with_aged(mut self, aged: &'a AgedEvents) -> Self {
        self.aged = Some(aged);
        self
    }

    /// Reads a log of the store.
    pub(super) fn log(&mut self, log: &Value) {
        self.found.logs += 1;
        let is_checked = self.erased.is_some_and(|erased| erased.log(log))
            || self.aged.is_some_and(|aged| aged.log(log));
        if is_checked {
            return;
        }
        let id = log["id"].as_str().unwrap_or_default();
        if let Some(n) = number(log).filter(|n| *n < self.ack_log.events()) {
            if let Some(what) = difference(n, log) {
                self.violations.add(format!("event {n} is not what was sent: {what}"));
            }
            if !self.is_its_id(n, id) {
                self.violations.add(format!("event {n} is stored under another id, {id}"));
            }
            self.note(n);
        } else if !self.others.remove(id) {
            self.violations.add(format!("a log was not sent, or is stored twice: {log}"));
        }
    }

    fn is_its_id(&self, n: u64, id: &str) -> bool {
        let is_keyed = send_mode(self.ack_log.seed, n / event::UNIT).is_keyed;
        let is_own = is_keyed || id == own_id(self.ack_log.seed, n).to_string();
        is_own && self.ack_log.acknowledged(n).is_none_or(|known| known == fingerprint(id))
    }

    /// Notes that an event was found, as a log or a dead letter.
    fn note(&mut self, n: u64) {
        if std::mem::replace(&mut self.seen[index(n)], true) {
            self.violations.add(format!("event {n} is stored twice"));
        } else if self.ack_log.acknowledged(n).is_none() {
            self.found.unacknowledged += 1;
        }
    }

    /// Reads a dead letter and its bytes.
    pub(super) fn dead_letter(&mut self, dead_letter: &Value, raw: &[u8]) {
        self.found.dead_letters += 1;
        let is_checked = self.erased.is_some_and(|erased| erased.dead_letter(raw))
            || self.aged.is_some_and(|aged| aged.dead_letter(raw));
        if is_checked {
            return;
        }
        let has = |field: &str| dead_letter[field].as_str().is_some_and(|text| !text.is_empty());
        if !has("code") || !has("message") {
            self.violations.add(format!("a dead letter has no reason: {dead_letter}"));
        }
        if let Some(n) = poison::number(raw).filter(|n| *n < self.ack_log.poison()) {
            let position =
                ["partition", "offset", "queuedAt"].map(|name| dead_letter[name].to_string());
            let position = position.join(" ");
            let seen = &mut self.seen_poison[index(n)];
            self.found.repeated_poison += u64::from(!seen.is_empty());
            if seen.contains(&position) {
                self.violations.add(format!("poison {n} has two dead letters: {dead_letter}"));
            }
            seen.push(position);
            return;
        }
        let event = serde_json::from_slice(raw).ok().as_ref().and_then(number);
        if let Some(n) = event.filter(|n| *n < self.ack_log.events()) {
            self.found.dead_events += 1;
            self.note(n);
        } else {
            self.violations.add(format!("a dead letter was not sent: {dead_letter}"));
        }
    }

    /// Checks what is missing, once everything has been read, and returns the violations.
    pub(super) fn finish(mut self) -> (Found, Violations) {
        for n in 0..self.ack_log.events() {
            let is_acknowledged = self.ack_log.acknowledged(n).is_some();
            if is_acknowledged && !self.seen[index(n)] {
                self.found.lost += 1;
                self.violations.add(format!("event {n} was acknowledged and is not stored"));
            }
            let retries = send_mode(self.ack_log.seed, n / event::UNIT).retries;
            if !is_acknowledged && retries != Retries::Never {
                self.violations.add(format!("event {n} was never acknowledged"));
            }
        }
        for n in 0..self.ack_log.poison() {
            let has_value = poison::value(n).is_some();
            if has_value && self.ack_log.is_poison_sent(n) && self.seen_poison[index(n)].is_empty()
            {
                self.violations.add(format!("poison {n} has no dead letter"));
            }
        }
        for id in &self.others {
            self.violations.add(format!("log {id} is not stored"));
        }
        if let Some(erased) = self.erased {
            self.violations.extend(erased.finish());
        }
        if let Some(aged) = self.aged {
            self.violations.extend(aged.finish());
        }
        (self.found, self.violations)
    }
}

#[cfg(test)]
mod tests;
