//! Options of the HTTP server: address, limits, shutdown.

use std::time::Duration;

use clap::Args;

use super::value::{GIB, KIB, MIB, display_sizes, duration, non_empty, number, size};
use super::{ConfigError, invalid_option};

/// Copies of a body that ingest may hold in memory at the same time.
const COPIES_OF_A_BODY: usize = 4;

const DEFAULT_IN_FLIGHT_BYTES: usize = 128 << 20;

/// Address, limits and shutdown of the HTTP server.
#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "HTTP")]
pub struct HttpConfig {
    /// Address and port to listen on.
    #[arg(
        long,
        env = "EYEGO_LISTEN",
        default_value = "127.0.0.1:3000",
        value_name = "ADDRESS",
        value_parser = non_empty
    )]
    pub listen: String,

    /// Maximum size of one event, as sent. Larger events get 413.
    // A MongoDB document holds up to 16 MiB, including what the server adds.
    #[arg(
        long,
        env = "EYEGO_MAX_EVENT_BYTES",
        default_value = "256KiB",
        value_name = "SIZE",
        value_parser = size::<usize>(KIB..=15 * MIB)
    )]
    pub max_event_bytes: usize,

    /// Maximum number of events in a batch. Larger batches get 413.
    #[arg(
        long,
        env = "EYEGO_MAX_BATCH_EVENTS",
        default_value = "10000",
        value_name = "COUNT",
        value_parser = number::<usize>(1)
    )]
    pub max_batch_events: usize,

    /// Maximum size of a request body after decompression. Larger bodies get 413.
    /// At least `max-event-bytes`.
    #[arg(
        long,
        env = "EYEGO_MAX_BODY_BYTES",
        default_value = "16MiB",
        value_name = "SIZE",
        value_parser = size::<usize>(KIB..=GIB)
    )]
    pub max_body_bytes: usize,

    /// Memory for events being ingested. Beyond it, ingest requests get 503. At
    /// least four times `max-body-bytes` [default: 128 MiB, or four times
    /// `max-body-bytes` if that is more]
    #[arg(
        long,
        env = "EYEGO_MAX_IN_FLIGHT_BYTES",
        value_name = "SIZE",
        value_parser = size::<usize>(4 * KIB..=4095 * MIB)
    )]
    max_in_flight_bytes: Option<usize>,

    /// Memory for the results of reads until clients have received them. A quarter
    /// is reserved for results of up to 256 KiB. Beyond it, reads get 503.
    #[arg(
        long,
        env = "EYEGO_MAX_READ_BYTES",
        default_value = "128MiB",
        value_name = "SIZE",
        value_parser = size::<usize>(32 * MIB..=4095 * MIB)
    )]
    pub max_read_bytes: usize,

    /// Maximum number of open connections. Beyond it, a new connection takes the place
    /// of the one that has been idle for the longest time; if none is idle, it gets
    /// 503. A few more are accepted for health and metrics. Lowered if the limit of
    /// open files does not allow it [default: 1024]
    #[arg(
        long,
        env = "EYEGO_MAX_CONNECTIONS",
        value_name = "COUNT",
        value_parser = number::<usize>(1)
    )]
    pub max_connections: Option<usize>,

    /// Time limit for a graceful shutdown.
    #[arg(
        long,
        env = "EYEGO_SHUTDOWN_TIMEOUT",
        default_value = "25s",
        value_name = "DURATION",
        value_parser = duration
    )]
    pub shutdown_timeout: Duration,

    /// Time to keep serving after the signal to stop while readiness reports 503,
    /// so that load balancers stop sending requests first.
    #[arg(
        long,
        env = "EYEGO_SHUTDOWN_DELAY",
        default_value = "0s",
        value_name = "DURATION",
        value_parser = duration
    )]
    pub shutdown_delay: Duration,
}

impl HttpConfig {
    /// Returns the memory for events being ingested, in bytes.
    /// `EYEGO_MAX_IN_FLIGHT_BYTES`, by default 128 MiB or four times
    /// `max_body_bytes`, whichever is more.
    #[must_use]
    pub fn max_in_flight_bytes(&self) -> usize {
        let default = DEFAULT_IN_FLIGHT_BYTES.max(COPIES_OF_A_BODY * self.max_body_bytes);
        self.max_in_flight_bytes.unwrap_or(default)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        at_least(
            "EYEGO_MAX_BODY_BYTES",
            self.max_body_bytes,
            "EYEGO_MAX_EVENT_BYTES",
            self.max_event_bytes,
        )?;
        at_least(
            "EYEGO_MAX_IN_FLIGHT_BYTES",
            self.max_in_flight_bytes(),
            "four times EYEGO_MAX_BODY_BYTES",
            COPIES_OF_A_BODY * self.max_body_bytes,
        )
    }
}

fn at_least(variable: &str, bytes: usize, other: &str, minimum: usize) -> Result<(), ConfigError> {
    if bytes >= minimum {
        return Ok(());
    }
    let (minimum, bytes) = display_sizes(minimum as u64, bytes as u64);
    let message = format!("{variable} must be at least {other}, which is {minimum}, not {bytes}");
    invalid_option(variable, &message)
}
