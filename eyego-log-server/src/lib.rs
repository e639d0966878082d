//! The eyego-log server: takes user activity over HTTP, queues it durably,
//! stores it exactly once, answers queries.
//!
//! Four layers; imports point inward only (`tests/cases/architecture.rs` holds
//! that):
//!
//! | layer | holds | knows |
//! |---|---|---|
//! | [`domain`] | the ports and their promises | core's types |
//! | [`application`] | the use cases: ingest, persist, retrieve, dead letters | domain |
//! | [`infrastructure`] | the adapters: Kafka, MongoDB, SQLite | domain |
//! | [`interface`] | HTTP, the worker's thread | application, domain |
//!
//! [`app`] puts them together; it alone names concrete adapters.

pub mod app;
pub mod application;
pub mod config;
pub mod domain;
pub mod infrastructure;
pub mod interface;
pub mod operate;
pub mod telemetry;
