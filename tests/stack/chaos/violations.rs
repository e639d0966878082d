//! Violations of the invariants, as text. All are counted, and the first ones are kept.

use std::fmt;

const KEPT: usize = 20;

/// The violations that a run found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations {
    kept: Vec<String>,
    count: usize,
}

impl Violations {
    pub(super) fn add(&mut self, violation: impl Into<String>) {
        self.count += 1;
        if self.kept.len() < KEPT {
            self.kept.push(violation.into());
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.count += other.count;
        self.kept.extend(other.kept);
        self.kept.truncate(KEPT);
    }

    /// Returns whether there are no violations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in &self.kept {
            writeln!(f, "  - {violation}")?;
        }
        if self.count > self.kept.len() {
            writeln!(f, "  and {} more", self.count - self.kept.len())?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}
