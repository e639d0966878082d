//! The HTTP interface.

pub mod http;
