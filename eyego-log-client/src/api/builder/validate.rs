//! Validates the options and converts them to the form in which the parts of
//! the client use them.

use std::sync::Arc;
use std::time::Duration;

use super::{ClientBuilder, parse};
use crate::delivery::RetryPolicy;
use crate::delivery::dispatch::DispatchOptions;
use crate::model::errors::ConfigError;
use crate::model::overflow::Overflow;
use crate::pipeline::BatchLimits;
use crate::pipeline::context::Context;
use crate::pipeline::event_queue::QueueOptions;
use crate::pipeline::filter::Filter;
use crate::pipeline::hooks::Hooks;
use crate::spool::SpoolOptions;
use crate::transport::Transport;
use crate::transport::endpoint::Endpoint;

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// The minimum size of the buffer, in batches of the maximum size.
const MIN_BUFFERED_BATCHES: usize = 4;

/// Valid options, by the part that uses them.
pub(in crate::api) struct Validated {
    pub(in crate::api) endpoint: Endpoint,
    pub(in crate::api) transport: Arc<dyn Transport>,
    pub(in crate::api) queue: QueueOptions,
    pub(in crate::api) dispatch: DispatchOptions,
    pub(in crate::api) request_timeout: Duration,
    pub(in crate::api) spool: Option<SpoolOptions>,
    pub(in crate::api) max_event_bytes: usize,
    pub(in crate::api) shutdown_timeout: Duration,
    pub(in crate::api) hooks: Hooks,
    pub(in crate::api) filter: Option<Filter>,
    pub(in crate::api) context: Option<Arc<Context>>,
}

/// Checks the options of a disabled client, which uses neither the URL nor any
/// file.
pub(in crate::api) fn validate_disabled(builder: &ClientBuilder) -> Result<(), ConfigError> {
    check_ranges(builder).map_err(|error| name_variable(error, &builder.variables))?;
    common_metadata(builder).map(drop)
}

/// Adds the name of the environment variable that has set the option: a prefix and
/// the option in upper case.
fn name_variable(error: ConfigError, variables: &[&str]) -> ConfigError {
    let name = format!("EYEGO_LOG_{}", error.option().to_ascii_uppercase());
    match variables.iter().find(|variable| **variable == name) {
        Some(variable) => error.with_note(&format!("set by {variable}")),
        None => error,
    }
}

impl ClientBuilder {
    pub(in crate::api) fn queue_options(&self) -> QueueOptions {
        QueueOptions {
            batch: BatchLimits {
                events: self.max_batch_events,
                bytes: self.max_batch_bytes,
                // Leaves time to send an event before it expires.
                linger: self.linger.min(self.delivery_timeout / 2),
            },
            max_bytes: self.max_buffer_bytes,
            overflow: self.overflow,
        }
    }

    fn filter(&self) -> Option<Filter> {
        let is_needed = self.sample_rate < 1.0 || self.before_send.is_some();
        is_needed.then(|| Filter {
            is_disabled: false,
            sample_rate: self.sample_rate,
            before_send: self.before_send.clone(),
        })
    }
}

fn common_metadata(builder: &ClientBuilder) -> Result<Option<Arc<Context>>, ConfigError> {
    match &builder.common_metadata {
        Ok(context) if context.is_empty() => Ok(None),
        Ok(context) => Ok(Some(Arc::new(context.clone()))),
        Err(errors) => Err(ConfigError::new("common_metadata", format!("is not valid: {errors}"))),
    }
}

pub(in crate::api) fn validate(mut builder: ClientBuilder) -> Result<Validated, ConfigError> {
    let variables = std::mem::take(&mut builder.variables);
    check(builder).map_err(|error| name_variable(error, &variables))
}

fn check(builder: ClientBuilder) -> Result<Validated, ConfigError> {
    check_ranges(&builder)?;
    let (queue, filter) = (builder.queue_options(), builder.filter());
    let context = common_metadata(&builder)?;
    #[cfg(feature = "spool")]
    let spool = builder.spool_options()?;
    #[cfg(not(feature = "spool"))]
    let spool = None;
    let mut max_in_flight = builder.max_in_flight;
    if spool.is_some() {
        // The other half accepts events, and takes them to the spool, while the
        // server is down.
        let half = builder.max_buffer_bytes / builder.max_batch_bytes / 2;
        max_in_flight = max_in_flight.min(half);
    }
    let (endpoint, transport) = builder.connection.open()?;
    Ok(Validated {
        endpoint,
        transport,
        queue,
        dispatch: DispatchOptions {
            retry: RetryPolicy {
                base: builder.retry_base,
                max: builder.retry_max,
                delivery_timeout: builder.delivery_timeout,
            },
            max_in_flight,
            compression: builder.compression,
            max_batch_events: builder.max_batch_events,
            max_refused_bytes: builder.max_buffer_bytes / 2,
            request_timeout: builder.request_timeout,
        },
        request_timeout: builder.request_timeout,
        spool,
        max_event_bytes: builder.max_event_bytes,
        shutdown_timeout: builder.shutdown_timeout,
        hooks: builder.hooks,
        filter,
        context,
    })
}

fn check_ranges(builder: &ClientBuilder) -> Result<(), ConfigError> {
    let ClientBuilder { max_batch_bytes, max_event_bytes, .. } = *builder;
    builder.connection.check_transport()?;
    check_number("max_batch_events", builder.max_batch_events, 1, 10_000, "")?;
    check_number("max_event_bytes", max_event_bytes, 256, 16 << 20, " bytes")?;
    check_number("max_batch_bytes", max_batch_bytes, max_event_bytes, 16 << 20, " bytes")?;
    let min_buffer = max_batch_bytes.saturating_mul(MIN_BUFFERED_BATCHES);
    let max_buffer = usize::MAX / 2;
    check_number("max_buffer_bytes", builder.max_buffer_bytes, min_buffer, max_buffer, " bytes")?;
    check_number("max_in_flight", builder.max_in_flight, 1, 64, "")?;
    for (option, value, min, max) in [
        ("linger", builder.linger, Duration::ZERO, MINUTE),
        ("request_timeout", builder.request_timeout, MILLISECOND, 10 * MINUTE),
        ("retry", builder.retry_base, MILLISECOND, HOUR),
        ("retry", builder.retry_max, builder.retry_base, HOUR),
        ("delivery_timeout", builder.delivery_timeout, Duration::ZERO, 24 * HOUR),
        ("shutdown_timeout", builder.shutdown_timeout, Duration::ZERO, HOUR),
    ] {
        parse::check_duration(option, value, min, max)?;
    }
    if let Overflow::Block(timeout) = builder.overflow {
        parse::check_duration("overflow", timeout, Duration::ZERO, HOUR)?;
    }
    if !(0.0..=1.0).contains(&builder.sample_rate) {
        let problem = format!("must be from 0 to 1, not {}", builder.sample_rate);
        return Err(ConfigError::new("sample_rate", problem));
    }
    if builder.compression && !cfg!(feature = "zstd") {
        return Err(ConfigError::new("compression", "needs the crate feature `zstd`"));
    }
    Ok(())
}

fn check_number(
    option: &'static str,
    value: usize,
    min: usize,
    max: usize,
    unit: &str,
) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::new(option, format!("must be from {min} to {max}{unit}, not {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the option that is invalid after `change`.
    fn invalid_option(change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> String {
        let builder = change(ClientBuilder::new("http://localhost:3000".to_owned()));
        validate(builder).err().unwrap().option().to_owned()
    }

    #[test]
    fn an_invalid_option_is_named_in_the_error() {
        let zero = Duration::ZERO;
        assert_eq!(invalid_option(|b| b.max_batch_events(0)), "max_batch_events");
        assert_eq!(invalid_option(|b| b.max_event_bytes(1 << 20)), "max_batch_bytes");
        assert_eq!(invalid_option(|b| b.max_buffer_bytes(1 << 20)), "max_buffer_bytes");
        assert_eq!(invalid_option(|b| b.max_in_flight(0)), "max_in_flight");
        assert_eq!(invalid_option(|b| b.request_timeout(zero)), "request_timeout");
        assert_eq!(invalid_option(|b| b.retry(HOUR, Duration::from_secs(1))), "retry");
        assert_eq!(invalid_option(|b| b.sample_rate(1.1)), "sample_rate");
        assert_eq!(invalid_option(|b| b.sample_rate(f64::NAN)), "sample_rate");
        assert_eq!(invalid_option(|b| b.common_metadata([1])), "common_metadata");
    }
}
