//! What was last observed of the topic.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::client::PartitionOffsets;
use super::identity::Identity;
use super::settings::Settings;
use crate::domain::position::Partition;

/// The last observation.
#[derive(Debug, Clone, Default)]
pub(super) struct Observed {
    pub(super) obstacles: Obstacles,
    /// When the last check began that found no obstacle.
    pub(super) checked_at: Option<Instant>,
    /// When the last check began that found the topic.
    pub(super) found_at: Option<Instant>,
    pub(super) identity: Identity,
    pub(super) settings: Settings,
    pub(super) offsets: Arc<HashMap<Partition, PartitionOffsets>>,
    /// Whether offsets moved back in the last check.
    pub(super) is_doubtful: bool,
}

/// Why records cannot be produced or consumed.
#[derive(Debug, Clone, Default)]
pub(super) struct Obstacles {
    /// The topic is absent or unreachable.
    pub(super) absent: Option<String>,
    /// Some or all partitions can neither be produced to nor consumed.
    pub(super) unreachable: Option<String>,
    /// Some or all partitions do not acknowledge records.
    pub(super) under_replicated: Option<String>,
}

impl Obstacles {
    /// Returns the most specific reason.
    pub(super) fn first(&self) -> Option<&String> {
        let Self { absent, unreachable, under_replicated } = self;
        absent.as_ref().or(under_replicated.as_ref()).or(unreachable.as_ref())
    }
}
