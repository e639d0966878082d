//! Why the guard refuses a request.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a request is refused before its body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    Host,
    Origin,
    Unauthenticated,
    TokenInQuery,
    Forbidden,
    Concurrency,
    Rate,
}

impl Denial {
    const ALL: [Self; 7] = [
        Self::Host,
        Self::Origin,
        Self::Unauthenticated,
        Self::TokenInQuery,
        Self::Forbidden,
        Self::Concurrency,
        Self::Rate,
    ];

    /// Returns whether the request is allowed, but at another time.
    pub(super) fn is_limit(self) -> bool {
        matches!(self, Self::Concurrency | Self::Rate)
    }

    /// Returns the value of the label `reason`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Unauthenticated => "unauthenticated",
            Self::TokenInQuery => "token_in_query",
            Self::Forbidden => "forbidden",
            Self::Concurrency => "concurrency",
            Self::Rate => "rate_limited",
        }
    }
}

/// Counts refused requests by reason.
#[derive(Debug, Default)]
pub(in crate::interface::http) struct DenialCounts([AtomicU64; Denial::ALL.len()]);

impl DenialCounts {
    pub(super) fn count(&self, denial: Denial) {
        self.0[denial as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the label and the count of each reason.
    pub(in crate::interface::http) fn by_reason(
        &self,
    ) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = Denial::ALL.iter().zip(&self.0);
        counts.map(|(denial, count)| (denial.label(), count.load(Ordering::Relaxed)))
    }
}
