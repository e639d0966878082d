//! The HTTP interface: routes, request bodies, responses, and the server that
//! accepts connections.
//!
//! | module | contents |
//! |---|---|
//! | `api` | state shared by the routes of the API |
//! | `router` | the routes, and the middleware around all of them |
//! | `ingest` | POST of one event and of a batch |
//! | `items` | splits the body of a batch |
//! | `read` | GET of stored events |
//! | `dead_letters` | GET of dead letters, and their replay |
//! | `metrics` | `/metrics` |
//! | `parameters` | query parameters |
//! | `health` | liveness and readiness |
//! | `body` | reads and decompresses a request body within its limits |
//! | `error` | every failure with its status, code and message |
//! | `server` | accepts connections, with timeouts and graceful shutdown |

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
