//! The typed client of eyego-log: log what users do without waiting, lose
//! nothing without a counted reason, read it back.

mod batch;
mod buffer;
mod check;
mod client;
mod compress;
mod config;
mod dispatch;
mod encode;
mod error;
mod event;
mod ledger;
mod loss;
mod problem;
mod query;
mod retry;
mod shared;
pub mod transport;
mod verdict;
mod worker;

pub use client::{Client, Delivery, Report};
pub use config::{Builder, Overflow};
pub use error::{ConfigError, LogError, ReadError, SendError, StatusError};
pub use event::Event;
pub use loss::{LossReason, Losses, Lost, LostEvent, Stats};
pub use query::{LogStream, Logs, Page};

pub use eyego_log_core::query::{Cursor, Order};
pub use eyego_log_core::{
    Action, FieldError, FieldErrors, LogEntry, LogId, Metadata, Timestamp, UserId,
};
