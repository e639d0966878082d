//! The calls that a program makes: build a client, log, and read back.
//!
//! This is the top layer. It wires `pipeline`, `delivery`, `spool` and
//! `transport` together; none of them imports from here.

pub(crate) mod builder;
pub(crate) mod client;
pub(crate) mod query;
mod reader;
