//! Where things come in from outside: HTTP, and the worker's thread.

pub mod http;
pub mod worker;
