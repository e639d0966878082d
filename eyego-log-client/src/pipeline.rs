//! From the call to a batch: events are checked, encoded, buffered and counted.
//!
//! Nothing here does I/O. The worker in `delivery` takes the batches out.

pub(crate) mod accounting;
mod backlog;
pub(crate) mod batch;
mod buffer;
mod check;
pub(crate) mod context;
pub(crate) mod deadlines;
pub(crate) mod encode;
pub(crate) mod event_queue;
pub(crate) mod filter;
pub(crate) mod hooks;
mod memory;
pub(crate) mod problems;
mod report_queue;
pub(crate) mod reporter;
mod spares;

pub(crate) use buffer::BatchLimits;
