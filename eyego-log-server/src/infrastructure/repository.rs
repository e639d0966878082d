//! Repositories: adapters that store log entries and dead letters.

mod feed;
mod limits;
pub mod mongodb;
pub mod sqlite;
