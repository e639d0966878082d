//! Batches on disk (crate feature `spool`). A batch is written before it is
//! sent, and deleted once its events are settled. If the process dies in
//! between, the next one reads it back.
//!
//! The client spool is a segmented log:
//!
//! - `format` defines the bytes of a file,
//! - `segment` scans and reads one file,
//! - `repair` finds the undamaged records of a file that is not intact,
//! - `recovery` opens the files of an earlier process and quarantines damage,
//! - `directory` names and locks files,
//! - `files` manages the files: their order, syncing and deletion.
//!
//! `delivery::batch_source` decides which batches go through the spool and which
//! stay in memory.

#[cfg(feature = "spool")]
mod directory;
#[cfg(feature = "spool")]
mod files;
#[cfg(feature = "spool")]
mod format;
#[cfg(not(feature = "spool"))]
mod off;
#[cfg(feature = "spool")]
mod options;
mod record;
#[cfg(feature = "spool")]
mod recovery;
#[cfg(feature = "spool")]
mod repair;
#[cfg(feature = "spool")]
mod segment;

#[cfg(feature = "spool")]
pub(crate) use files::Spool;
#[cfg(not(feature = "spool"))]
pub(crate) use off::{Spool, SpoolOptions};
#[cfg(feature = "spool")]
pub(crate) use options::SpoolOptions;
#[cfg(feature = "spool")]
pub use options::SpoolSync;
pub(crate) use record::{Extent, LostInFile, TOO_OLD, Unread};
