//! Publishes the statistics of a client with the `metrics` crate (crate feature
//! `metrics`).
//!
//! [`publish`] copies the current [`Stats`](crate::Stats) of a client to the
//! recorder of the program, for example before each scrape or every few seconds. It
//! takes a few microseconds, and the client does nothing in between.
//!
//! ```
//! use eyego_log_client::{Client, metrics};
//!
//! # let client = Client::disabled();
//! // Wherever the program prepares its own metrics:
//! metrics::publish(&client);
//! ```
//!
//! | metric | kind | meaning |
//! |---|---|---|
//! | `eyego_log_client_accepted_total` | counter | valid events that were handed to the client |
//! | `eyego_log_client_delivered_total` | counter | events that the server holds durably |
//! | `eyego_log_client_lost_total{reason}` | counter | lost events, by [`LossReason`](crate::LossReason) |
//! | `eyego_log_client_invalid_total` | counter | events that the call rejected |
//! | `eyego_log_client_filtered_total` | counter | events that `before_send` excluded |
//! | `eyego_log_client_sampled_out_total` | counter | events that `sample_rate` excluded |
//! | `eyego_log_client_disabled_total` | counter | valid events that a disabled client discarded |
//! | `eyego_log_client_unreported_total` | counter | lost events for which `on_loss` was too slow |
//! | `eyego_log_client_unreported_deliveries_total` | counter | delivered events for which `on_delivery` was too slow |
//! | `eyego_log_client_unspooled_total` | counter | events that were sent without being spooled first, because the spool was full or failed |
//! | `eyego_log_client_recovered_total` | counter | events that an earlier process left in the spool |
//! | `eyego_log_client_unexpected_responses_total` | counter | responses that no eyego-log server sent |
//! | `eyego_log_client_split_batches_total` | counter | batches that were split because the server refused them as a whole |
//! | `eyego_log_client_worker_restarts_total` | counter | restarts of the client's thread after a panic |
//! | `eyego_log_client_requests_total` | counter | requests that deliver events, including retries |
//! | `eyego_log_client_failed_requests_total` | counter | those that failed and can be retried |
//! | `eyego_log_client_sent_bytes_total` | counter | bytes of their bodies, after compression |
//! | `eyego_log_client_request_milliseconds_total` | counter | how long the finished ones took together |
//! | `eyego_log_client_pending` | gauge | events that are not delivered yet |
//! | `eyego_log_client_pending_bytes` | gauge | bytes of memory that they occupy |
//! | `eyego_log_client_refused` | gauge | pending events that the server refused for now |
//! | `eyego_log_client_spool_bytes` | gauge | bytes of the spool files |
//! | `eyego_log_client_last_success_timestamp_seconds` | gauge | when the server last accepted an event; missing before |
//!
//! Clients overwrite each other's figures, so a program should build one client and
//! clone it.

#![expect(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]

use ::metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::api::client::Client;

/// Copies the current statistics of `client` to the recorder of the program. Does
/// nothing if the program has no recorder.
pub fn publish(client: &Client) {
    let stats = client.stats();
    let request_millis = u64::try_from(stats.request_time.as_millis()).unwrap_or(u64::MAX);
    for (name, value, description) in [
        (
            "eyego_log_client_accepted_total",
            stats.accepted,
            "Valid events that were handed to the client.",
        ),
        (
            "eyego_log_client_delivered_total",
            stats.delivered,
            "Events that the server holds durably.",
        ),
        ("eyego_log_client_invalid_total", stats.invalid, "Events that the call rejected."),
        ("eyego_log_client_filtered_total", stats.filtered, "Events that `before_send` excluded."),
        (
            "eyego_log_client_sampled_out_total",
            stats.sampled_out,
            "Events that `sample_rate` excluded.",
        ),
        (
            "eyego_log_client_disabled_total",
            stats.disabled,
            "Valid events that a disabled client discarded.",
        ),
        (
            "eyego_log_client_unreported_total",
            stats.unreported,
            "Lost events for which `on_loss` was too slow.",
        ),
        (
            "eyego_log_client_unreported_deliveries_total",
            stats.unreported_deliveries,
            "Delivered events for which `on_delivery` was too slow.",
        ),
        (
            "eyego_log_client_unspooled_total",
            stats.unspooled,
            "Events that were sent without being spooled first, because the spool was full or failed.",
        ),
        (
            "eyego_log_client_recovered_total",
            stats.recovered,
            "Events that an earlier process left in the spool.",
        ),
        (
            "eyego_log_client_unexpected_responses_total",
            stats.unexpected_responses,
            "Responses that no eyego-log server sent.",
        ),
        (
            "eyego_log_client_split_batches_total",
            stats.split_batches,
            "Batches that were split because the server refused them as a whole.",
        ),
        (
            "eyego_log_client_worker_restarts_total",
            stats.worker_restarts,
            "Restarts of the client's thread after a panic.",
        ),
        (
            "eyego_log_client_requests_total",
            stats.requests,
            "Requests that deliver events, including retries.",
        ),
        (
            "eyego_log_client_failed_requests_total",
            stats.failed_requests,
            "Requests that failed and can be retried.",
        ),
        (
            "eyego_log_client_sent_bytes_total",
            stats.sent_bytes,
            "Bytes of the bodies of requests, after compression.",
        ),
        (
            "eyego_log_client_request_milliseconds_total",
            request_millis,
            "How long the finished requests took together.",
        ),
    ] {
        describe_counter!(name, description);
        counter!(name).absolute(value);
    }
    describe_counter!("eyego_log_client_lost_total", "Lost events, by reason.");
    for (reason, count) in stats.lost.iter() {
        counter!("eyego_log_client_lost_total", "reason" => reason.as_str()).absolute(count);
    }
    let last_success = stats.last_success.map(|time| time.as_millis() as f64 / 1000.0);
    for (name, value, description) in [
        (
            "eyego_log_client_pending",
            Some(stats.pending as f64),
            "Events that are not delivered yet.",
        ),
        (
            "eyego_log_client_pending_bytes",
            Some(stats.pending_bytes as f64),
            "Bytes of memory that pending events occupy.",
        ),
        (
            "eyego_log_client_refused",
            Some(stats.refused as f64),
            "Pending events that the server refused for now.",
        ),
        (
            "eyego_log_client_spool_bytes",
            Some(stats.spool_bytes as f64),
            "Bytes of the spool files.",
        ),
        (
            "eyego_log_client_last_success_timestamp_seconds",
            last_success,
            "When the server last accepted an event.",
        ),
    ] {
        if let Some(value) = value {
            describe_gauge!(name, description);
            gauge!(name).set(value);
        }
    }
}
