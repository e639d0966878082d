//! The HTTP API: routes, bodies, answers, and the loop that accepts
//! connections.
//!
//! | file | what |
//! |---|---|
//! | `router` | which route leads where; what every answer goes through |
//! | `ingest` | POST of one log and of many |
//! | `read` | GET of logs |
//! | `health` | liveness and readiness |
//! | `body` | reads and decompresses a body under limits |
//! | `error` | every failure and its status: the one table |
//! | `server` | the accept loop, with its timers and its graceful end |

mod body;
mod error;
mod health;
mod ingest;
mod read;
mod router;
mod server;

pub use self::body::BodyLimits;
pub use self::health::Readiness;
pub use self::router::{Api, api_router, health_router};
pub use self::server::{Bound, bind};
