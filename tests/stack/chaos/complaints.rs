//! What went wrong, in words; only the first ones are kept, all are counted.

use std::fmt;

const KEPT: usize = 20;

/// What went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Complaints {
    kept: Vec<String>,
    count: usize,
}

impl Complaints {
    pub(super) fn add(&mut self, complaint: impl Into<String>) {
        self.count += 1;
        if self.kept.len() < KEPT {
            self.kept.push(complaint.into());
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.count += other.count;
        self.kept.extend(other.kept);
        self.kept.truncate(KEPT);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for complaint in &self.kept {
            writeln!(f, "  - {complaint}")?;
        }
        if self.count > self.kept.len() {
            writeln!(f, "  and {} more", self.count - self.kept.len())?;
        }
        Ok(())
    }
}
