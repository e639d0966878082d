//! What the batch source returns.

use std::io;

use crate::model::loss_reason::LossReason;
use crate::pipeline::batch::{Acks, Batch};

/// A consequence for the event queue or the problem report.
#[derive(Debug)]
pub(crate) enum Effect {
    /// The batch is in the spool and need not stay in memory.
    Spilled(Batch),
    /// A batch of this cost was read back into memory.
    Refilled { cost: usize },
    /// The batch has reached the maximum age of the spool.
    Expired(Batch),
    /// Spooled events can no longer be delivered.
    Unreadable { epoch: u64, events: u64, acks: Acks, reason: LossReason, message: String },
    /// A write to the spool failed.
    SpoolFailed(io::Error),
    /// Spooled events cannot be read at present.
    SpoolUnavailable { message: String },
}

/// Where the next batch to send comes from.
#[derive(Debug)]
pub(crate) enum Next {
    Batch(Batch),
    /// The event queue, if a batch is due there.
    Queue,
    Nothing,
}

/// What was not settled when the client ended.
#[derive(Debug, Default)]
pub(crate) struct Remaining {
    /// Batches in memory that remain in the spool.
    pub(crate) spooled: Vec<Batch>,
    /// The acknowledgements of batches that are only on disk.
    pub(crate) spooled_acks: Vec<Acks>,
    /// Batches that are not in the spool.
    pub(crate) unspooled: Vec<Batch>,
    /// The events that were only in deleted files.
    pub(crate) effects: Vec<Effect>,
}
