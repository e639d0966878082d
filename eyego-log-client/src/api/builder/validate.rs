//! Validates the options and converts them to the form in which the parts of
//! the client use them.

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{ClientBuilder, parse};
use crate::delivery::RetryPolicy;
use crate::delivery::dispatch::DispatchOptions;
use crate::model::errors::ConfigError;
use crate::pipeline::BatchLimits;
use crate::pipeline::context::Context;
use crate::pipeline::event_queue::{Overflow, QueueOptions};
use crate::pipeline::filter::Filter;
use crate::pipeline::reporter::Hooks;
use crate::spool::SpoolOptions;
use crate::transport::Transport;
use crate::transport::api_key::ApiKey;
use crate::transport::describe::without_credentials;
use crate::transport::endpoint::{API_PATH, Endpoint};
use crate::transport::http_client::HttpTransport;

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
    check_ranges(builder)?;
    common_metadata(builder).map(drop)
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

pub(in crate::api) fn validate(builder: ClientBuilder) -> Result<Validated, ConfigError> {
    check_ranges(&builder)?;
    let (base_url, is_https) = base_url(&builder.url)?;
    let (headers, api_key) = (headers(&builder)?, api_key(&builder)?);
    let endpoint = Endpoint::new(base_url, headers, api_key)
        .map_err(|error| ConfigError::new("url", format!("is not valid: {error}")))?;
    let (queue, filter) = (builder.queue_options(), builder.filter());
    let context = common_metadata(&builder)?;
    #[cfg(feature = "spool")]
    let spool = builder.spool_options()?;
    #[cfg(not(feature = "spool"))]
    let spool = None;
    let transport = match builder.transport {
        Some(transport) => transport,
        None => Arc::new(HttpTransport::new(is_https, builder.tls)?),
    };
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
            max_in_flight: builder.max_in_flight,
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
    let files = [("ca_file", &builder.tls.ca_file), ("identity_file", &builder.tls.identity_file)];
    for (option, file) in files {
        if file.is_some() && builder.transport.is_some() {
            let problem = "cannot be combined with http_client or transport";
            return Err(ConfigError::new(option, problem));
        }
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
    let shown = without_credentials(text);
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
    Ok((format!("{}{API_PATH}", text.trim_end_matches('/')), is_https))
}

fn api_key(builder: &ClientBuilder) -> Result<ApiKey, ConfigError> {
    match (&builder.api_key, &builder.api_key_file) {
        (None, None) => Ok(ApiKey::None),
        (Some(_), Some(_)) => {
            Err(ConfigError::new("api_key_file", "cannot be combined with api_key"))
        }
        (Some(key), None) => ApiKey::fixed(key),
        (None, Some(path)) => ApiKey::from_file(path.clone()),
    }
}

/// Returns the program's own headers. Errors do not show their values.
fn headers(builder: &ClientBuilder) -> Result<HeaderMap, ConfigError> {
    /// The client sets these itself.
    const RESERVED: [HeaderName; 5] =
        [CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING];

    let has_key = builder.api_key.is_some() || builder.api_key_file.is_some();
    let mut headers = HeaderMap::new();
    for (name, value) in &builder.headers {
        let invalid = |problem: &str| ConfigError::new("header", format!("{name:?} {problem}"));
        let name: HeaderName = name.parse().map_err(|_| invalid("is not a valid header name"))?;
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| invalid("has a value that no header can have"))?;
        if RESERVED.contains(&name) {
            return Err(invalid("is set by the client"));
        }
        if name == AUTHORIZATION && has_key {
            return Err(invalid("cannot be combined with api_key or api_key_file"));
        }
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
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
        assert_eq!(invalid_option(|b| b.sample_rate(1.1)), "sample_rate");
        assert_eq!(invalid_option(|b| b.sample_rate(f64::NAN)), "sample_rate");
        assert_eq!(invalid_option(|b| b.common_metadata([1])), "common_metadata");
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

    #[test]
    fn a_header_of_the_client_or_an_invalid_one_is_an_error() {
        for (name, value) in [
            ("content-length", "1"),
            ("Content-Type", "text/plain"),
            ("a b", "c"),
            ("x-token", "secret\n"),
        ] {
            let builder = ClientBuilder::new("http://h".to_owned()).header(name, value);
            let error = validate(builder).err().unwrap();
            assert_eq!(error.option(), "header", "{name}");
            assert!(error.to_string().contains(name) && !error.to_string().contains("secret"));
        }
        assert_eq!(invalid_option(|b| b.api_key("k").header("authorization", "x")), "header");
        let builder = ClientBuilder::new("http://h".to_owned()).header("x-token", "secret");
        assert!(!format!("{builder:?}").contains("secret"));
        let endpoint = validate(builder).ok().unwrap().endpoint;
        assert!(!format!("{endpoint:?}").contains("secret"), "{endpoint:?}");
    }

    #[cfg(any(feature = "tls", feature = "native-tls"))]
    #[test]
    fn an_invalid_certificate_file_is_an_error_when_building() {
        assert_eq!(invalid_option(|b| b.identity_file("/no/such/file")), "identity_file");
        assert_eq!(invalid_option(|b| b.identity_file("Cargo.toml")), "identity_file");
        assert_eq!(invalid_option(|b| b.ca_file("/no/such/file")), "ca_file");
        assert_eq!(invalid_option(|b| b.ca_file("Cargo.toml")), "ca_file");
    }
}
