//! The HTTP API: routes, bodies, answers, and the loop that accepts
//! connections.
//!
//! | file | what |
//! |---|---|
//! | `api` | what the routes work with |
//! | `router` | which route leads where; what every answer goes through |
//! | `ingest` | POST of one log and of many |
//! | `items` | splits the body of a batch |
//! | `read` | GET of logs |
//! | `dead_letters` | what could not be stored: GET, and POST to store it now |
//! | `metrics` | what is counted, for Prometheus |
//! | `parameters` | the parameters of a query string |
//! | `health` | liveness and readiness |
//! | `body` | reads and decompresses a body under limits |
//! | `error` | every failure and its status: the one table |
//! | `server` | the accept loop, with its timers and its graceful end |

mod api;
mod body;
mod dead_letters;
mod error;
mod health;
mod ingest;
mod items;
mod metrics;
mod parameters;
mod read;
mod router;
mod server;

pub use self::api::Api;
pub use self::body::{BodyLimits, fuzz_decompression};
pub use self::health::Readiness;
pub use self::items::fuzz_batch;
pub use self::metrics::Metrics;
pub use self::router::{Routes, api_routes, operations_routes};
pub use self::server::{Bound, bind};
