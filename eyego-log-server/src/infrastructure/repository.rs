//! Repositories: adapters that store log entries and dead letters.

mod limits;
pub mod mongodb;
pub mod sqlite;
