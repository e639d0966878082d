//! The oracle: holds what is stored against what was acknowledged. It sees one log after the other
//! and remembers a bit for each.
//!
//! - Each acknowledged event is in the store exactly once, intact and under its id, or in the dead
//!   letters with a reason.
//! - What was not acknowledged is there at most once, and intact.
//! - Each poison that the topic took is one dead letter with a reason, its bytes unchanged.
//! - Nothing else is there.

use std::collections::HashSet;

use serde_json::Value;

use super::complaints::Complaints;
use super::event::{Insistence, difference, manner, number, own_id};
use super::ledger::{Ledger, fingerprint, index};
use super::{event, poison};

/// Sees everything that is stored, then says what is wrong with it.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    ledger: &'a Ledger,
    /// Logs that are no events of ours: the probes.
    others: HashSet<String>,
    seen: Vec<bool>,
    seen_poison: Vec<bool>,
    complaints: Complaints,
    found: Found,
}

/// What was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Logs in the store, probes included.
    pub(super) logs: u64,
    pub(super) letters: u64,
    /// Events in the store that nobody was promised.
    pub(super) unacknowledged: u64,
    /// Dead letters that hold an event of ours.
    pub(super) events_in_letters: u64,
    /// Acknowledged events that are nowhere.
    pub(super) lost: u64,
}

impl<'a> Judge<'a> {
    pub(super) fn new(ledger: &'a Ledger, others: impl IntoIterator<Item = String>) -> Self {
        Self {
            ledger,
            others: others.into_iter().collect(),
            seen: vec![false; index(ledger.events())],
            seen_poison: vec![false; index(ledger.poison())],
            complaints: Complaints::default(),
            found: Found::default(),
        }
    }

    /// A log of the store.
    pub(super) fn log(&mut self, log: &Value) {
        self.found.logs += 1;
        let id = log["id"].as_str().unwrap_or_default();
        if let Some(n) = number(log).filter(|n| *n < self.ledger.events()) {
            if let Some(what) = difference(n, log) {
                self.complaints.add(format!("event {n} is not what was sent: {what}"));
            }
            if !self.is_its_id(n, id) {
                self.complaints.add(format!("event {n} is stored under another id, {id}"));
            }
            self.settle(n);
        } else if !self.others.remove(id) {
            self.complaints.add(format!("nobody sent this log, or it is there twice: {log}"));
        }
    }

    fn is_its_id(&self, n: u64, id: &str) -> bool {
        let is_keyed = manner(self.ledger.seed, n / event::UNIT).is_keyed;
        let is_own = is_keyed || id == own_id(self.ledger.seed, n).to_string();
        is_own && self.ledger.acknowledged(n).is_none_or(|known| known == fingerprint(id))
    }

    /// An event has come to its end.
    fn settle(&mut self, n: u64) {
        if std::mem::replace(&mut self.seen[index(n)], true) {
            self.complaints.add(format!("event {n} is there twice"));
        } else if self.ledger.acknowledged(n).is_none() {
            self.found.unacknowledged += 1;
        }
    }

    /// A dead letter, and its bytes.
    pub(super) fn letter(&mut self, letter: &Value, raw: &[u8]) {
        self.found.letters += 1;
        let has = |field: &str| letter[field].as_str().is_some_and(|text| !text.is_empty());
        if !has("code") || !has("message") {
            self.complaints.add(format!("a dead letter without a reason: {letter}"));
        }
        if let Some(n) = poison::number(raw).filter(|n| *n < self.ledger.poison()) {
            if std::mem::replace(&mut self.seen_poison[index(n)], true) {
                self.complaints.add(format!("two dead letters for poison {n}"));
            }
            return;
        }
        let event = serde_json::from_slice(raw).ok().as_ref().and_then(number);
        if let Some(n) = event.filter(|n| *n < self.ledger.events()) {
            self.found.events_in_letters += 1;
            self.settle(n);
        } else {
            self.complaints.add(format!("a dead letter of what nobody sent: {letter}"));
        }
    }

    /// What is wrong, once everything was seen.
    pub(super) fn verdict(mut self) -> (Found, Complaints) {
        for n in 0..self.ledger.events() {
            let is_acknowledged = self.ledger.acknowledged(n).is_some();
            if is_acknowledged && !self.seen[index(n)] {
                self.found.lost += 1;
                self.complaints.add(format!("event {n} was acknowledged and is nowhere"));
            }
            let insistence = manner(self.ledger.seed, n / event::UNIT).insistence;
            if !is_acknowledged && insistence != Insistence::Once {
                self.complaints.add(format!("event {n} was never acknowledged"));
            }
        }
        for n in 0..self.ledger.poison() {
            let is_letter = poison::value(n).is_some();
            if is_letter && self.ledger.is_poisoned(n) && !self.seen_poison[index(n)] {
                self.complaints.add(format!("poison {n} has no dead letter"));
            }
        }
        for id in &self.others {
            self.complaints.add(format!("the probe {id} is not in the store"));
        }
        (self.found, self.complaints)
    }
}

#[cfg(test)]
mod tests;
