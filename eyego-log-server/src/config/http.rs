//! HTTP: the address, the limits, the shutdown.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::ConfigError;
use super::value::{Size, Span, memory};

#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[group(skip)]
pub(super) struct Layer {
    /// Address and port to listen on [default: 127.0.0.1:3000]
    #[arg(long, env = "EYEGO_LISTEN", global = true, value_name = "ADDRESS")]
    listen: Option<String>,

    /// The largest event, in bytes as sent [default: 256 KiB]
    #[arg(long, env = "EYEGO_MAX_EVENT_BYTES", global = true, value_name = "SIZE")]
    max_event_bytes: Option<Size>,

    /// The most events in a batch [default: 10000]
    #[arg(long, env = "EYEGO_MAX_BATCH_EVENTS", global = true, value_name = "COUNT")]
    max_batch_events: Option<usize>,

    /// The largest body, in bytes after decompression [default: 16 MiB]
    #[arg(long, env = "EYEGO_MAX_BODY_BYTES", global = true, value_name = "SIZE")]
    max_body_bytes: Option<Size>,

    /// Memory for what is being ingested; past it the answer is 503
    /// [default: 128 MiB]
    #[arg(long, env = "EYEGO_MAX_IN_FLIGHT_BYTES", global = true, value_name = "SIZE")]
    max_in_flight_bytes: Option<Size>,

    /// How long a stop may take [default: 25s]
    #[arg(long, env = "EYEGO_SHUTDOWN_TIMEOUT", global = true, value_name = "DURATION")]
    shutdown_timeout: Option<Span>,

    /// How long to go on serving, already unready, when told to stop: as long
    /// as a load balancer takes to notice [default: 0s]
    #[arg(long, env = "EYEGO_SHUTDOWN_DELAY", global = true, value_name = "DURATION")]
    shutdown_delay: Option<Span>,
}

/// HTTP: the address, the limits, the shutdown.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Where to listen. `EYEGO_LISTEN`, default `127.0.0.1:3000`.
    pub listen: String,
    /// Bytes of one event. `EYEGO_MAX_EVENT_BYTES`, default 256 KiB.
    pub max_event_bytes: usize,
    /// Events in a batch. `EYEGO_MAX_BATCH_EVENTS`, default 10,000.
    pub max_batch_events: usize,
    /// Bytes of a body after decompression. `EYEGO_MAX_BODY_BYTES`, default
    /// 16 MiB.
    pub max_body_bytes: usize,
    /// Bytes of everything that is being ingested.
    /// `EYEGO_MAX_IN_FLIGHT_BYTES`, default 128 MiB.
    pub max_in_flight_bytes: usize,
    /// How long a stop may take. `EYEGO_SHUTDOWN_TIMEOUT`, default 25 s.
    pub shutdown_timeout: Duration,
    /// How long to serve on, unready, before a stop. `EYEGO_SHUTDOWN_DELAY`,
    /// default 0 s.
    pub shutdown_delay: Duration,
}

impl Layer {
    pub(super) fn over(self, below: Self) -> Self {
        Self {
            listen: self.listen.or(below.listen),
            max_event_bytes: self.max_event_bytes.or(below.max_event_bytes),
            max_batch_events: self.max_batch_events.or(below.max_batch_events),
            max_body_bytes: self.max_body_bytes.or(below.max_body_bytes),
            max_in_flight_bytes: self.max_in_flight_bytes.or(below.max_in_flight_bytes),
            shutdown_timeout: self.shutdown_timeout.or(below.shutdown_timeout),
            shutdown_delay: self.shutdown_delay.or(below.shutdown_delay),
        }
    }

    pub(super) fn resolve(self) -> Result<HttpConfig, ConfigError> {
        const KIB: u64 = 1 << 10;
        const MIB: u64 = 1 << 20;

        let max_batch_events = self.max_batch_events.unwrap_or(10_000);
        if max_batch_events == 0 {
            let message = "EYEGO_MAX_BATCH_EVENTS must be at least 1".to_owned();
            return Err(ConfigError::Invalid(message));
        }
        let max_event_bytes = memory(
            "EYEGO_MAX_EVENT_BYTES",
            self.max_event_bytes,
            256 * KIB,
            // MongoDB holds documents of 16 MiB; the rest of one needs room.
            KIB..=15 * MIB,
        )?;
        let max_body_bytes = memory(
            "EYEGO_MAX_BODY_BYTES",
            self.max_body_bytes,
            16 * MIB,
            max_event_bytes as u64..=1024 * MIB,
        )?;
        Ok(HttpConfig {
            listen: self.listen.unwrap_or_else(|| "127.0.0.1:3000".to_owned()),
            max_event_bytes,
            max_batch_events,
            max_body_bytes,
            // A body stands in memory up to four times; at least one must fit.
            max_in_flight_bytes: memory(
                "EYEGO_MAX_IN_FLIGHT_BYTES",
                self.max_in_flight_bytes,
                (128 * MIB).max(4 * max_body_bytes as u64),
                4 * max_body_bytes as u64..=4095 * MIB,
            )?,
            shutdown_timeout: self.shutdown_timeout.map_or(Duration::from_secs(25), |span| span.0),
            shutdown_delay: self.shutdown_delay.map_or(Duration::ZERO, |span| span.0),
        })
    }
}
