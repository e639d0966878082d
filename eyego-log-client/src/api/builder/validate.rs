//! Validates the options and converts them to the form in which the parts of
//! the client use them.

use std::sync::Arc;
use std::time::Duration;

use super::{ClientBuilder, parse};
use crate::delivery::RetryPolicy;
use crate::delivery::dispatch::DispatchOptions;
use crate::model::errors::ConfigError;
use crate::pipeline::BatchLimits;
use crate::pipeline::event_queue::{Overflow, QueueOptions};
use crate::pipeline::reporter::{LossHook, ProblemHook};
use crate::spool::SpoolOptions;
use crate::transport::Transport;
use crate::transport::endpoint::Endpoint;
use crate::transport::http::HttpTransport;

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
    pub(in crate::api) on_loss: Option<LossHook>,
    pub(in crate::api) on_problem: Option<ProblemHook>,
}

pub(in crate::api) fn validate(builder: ClientBuilder) -> Result<Validated, ConfigError> {
    check_ranges(&builder)?;
    let (base_url, is_https) = base_url(&builder.url)?;
    let endpoint = Endpoint::new(base_url, api_key(&builder)?.as_deref());
    #[cfg(feature = "spool")]
    let spool = builder.spool_options()?;
    #[cfg(not(feature = "spool"))]
    let spool = None;
    let transport = match builder.transport {
        Some(transport) => transport,
        None => Arc::new(HttpTransport::new(is_https, builder.ca_file.as_deref())?),
    };
    Ok(Validated {
        endpoint,
        transport,
        queue: QueueOptions {
            batch: BatchLimits {
                events: builder.max_batch_events,
                bytes: builder.max_batch_bytes,
                linger: builder.linger,
            },
            max_bytes: builder.max_buffer_bytes,
            overflow: builder.overflow,
        },
        dispatch: DispatchOptions {
            retry: RetryPolicy {
                base: builder.retry_base,
                max: builder.retry_max,
                delivery_timeout: builder.delivery_timeout,
            },
            max_in_flight: builder.max_in_flight,
            compression: builder.compression,
        },
        request_timeout: builder.request_timeout,
        spool,
        max_event_bytes: builder.max_event_bytes,
        shutdown_timeout: builder.shutdown_timeout,
        on_loss: builder.on_loss,
        on_problem: builder.on_problem,
    })
}

fn check_ranges(builder: &ClientBuilder) -> Result<(), ConfigError> {
    let ClientBuilder { max_batch_bytes, max_event_bytes, .. } = *builder;
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
    if builder.compression && !cfg!(feature = "zstd") {
        return Err(ConfigError::new("compression", "needs the crate feature `zstd`"));
    }
    if builder.ca_file.is_some() && builder.transport.is_some() {
        return Err(ConfigError::new("ca_file", "cannot be combined with transport"));
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

/// Returns the URL of the API, and whether it needs TLS.
fn base_url(text: &str) -> Result<(String, bool), ConfigError> {
    let shown = parse::without_userinfo(text);
    let invalid = |problem: &str| Err(ConfigError::new("url", format!("{problem}: {shown}")));
    let text = text.trim();
    let url: http::Uri = match text.parse() {
        Ok(url) => url,
        Err(error) => {
            return invalid(&format!("must be a URL such as http://localhost:3000 ({error})"));
        }
    };
    let is_https = match url.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return invalid("must begin with http:// or https://"),
    };
    if url.host().is_none_or(str::is_empty) {
        return invalid("must have a host");
    }
    if url.query().is_some() || text.contains('#') {
        return invalid("must not have a query or a fragment");
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return invalid("must not contain a user name or password; use api_key");
    }
    Ok((format!("{}/api/v1", text.trim_end_matches('/')), is_https))
}

fn api_key(builder: &ClientBuilder) -> Result<Option<String>, ConfigError> {
    let (option, key) = match (&builder.api_key, &builder.api_key_file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(ConfigError::new("api_key_file", "cannot be combined with api_key"));
        }
        (Some(key), None) => ("api_key", key.clone()),
        (None, Some(path)) => {
            let contents = std::fs::read_to_string(path).map_err(|error| {
                let problem = format!("{} cannot be read: {error}", path.display());
                ConfigError::new("api_key_file", problem)
            });
            ("api_key_file", contents?)
        }
    };
    let key = key.trim();
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = "must consist of visible ASCII characters without spaces";
        return Err(ConfigError::new(option, problem));
    }
    Ok(Some(key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate_url(url: &str) -> Result<Validated, ConfigError> {
        validate(ClientBuilder::new(url.to_owned()))
    }

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
        assert_eq!(invalid_option(|b| b.api_key("a b")), "api_key");
        assert_eq!(invalid_option(|b| b.api_key_file("/no/such/file")), "api_key_file");
        assert_eq!(invalid_option(|b| b.api_key("k").api_key_file("f")), "api_key_file");
    }

    #[test]
    fn an_invalid_url_is_shown_without_its_password() {
        for url in ["", "localhost", "ftp://host", "http://", "http://h?x=1", "http://u:secret@h"] {
            let error = validate_url(url).err().unwrap();
            assert_eq!(error.option(), "url", "{url}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_api_path_is_appended_to_the_path_of_the_url() {
        let validated = validate_url("http://localhost:3000/behind/a/proxy/").ok().unwrap();
        let expected = "http://localhost:3000/behind/a/proxy/api/v1";
        assert_eq!(validated.endpoint.base_url(), expected);
    }

    #[cfg(feature = "tls")]
    #[test]
    fn an_invalid_ca_file_is_an_error_when_building() {
        assert_eq!(invalid_option(|b| b.ca_file("/no/such/file")), "ca_file");
        assert_eq!(invalid_option(|b| b.ca_file("Cargo.toml")), "ca_file");
    }
}
