//! Validates the options and converts them to the form in which the parts of
//! the client use them.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::{ClientBuilder, parse};
use crate::delivery::RetryPolicy;
use crate::delivery::dispatch::DispatchOptions;
use crate::model::errors::ConfigError;
use crate::model::overflow::Overflow;
use crate::pipeline::BatchLimits;
use crate::pipeline::context::Context;
use crate::pipeline::encode;
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
    /// The environment variables that have set options.
    pub(in crate::api) variables: Vec<&'static str>,
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
pub(in crate::api) fn name_variable(error: ConfigError, variables: &[&str]) -> ConfigError {
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
    let invalid = |errors: &dyn Display| {
        ConfigError::new("common_metadata", format!("is not valid: {errors}"))
    };
    match &builder.common_metadata {
        Ok(context) if context.is_empty() => Ok(None),
        Ok(context) => {
            encode::check_size(context, builder.max_event_bytes)
                .map_err(|error| invalid(&error))?;
            Ok(Some(Arc::new(context.clone())))
        }
        Err(errors) => Err(invalid(errors)),
    }
}

pub(in crate::api) fn validate(builder: ClientBuilder) -> Result<Validated, ConfigError> {
    let variables = builder.variables.clone();
    check(builder).map_err(|error| name_variable(error, &variables))
}

fn check(builder: ClientBuilder) -> Result<Validated, ConfigError> {
    check_ranges(&builder)?;
    let (queue, filter) = (builder.queue_options(), builder.filter());
    let context = common_metadata(&builder)?;
    #[cfg(feature = "spool")]
    let spool = builder.spool_options();
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
        variables: builder.variables,
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
    check_number("max_batch_bytes", max_batch_bytes, 256, 16 << 20, " bytes")?;
    if max_batch_bytes < max_event_bytes {
        let problem = format!(
            "must be at least max_event_bytes, which is {max_event_bytes} bytes, not \
             {max_batch_bytes}"
        );
        return Err(ConfigError::new("max_batch_bytes", problem));
    }
    let (buffer, min_buffer) = (builder.max_buffer_bytes, max_batch_bytes * MIN_BUFFERED_BATCHES);
    if buffer < min_buffer {
        let problem = format!(
            "must be at least {MIN_BUFFERED_BATCHES} times max_batch_bytes, which is {min_buffer} \
             bytes, not {buffer}"
        );
        return Err(ConfigError::new("max_buffer_bytes", problem));
    }
    check_number("max_buffer_bytes", buffer, min_buffer, usize::MAX / 2, " bytes")?;
    check_number("max_in_flight", builder.max_in_flight, 1, 64, "")?;
    for (option, value, min, max) in [
        ("linger", builder.linger, Duration::ZERO, MINUTE),
        ("request_timeout", builder.request_timeout, MILLISECOND, 10 * MINUTE),
        ("delivery_timeout", builder.delivery_timeout, Duration::ZERO, 24 * HOUR),
        ("shutdown_timeout", builder.shutdown_timeout, Duration::ZERO, HOUR),
    ] {
        parse::check_duration(option, value, min, max)?;
    }
    let (base, max) = (builder.retry_base, builder.retry_max);
    if base < MILLISECOND || max < base || max > HOUR {
        let [base, max] = [base, max].map(humantime::format_duration);
        let problem = format!(
            "must have a base from 1ms to 1h and a max from that base to 1h, not {base} and {max}"
        );
        return Err(ConfigError::new("retry", problem));
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
    #[cfg(feature = "spool")]
    builder.check_spool()?;
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
        assert_eq!(invalid_option(|b| b.retry(zero, HOUR)), "retry");
        assert_eq!(invalid_option(|b| b.retry(HOUR, 2 * HOUR)), "retry");
        assert_eq!(invalid_option(|b| b.sample_rate(1.1)), "sample_rate");
        assert_eq!(invalid_option(|b| b.sample_rate(f64::NAN)), "sample_rate");
        assert_eq!(invalid_option(|b| b.common_metadata([1])), "common_metadata");
    }

    fn error(change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> String {
        let builder = change(ClientBuilder::new("http://localhost:3000".to_owned()));
        builder.build().unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_the_other_option_that_causes_it() {
        assert_eq!(
            error(|b| b.max_event_bytes(16 << 20)),
            "max_batch_bytes must be at least max_event_bytes, which is 16777216 bytes, not 524288"
        );
        assert_eq!(
            error(|b| b.max_batch_bytes(16 << 20)),
            "max_buffer_bytes must be at least 4 times max_batch_bytes, which is 67108864 bytes, \
             not 33554432"
        );
        assert_eq!(
            error(|b| b.retry(Duration::from_secs(2), Duration::from_secs(1))),
            "retry must have a base from 1ms to 1h and a max from that base to 1h, not 2s and 1s"
        );
        assert_eq!(error(|b| b.api_key(" ")), "api_key is empty");
    }

    #[test]
    fn common_metadata_must_leave_room_for_an_event() {
        let metadata = |bytes| serde_json::json!({"k": "x".repeat(bytes)});
        let with =
            |bytes| move |b: ClientBuilder| b.max_event_bytes(256).common_metadata(metadata(bytes));
        // The shortest event with it has 119 bytes and the text.
        let builder = with(137)(ClientBuilder::new("http://h".to_owned()));
        assert!(validate(builder.clone()).is_ok());
        let expected = "metadata is too large: the smallest event with it has 257 bytes, but \
                        max_event_bytes is 256";
        assert_eq!(error(with(138)), format!("common_metadata is not valid: {expected}"));
        assert_eq!(error(|b| with(138)(b).disabled(true)), error(with(138)));
        let client = builder.build().unwrap();
        assert!(client.with_metadata(serde_json::json!({"k": 1})).is_ok());
        let error = client.with_metadata(serde_json::json!({"l": ""})).unwrap_err().to_string();
        assert!(error.contains("max_event_bytes is 256"), "{error}");
    }

    #[cfg(feature = "spool")]
    #[test]
    fn options_of_the_spool_need_a_directory_and_have_ranges() {
        use crate::SpoolSync;

        let (zero, years) = (Duration::ZERO, Duration::from_secs(20 * 365 * 24 * 3600));
        let needs = "needs spool_dir";
        assert_eq!(error(|b| b.spool_max_bytes(1 << 30)), format!("spool_max_bytes {needs}"));
        assert_eq!(error(|b| b.spool_max_age(HOUR)), format!("spool_max_age {needs}"));
        assert_eq!(error(|b| b.spool_sync(SpoolSync::EachBatch)), format!("spool_sync {needs}"));
        let error = |change: &dyn Fn(ClientBuilder) -> ClientBuilder| {
            error(|b| change(b.disabled(true).spool_dir("/nowhere")))
        };
        assert_eq!(
            error(&|b| b.spool_max_bytes(7)),
            "spool_max_bytes must be at least 8 times max_batch_bytes, which is 4194304 bytes, not 7"
        );
        let age = error(&|b| b.spool_max_age(years));
        assert!(age.starts_with("spool_max_age must be from 1s to 10years, not "), "{age}");
        let sync = error(&|b| b.spool_sync(SpoolSync::Every(zero)));
        assert_eq!(sync, "spool_sync must be from 1ms to 1h, not 0s");
        assert_eq!(error(&|b| b.spool_dir("")), "spool_dir must not be empty");
    }
}
