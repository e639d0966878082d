//! The Rust client of eyego-log. It logs user activity without blocking the
//! caller, counts every event it loses, and reads stored events back.
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
//! // Create one client per program; clones share it.
//! let client = Client::builder("http://localhost:3000").build()?;
//!
//! // Returns immediately. An invalid event is rejected here, not later.
//! client.log(Event::new("user-123", "CLICK_BUTTON").metadata(Click { page: "home" }))?;
//!
//! // Returns once the server has stored the event durably in its queue.
//! let id = client.send(Event::new("user-123", "PAID")).await?;
//!
//! // Reads one page, or streams all pages.
//! let latest = client.query().user("user-123").limit(20).fetch().await?;
//! let mut all = client.query().user("user-123").metadata("page", "home").stream();
//! while let Some(entry) = all.next_event().await {
//!     println!("{}", entry?.timestamp);
//! }
//!
//! // Delivers the remaining events and reports what happened to all of them.
//! let report = client.shutdown().await;
//! assert!(report.all_delivered(), "{report:?}");
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! [`Client::log`] encodes the event as one line of JSON and appends it to a
//! buffer in memory. The event's id and timestamp are fixed at that point. A
//! dedicated thread takes a batch from the buffer once it holds 500 events or
//! 512 KiB, or after one second, compresses it and posts it. Failed batches are
//! retried with the same ids, so no event is stored twice. The client works
//! under any async runtime, and without one.
//!
//! # Guarantees
//!
//! `accepted == delivered + pending + lost` holds at all times. [`Client::stats`]
//! returns these counts and figures about the requests, and
//! [`ClientBuilder::on_loss`] receives the lost events themselves. [`docs::guarantees`] explains when events can be lost, and
//! [`docs::tuning`] which option to change for which goal. The methods of
//! [`ClientBuilder`] document the default, unit and range of each option;
//! [`Client::from_env`] lists the environment variables.
//!
//! # What to log
//!
//! Each of these is decided when an event is logged, and what is excluded is counted:
//!
//! | to | use |
//! |---|---|
//! | add metadata to all events | [`ClientBuilder::common_metadata`] |
//! | add metadata to the events of a request or a task | [`Client::with_metadata`] |
//! | add a single value | [`Event::field`] |
//! | change or drop events, for example to remove personal data | [`ClientBuilder::before_send`] |
//! | log a share of the users | [`ClientBuilder::sample_rate`] |
//! | run without a server | [`Client::disabled`], `EYEGO_LOG_DISABLED=1` |
//! | wait while the buffer is full | [`Client::log_async`] |
//! | keep an event that finds the buffer full | [`Client::try_log`] |
//! | learn of each delivery | [`Client::send`], [`ClientBuilder::on_delivery`] |
//!
//! # Reading and operating
//!
//! These calls wait for the server's response. An API key needs the scope.
//!
//! | to | use | scope |
//! |---|---|---|
//! | read a page, or all events one after the other | [`Query::fetch`], [`Query::stream`] | `read` |
//! | read one event | [`Query::get`] | `read` |
//! | follow the events as they are stored, across restarts of the server | [`Query::tail`] | `read` |
//! | count events over time, by action, user or metadata | [`Query::stats`] | `read` |
//! | export any number of events as NDJSON, CSV or Parquet | [`Query::export`] | `read` |
//! | wait until an event can be read | [`Client::send_stored`] | `ingest` |
//! | list, read and replay what the server could not store | [`Client::dead_letters`], [`Client::dead_letter`], [`Client::replay_dead_letters`] | `admin` |
//! | remove all events of a user | [`Client::erase_user`], [`Client::wait_for_erasure`], [`Client::erasures`] | `erase` |
//! | see whether the server works, and why not | [`Client::readiness`] | none |
//!
//! Their error is [`RequestError`]: it has the status, the message, the invalid
//! fields and the request id of the server, and tells whether another attempt may
//! succeed.
//!
//! # Shutting down
//!
//! Await [`Client::shutdown`] before the program exits, or keep a
//! [`Client::guard`] in `main`. A program without async can use [`blocking::Client`], or drop the client.
//!
//! # Crate features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `tls` | yes | `https://` URLs with rustls and the system's certificates |
//! | `native-tls` | | `https://` URLs with the system's TLS library; `tls` takes precedence |
//! | `zstd` | yes | compression of request bodies |
//! | `spool` | | [`ClientBuilder::spool_dir`]: keep undelivered events on disk |
//! | `blocking` | | [`blocking`]: an API for programs without async |
//! | `test-util` | | [`testing`]: a transport that records events, for your own tests |
//! | `tracing` | | [`tracing`]: a layer that logs marked `tracing` events |
//! | `tower` | | [`tower`]: a layer that logs requests |
//! | `metrics` | | [`metrics`]: the statistics for the `metrics` crate |
//! | `chrono` | | conversions (`From`) between [`Timestamp`] and `chrono::DateTime` |
//! | `jiff` | | `From<jiff::Timestamp>` for [`Timestamp`], and `TryFrom` back |
#![cfg_attr(
    not(all(
        feature = "blocking",
        feature = "metrics",
        feature = "spool",
        feature = "test-util",
        feature = "tower",
        feature = "tracing"
    )),
    allow(rustdoc::broken_intra_doc_links, reason = "the docs link to items of all features")
)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod api;
mod delivery;
pub mod docs;
mod integrations;
mod model;
mod pipeline;
mod spool;
mod sync;
pub mod transport;

pub use api::builder::ClientBuilder;
pub use api::client::Client;
pub use api::client::delivery::Delivery;
pub use api::client::guard::Guard;
pub use api::dead_letters::{DeadLetter, DeadLetterPage, DeadLetterQuery, Replay, Replayed};
pub use api::erasures::{Erasure, ErasurePage, ErasureQuery, ErasureState, Removed};
pub use api::export::{Export, ExportFormat, ExportStream};
pub use api::query::stream::LogStream;
pub use api::query::{Page, Query};
pub use api::readiness::{PartHealth, PartState, Readiness};
pub use api::stats::{Bucket, Interval, Statistics, StatsQuery, ValueCount};
pub use api::stored::StoreOutcome;
pub use api::tail::{Tail, TailItem};
#[cfg(feature = "blocking")]
pub use integrations::blocking;
#[cfg(feature = "metrics")]
pub use integrations::metrics;
#[cfg(feature = "test-util")]
pub use integrations::testing;
#[cfg(feature = "tower")]
pub use integrations::tower;
#[cfg(feature = "tracing")]
pub use integrations::tracing;
pub use model::delivered::Delivered;
pub use model::draft::DraftEvent;
pub use model::errors::{ConfigError, ExportError, LogError, RequestError, SendError, StatusError};
pub use model::event::Event;
pub use model::loss::{Loss, LostEvent};
pub use model::loss_reason::LossReason;
pub use model::overflow::Overflow;
pub use model::problem::Problem;
pub use model::report::Report;
pub use model::stats::{LossCounts, Stats};

#[cfg(feature = "spool")]
pub use spool::SpoolSync;

/// The version of `reqwest` whose `Client` [`ClientBuilder::http_client`] takes.
pub use reqwest;

pub use eyego_log_core::query::{Cursor, Order};
pub use eyego_log_core::{
    Action, FieldError, FieldErrors, LogEntry, LogId, Metadata, Timestamp, UserId,
};
