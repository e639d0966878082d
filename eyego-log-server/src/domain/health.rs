//! The health of one part of the system.

/// One part, as `/health/ready` reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartHealth {
    /// Name of the part: `kafka`, `mongodb`, `queue`, `store`, `spool`, `worker`,
    /// `keys` or `tls`.
    pub name: &'static str,
    /// State of the part.
    pub state: PartState,
}

/// State of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartState {
    /// The part works.
    Up,
    /// The part works, but an operator should act on this message.
    Warning(String),
    /// The part does not work, for this reason.
    Down(String),
}

impl PartState {
    /// Returns `true` unless the part is [`Down`](Self::Down).
    #[must_use]
    pub fn is_up(&self) -> bool {
        match self {
            Self::Up | Self::Warning(_) => true,
            Self::Down(_) => false,
        }
    }
}
