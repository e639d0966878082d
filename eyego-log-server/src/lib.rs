//! The eyego-log server: receives user activity over HTTP, queues it durably,
//! stores it exactly once and serves queries.
//!
//! The code has four layers. Imports point inward only, which
//! `tests/cases/architecture.rs` enforces:
//!
//! | layer | contents | may use |
//! |---|---|---|
//! | [`domain`] | the ports and their promises | `eyego-log-core` |
//! | [`application`] | the use cases: ingest, persist, wait, dead letters | `domain` |
//! | [`infrastructure`] | the adapters: Kafka, MongoDB, SQLite | `domain` |
//! | [`interface`] | the HTTP API | `application`, `domain` |
//!
//! [`app`] is the composition root: it alone names concrete adapters. [`cli`]
//! parses the command line and [`config`] the configuration.

pub mod app;
pub mod application;
pub mod cli;
pub mod config;
pub mod domain;
pub mod infrastructure;
pub mod interface;
pub mod telemetry;
