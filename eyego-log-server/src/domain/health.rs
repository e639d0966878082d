//! How a part of the system is: up, or not and why.

/// One part as readiness shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartHealth {
    /// The part: `kafka`, `mongodb`, `queue`, `store`, `spool`, `worker`.
    pub name: &'static str,
    /// How it is.
    pub state: PartState,
}

/// How a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartState {
    /// It does its work.
    Up,
    /// It does its work, but an operator should know this.
    Warning(String),
    /// It does not, for this reason.
    Down(String),
}

impl PartState {
    /// Whether it does its work.
    #[must_use]
    pub fn is_up(&self) -> bool {
        match self {
            Self::Up | Self::Warning(_) => true,
            Self::Down(_) => false,
        }
    }
}
