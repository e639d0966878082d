//! Small example programs that use eyego-log; see `src/bin`.
//!
//! Each uses the server at `EYEGO_LOG_URL` and exits when it is done:
//! `EYEGO_LOG_URL=http://localhost:3000 cargo run -p eyego-log-examples --bin quickstart`
//!
//! | program | shows |
//! |---|---|
//! | `quickstart` | logging events, waiting for one, reading events back, shutting down |
//! | `axum_service` | a web service that logs requests with a layer and user actions directly |
//! | `tracing_events` | `tracing` events that are logged |
//! | `without_async` | a program without async |
//! | `worker_with_spool` | events that survive a crash because they are on disk |
//! | `stats` | events of the last day, counted by hour and action |
//! | `export` | all events of a user as CSV |
//! | `tail` | events of a user as they are stored |
//! | `load` | many events from several threads, and how long it took |
