//! Removal: retention deletes events after a time, erasure those of a user. Both
//! also keep such events from being stored again.
//!
//! | file | contents |
//! |---|---|
//! | `guarded_store` | the only way to the store: skips expired and erased events |
//! | `tombstones` | the list of erased users that the guard uses |
//! | `origin` | the user and the time of receipt of a dead letter |
//! | `erasures` | requests, lists and shows erasures |
//! | `run` | the loops that delete, in the process that has the lease |
//! | `retention`, `erasing`, `remover` | their two tasks, and what they share |
//! | `status` | the counters |
//!
//! The order of an erasure (ADR 0032): its record is durable; the first pass deletes
//! what is stored; after [`SETTLED_AFTER`], when no worker
//! can store with an older list, the second pass deletes what was stored meanwhile.

mod erasing;
mod erasures;
mod guarded_store;
mod origin;
mod remover;
mod retention;
mod run;
mod status;
mod tombstones;

pub use self::erasing::SETTLED_AFTER;
pub use self::erasures::ErasureService;
pub use self::guarded_store::GuardedStore;
pub(super) use self::guarded_store::{Offered, SkipReason};
pub(super) use self::origin::user_id;
pub use self::remover::{Remover, RemoverOptions};
pub use self::status::{RemovalCounts, RemovalStatus};
pub use self::tombstones::Tombstones;
