//! The typed client of eyego-log: log what users do without waiting, lose
//! nothing without a counted reason, read it back.
//!
//! ```no_run
//! use eyego_log_client::{Client, Event};
//! use serde::Serialize;
//!
//! #[derive(Serialize)]
//! struct Click<'a> {
//!     page: &'a str,
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! // One for the whole program; clones are the same client.
//! let client = Client::builder("http://localhost:3000").build()?;
//!
//! // Returns at once. An event with a fault is an error here, not later.
//! client.log(Event::new("user-123", "CLICK_BUTTON").metadata(Click { page: "home" }))?;
//!
//! // Returns when the server holds it durably.
//! let id = client.send(Event::new("user-123", "PAID")).await?;
//!
//! // Reads a page, or all of them.
//! let latest = client.logs().user("user-123").limit(20).fetch().await?;
//! let mut all = client.logs().user("user-123").metadata("page", "home").stream();
//! while let Some(log) = all.next().await {
//!     println!("{}", log?.timestamp);
//! }
//!
//! // Delivers what is left, and says what became of it.
//! let report = client.shutdown().await;
//! assert!(report.is_complete(), "{report:?}");
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! [`Client::log`] writes the event as one line of JSON into a buffer in
//! memory; its id and its time are fixed there. A thread of the client's own
//! takes the buffer when it holds 500 events or 512 KiB, or after a second,
//! compresses it and posts it. What fails is repeated, with the same ids, so
//! that nothing is stored twice. No runtime is needed, and none is disturbed.
//!
//! # What it promises
//!
//! `accepted == delivered + pending + lost`, always: [`Client::stats`] shows
//! it, [`Builder::on_loss`] hands out what was lost, and
//! [`guarantees`](docs::guarantees) says when that can be. Which option to turn
//! when is in [`tuning`](docs::tuning); each option's default and range is at
//! its method of [`Builder`], its environment variable at
//! [`Client::from_env`].
//!
//! # At the end of the program
//!
//! Call [`Client::shutdown`] and await it. In a program without async, drop the
//! client, or use `blocking::wait`.
//!
//! # Features
//!
//! | feature | default | what |
//! |---|---|---|
//! | `tls` | yes | `https://`, by rustls with a provider that is never installed globally |
//! | `zstd` | yes | compression of what is sent |
//! | `reqwest` | | `Builder::http_client`: a `reqwest::Client` of yours instead of our own connections |
//! | `spool` | | `Builder::spool_dir`: events outlive the process, in files |
//! | `blocking` | | `blocking`: wait without async |
//! | `test-util` | | `testing`: a transport that records, for your tests |
//! | `tracing` | | a layer that turns marked `tracing` events into logs |
//! | `tower` | | a layer that logs the requests that pass |

mod batch;
#[cfg(feature = "blocking")]
pub mod blocking;
mod buffer;
mod check;
mod client;
mod compress;
mod config;
mod dispatch;
pub mod docs;
mod encode;
mod error;
mod event;
mod feed;
mod ledger;
mod loss;
mod problem;
mod query;
mod retry;
mod shared;
mod spool;
mod sync;
#[cfg(feature = "test-util")]
pub mod testing;
#[cfg(feature = "tower")]
pub mod tower;
#[cfg(feature = "tracing")]
pub mod tracing;
pub mod transport;
mod verdict;
mod worker;

pub use client::{Client, Delivery, Report};
#[cfg(feature = "spool")]
pub use config::SpoolSync;
pub use config::{Builder, Overflow};
pub use error::{ConfigError, LogError, ReadError, SendError, StatusError};
pub use event::Event;
pub use loss::{LossReason, Losses, Lost, LostEvent, Stats};
pub use query::{LogStream, Logs, Page};

pub use eyego_log_core::query::{Cursor, Order};
pub use eyego_log_core::{
    Action, FieldError, FieldErrors, LogEntry, LogId, Metadata, Timestamp, UserId,
};
