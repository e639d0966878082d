//! Repositories: adapters that store log entries and dead letters.

pub mod mongodb;
pub mod sqlite;
