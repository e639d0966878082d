//! What the options must be, each alone and together, and what is made of
//! them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Builder, Overflow};
use crate::buffer::BatchLimits;
use crate::error::ConfigError;
use crate::loss::{LossHook, ProblemHook};
use crate::retry::RetryPolicy;
use crate::spool::SpoolOptions;
use crate::transport::Transport;
use crate::transport::http::HttpTransport;

const HOUR: Duration = Duration::from_secs(3600);

/// Options that make sense, in the form in which they are used.
pub(crate) struct Validated {
    /// `http://host:3000/api/v1`, without a slash at its end.
    pub(crate) base_url: String,
    pub(crate) authorization: Option<String>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) batch: BatchLimits,
    pub(crate) retry: RetryPolicy,
    pub(crate) max_event_bytes: usize,
    pub(crate) max_buffer_bytes: usize,
    pub(crate) overflow: Overflow,
    pub(crate) max_in_flight: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) compression: bool,
    /// Taken by the client as it starts.
    pub(crate) spool: Option<SpoolOptions>,
    pub(crate) on_loss: Option<LossHook>,
    pub(crate) on_problem: Option<ProblemHook>,
}

pub(super) fn validate(builder: Builder) -> Result<Validated, ConfigError> {
    check_ranges(&builder)?;
    let (base_url, is_https) = check_url(&builder.url)?;
    let authorization = api_key(&builder)?.map(|key| format!("Bearer {key}"));
    let transport = match builder.transport {
        Some(transport) => transport,
        None => Arc::new(HttpTransport::new(is_https, builder.ca_file.as_deref())?),
    };
    #[cfg(feature = "spool")]
    let spool = builder.spool.validate(builder.max_batch_bytes)?;
    #[cfg(not(feature = "spool"))]
    let spool = None;
    Ok(Validated {
        base_url,
        authorization,
        transport,
        batch: BatchLimits {
            events: builder.max_batch_events,
            bytes: builder.max_batch_bytes,
            linger: builder.linger,
        },
        retry: RetryPolicy {
            base: builder.retry_base,
            max: builder.retry_max,
            delivery_timeout: builder.delivery_timeout,
        },
        max_event_bytes: builder.max_event_bytes,
        max_buffer_bytes: builder.max_buffer_bytes,
        overflow: builder.overflow,
        max_in_flight: builder.max_in_flight,
        request_timeout: builder.request_timeout,
        shutdown_timeout: builder.shutdown_timeout,
        compression: builder.compression,
        spool,
        on_loss: builder.on_loss,
        on_problem: builder.on_problem,
    })
}

fn check_ranges(builder: &Builder) -> Result<(), ConfigError> {
    let Builder { max_batch_bytes, max_event_bytes, .. } = *builder;
    check("max_batch_events", builder.max_batch_events, 1, 10_000, "")?;
    check("max_event_bytes", max_event_bytes, 256, 16 << 20, " bytes")?;
    check("max_batch_bytes", max_batch_bytes, max_event_bytes, 16 << 20, " bytes")?;
    let least = max_batch_bytes.saturating_mul(4);
    check("max_buffer_bytes", builder.max_buffer_bytes, least, usize::MAX / 2, " bytes")?;
    check("max_in_flight", builder.max_in_flight, 1, 64, "")?;
    let millisecond = Duration::from_millis(1);
    let durations = [
        ("linger", builder.linger, Duration::ZERO, Duration::from_secs(60)),
        ("request_timeout", builder.request_timeout, millisecond, Duration::from_secs(600)),
        ("retry", builder.retry_base, millisecond, HOUR),
        ("retry", builder.retry_max, builder.retry_base, HOUR),
        ("delivery_timeout", builder.delivery_timeout, Duration::ZERO, 24 * HOUR),
        ("shutdown_timeout", builder.shutdown_timeout, Duration::ZERO, HOUR),
    ];
    for (option, value, least, most) in durations {
        if value < least || value > most {
            let fault = format!("must be from {least:?} to {most:?}, not {value:?}");
            return Err(ConfigError::new(option, fault));
        }
    }
    if let Overflow::Block(timeout) = builder.overflow
        && timeout > HOUR
    {
        let fault = format!("must not block longer than {HOUR:?}, not {timeout:?}");
        return Err(ConfigError::new("overflow", fault));
    }
    if builder.compression && !cfg!(feature = "zstd") {
        return Err(ConfigError::new("compression", "needs the feature zstd"));
    }
    if builder.ca_file.is_some() && builder.transport.is_some() {
        return Err(ConfigError::new("ca_file", "must not be combined with a transport"));
    }
    Ok(())
}

fn check(
    option: &'static str,
    value: usize,
    least: usize,
    most: usize,
    unit: &str,
) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::new(option, format!("must be from {least} to {most}{unit}, not {value}")))
}

/// The URL of the API, and whether it needs TLS.
fn check_url(text: &str) -> Result<(String, bool), ConfigError> {
    let shown = without_userinfo(text);
    let fault = |fault: &str| Err(ConfigError::new("url", format!("{fault}: {shown}")));
    let text = text.trim();
    let url: http::Uri = match text.parse() {
        Ok(url) => url,
        Err(error) => return fault(&format!("must be such as http://localhost:3000 ({error})")),
    };
    let is_https = match url.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return fault("must begin with http:// or https://"),
    };
    if url.host().is_none_or(str::is_empty) {
        return fault("must name a host");
    }
    if url.query().is_some() || text.contains('#') {
        return fault("must have neither a query nor a fragment");
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return fault("must not hold a name or a password; use api_key");
    }
    Ok((format!("{}/api/v1", text.trim_end_matches('/')), is_https))
}

/// The URL without what may be a password.
pub(super) fn without_userinfo(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        _ => url.to_owned(),
    }
}

fn api_key(builder: &Builder) -> Result<Option<String>, ConfigError> {
    let (option, key) = match (&builder.api_key, &builder.api_key_file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(ConfigError::new("api_key_file", "must not be combined with api_key"));
        }
        (Some(key), None) => ("api_key", key.clone()),
        (None, Some(path)) => {
            let read = std::fs::read_to_string(path).map_err(|error| {
                let fault = format!("{} cannot be read: {error}", path.display());
                ConfigError::new("api_key_file", fault)
            });
            ("api_key_file", read?)
        }
    };
    let key = key.trim();
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ConfigError::new(option, "must hold visible ASCII characters and no space"));
    }
    Ok(Some(key.to_owned()))
}

impl fmt::Debug for Validated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Validated").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(change: impl FnOnce(Builder) -> Builder) -> ConfigError {
        let builder = change(Builder::new("http://localhost:3000".to_owned()));
        validate(builder).unwrap_err()
    }

    #[test]
    fn what_cannot_work_is_named() {
        let zero = Duration::ZERO;
        assert_eq!(fault(|b| b.max_batch_events(0)).option(), "max_batch_events");
        assert_eq!(fault(|b| b.max_event_bytes(1 << 20)).option(), "max_batch_bytes");
        assert_eq!(fault(|b| b.max_buffer_bytes(1 << 20)).option(), "max_buffer_bytes");
        assert_eq!(fault(|b| b.max_in_flight(0)).option(), "max_in_flight");
        assert_eq!(fault(|b| b.request_timeout(zero)).option(), "request_timeout");
        assert_eq!(fault(|b| b.retry(HOUR, Duration::from_secs(1))).option(), "retry");
        assert_eq!(fault(|b| b.api_key("a b")).option(), "api_key");
        assert_eq!(fault(|b| b.api_key_file("/no/such/file")).option(), "api_key_file");
        assert_eq!(fault(|b| b.api_key("k").api_key_file("f")).option(), "api_key_file");
    }

    #[test]
    fn an_unusable_url_is_shown_without_its_password() {
        for url in ["", "localhost", "ftp://host", "http://", "http://h?x=1", "http://u:secret@h"] {
            let error = validate(Builder::new(url.to_owned())).unwrap_err();
            assert_eq!(error.option(), "url", "{url}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let url = "http://localhost:3000/behind/a/proxy/".to_owned();
        let validated = validate(Builder::new(url)).unwrap();
        assert_eq!(validated.base_url, "http://localhost:3000/behind/a/proxy/api/v1");
    }

    #[cfg(feature = "tls")]
    #[test]
    fn certificates_are_read_at_build_and_never_panic() {
        assert_eq!(fault(|b| b.ca_file("/no/such/file")).option(), "ca_file");
        assert_eq!(fault(|b| b.ca_file("Cargo.toml")).option(), "ca_file");
        // Where the system has no certificates the option that helps is named.
        if let Err(error) = validate(Builder::new("https://localhost".to_owned())) {
            assert_eq!(error.option(), "ca_file");
        }
    }
}
