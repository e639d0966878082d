//! Where the outside comes in: HTTP.

pub mod http;
