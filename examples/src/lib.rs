//! Small programs that use eyego-log, to copy from: see `src/bin`.
//!
//! Each runs against the server at `EYEGO_LOG_URL` and ends by itself:
//! `EYEGO_LOG_URL=http://localhost:3000 cargo run -p eyego-log-examples --bin quickstart`
//!
//! | program | shows |
//! |---|---|
//! | `quickstart` | logging, waiting for one event, reading back, the end |
//! | `axum_service` | a web service that logs its requests by a layer, and its users' deeds by hand |
//! | `tracing_events` | marked `tracing` events that become logs |
//! | `without_async` | a program without async |
//! | `worker_with_spool` | events that outlive a crash: on disk until they are delivered |
//! | `load` | a million events from several threads, and what it cost |
