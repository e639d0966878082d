//! The HTTP API: routes, request bodies, responses, and the accept loop.
//!
//! | file | contents |
//! |---|---|
//! | `access` | checks requests: `Host`, `Origin`, keys, rate limits; the audit log |
//! | `api` | the state shared by the routes of the API |
//! | `router` | the routes, and what applies to every response |
//! | `ingest` | POST of one event and of a batch |
//! | `items` | splits the body of a batch |
//! | `read` | GET of events |
//! | `export` | all matching events as a stream |
//! | `tail` | events as they are stored |
//! | `stats` | counts over time |
//! | `selection` | the filters that the reading routes share |
//! | `streams` | limits of responses that last |
//! | `dead_letters` | GET and replay of dead letters |
//! | `erasures` | DELETE of a user's events, and GET of erasures |
//! | `metrics` | the Prometheus endpoint |
//! | `dashboard` | the pages: the dashboard and the documentation of the API |
//! | `static_file` | files that stay the same while the process runs |
//! | `openapi` | the description of the API |
//! | `parameters` | query string parameters |
//! | `health` | liveness and readiness |
//! | `content_encoding` | content encodings, and which of them a client accepts |
//! | `body` | receives a request body within its limits |
//! | `body/negotiation` | media type and content encoding |
//! | `body/receive` | size and memory of an arriving body |
//! | `body/pace` | the rate at which a body must arrive |
//! | `body/decompress` | gzip and zstd |
//! | `held_body` | response bodies that hold their share of the read budget |
//! | `heavy` | runs long work on blocking threads |
//! | `envelope` | the envelope of every JSON response |
//! | `error` | the one table of failures and their responses |
//! | `tls` | certificates and handshakes |
//! | `connections` | the open connections, what each is doing, and their limit |
//! | `server` | the accept loop, the timeouts of connections, and graceful shutdown |

mod access;
mod api;
mod body;
mod connections;
mod content_encoding;
mod dashboard;
mod dead_letters;
mod envelope;
mod erasures;
mod error;
mod export;
mod health;
mod heavy;
mod held_body;
mod ingest;
mod items;
mod metrics;
mod openapi;
mod parameters;
mod read;
mod router;
mod selection;
mod server;
mod static_file;
mod stats;
mod streams;
mod tail;
mod tls;

pub use self::access::{Access, Audited, AuditedStream, Guard};
pub use self::api::Api;
pub use self::body::BodyLimits;
#[cfg(feature = "fuzzing")]
pub use self::body::fuzz_decompression;
pub use self::connections::{ConnectionCounts, Connections};
pub use self::health::Readiness;
pub use self::heavy::HeavyWork;
#[cfg(feature = "fuzzing")]
pub use self::items::fuzz_batch;
pub use self::metrics::{MeasuredParts, Metrics};
pub use self::openapi::openapi;
pub use self::router::{Operations, Routes, routes};
pub use self::server::{Bound, bind};
pub use self::streams::Streams;
pub use self::tls::{Tls, TlsError};
