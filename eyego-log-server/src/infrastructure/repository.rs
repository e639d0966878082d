//! Repositories: the logs, and the dead letters beside them.

pub mod mongodb;
pub mod sqlite;
