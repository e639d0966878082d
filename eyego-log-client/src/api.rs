//! The calls that a program makes: build a client, log, and read back.
//!
//! This is the top layer. It wires `pipeline`, `delivery`, `spool` and
//! `transport` together; none of them imports from here.

pub(crate) mod builder;
mod caller;
pub(crate) mod client;
pub(crate) mod dead_letters;
pub(crate) mod erasures;
pub(crate) mod export;
mod list;
mod path;
pub(crate) mod query;
pub(crate) mod readiness;
pub(crate) mod stats;
pub(crate) mod stored;
pub(crate) mod tail;
