//! Reads options from environment variables.

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use super::{ClientBuilder, parse};
use crate::model::errors::ConfigError;
use crate::model::overflow::Overflow;

/// How long `EYEGO_LOG_OVERFLOW=block` blocks.
const BLOCK: Duration = Duration::from_secs(1);

/// A process can build many clients.
static WARN_OF_MISSING_URL: Once = Once::new();

#[cfg(not(feature = "spool"))]
const SPOOL_VARIABLES: [&str; 4] = [
    "EYEGO_LOG_SPOOL_DIR",
    "EYEGO_LOG_SPOOL_MAX_BYTES",
    "EYEGO_LOG_SPOOL_MAX_AGE",
    "EYEGO_LOG_SPOOL_SYNC",
];

impl ClientBuilder {
    /// Creates a builder from environment variables.
    /// [`Client::from_env`](crate::Client::from_env) lists them.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] if a variable cannot be parsed, or if
    /// `EYEGO_LOG_DISABLED` is `0` and `EYEGO_LOG_URL` is not set.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(&Variables::new(&|name| std::env::var_os(name)))
    }

    fn from_variables(variables: &Variables<'_>) -> Result<Self, ConfigError> {
        let read = |name| variables.text(name);
        let disabled = read("EYEGO_LOG_DISABLED")?.map(|value| flag(value.trim())).transpose()?;
        let url = read("EYEGO_LOG_URL")?;
        if url.is_none() && disabled == Some(false) {
            let problem = "is not set: expected a URL such as http://localhost:3000";
            return Err(ConfigError::new("EYEGO_LOG_URL", problem));
        }
        if url.is_none() && disabled.is_none() {
            WARN_OF_MISSING_URL.call_once(|| {
                tracing::warn!(
                    target: "eyego_log_client",
                    "EYEGO_LOG_URL is not set, so the client is disabled and discards all events; \
                     set EYEGO_LOG_DISABLED=1 if that is intended"
                );
            });
        }
        let is_disabled = disabled == Some(true) || url.is_none();
        let mut builder = Self::new(url.unwrap_or_default()).disabled(is_disabled);
        builder.connection.api_key = read("EYEGO_LOG_API_KEY")?;
        builder.connection.api_key_file = variables.path("EYEGO_LOG_API_KEY_FILE");
        builder.connection.tls.ca_file = variables.path("EYEGO_LOG_CA_FILE");
        builder.connection.tls.identity_file = variables.path("EYEGO_LOG_IDENTITY_FILE");
        let bytes = "a whole number of bytes from 256 to 16777216";
        let buffer = "a whole number of bytes such as 33554432";
        let numbers = [
            (
                "EYEGO_LOG_MAX_BATCH_EVENTS",
                &mut builder.max_batch_events,
                "a whole number from 1 to 10000",
            ),
            ("EYEGO_LOG_MAX_BATCH_BYTES", &mut builder.max_batch_bytes, bytes),
            ("EYEGO_LOG_MAX_EVENT_BYTES", &mut builder.max_event_bytes, bytes),
            ("EYEGO_LOG_MAX_BUFFER_BYTES", &mut builder.max_buffer_bytes, buffer),
            ("EYEGO_LOG_MAX_IN_FLIGHT", &mut builder.max_in_flight, "a whole number from 1 to 64"),
        ];
        for (name, option, expected) in numbers {
            if let Some(value) = read(name)? {
                *option = parse::number(name, &value, expected)?;
            }
        }
        let durations = [
            ("EYEGO_LOG_LINGER", &mut builder.linger),
            ("EYEGO_LOG_REQUEST_TIMEOUT", &mut builder.request_timeout),
            ("EYEGO_LOG_DELIVERY_TIMEOUT", &mut builder.delivery_timeout),
            ("EYEGO_LOG_SHUTDOWN_TIMEOUT", &mut builder.shutdown_timeout),
        ];
        for (name, option) in durations {
            if let Some(value) = read(name)? {
                *option = parse::duration(name, &value, "a duration such as 500ms or 5s")?;
            }
        }
        if let Some(value) = read("EYEGO_LOG_OVERFLOW")? {
            builder.overflow = overflow(value.trim())?;
        }
        if let Some(value) = read("EYEGO_LOG_SAMPLE_RATE")? {
            builder.sample_rate = sample_rate(value.trim())?;
        }
        if let Some(value) = read("EYEGO_LOG_COMPRESSION")? {
            builder.compression = compression(value.trim())?;
        }
        #[cfg(feature = "spool")]
        builder.read_spool_variables(variables)?;
        #[cfg(not(feature = "spool"))]
        for name in SPOOL_VARIABLES {
            if !is_disabled && variables.path(name).is_some() {
                return Err(ConfigError::new(name, "needs the crate feature `spool`"));
            }
        }
        builder.variables = variables.found.take();
        Ok(builder)
    }
}

/// The environment. An empty variable counts as unset.
pub(super) struct Variables<'a> {
    read: &'a dyn Fn(&str) -> Option<OsString>,
    /// The names of those that were found.
    found: RefCell<Vec<&'static str>>,
}

impl<'a> Variables<'a> {
    fn new(read: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Self { read, found: RefCell::default() }
    }

    /// Returns a variable whose value is text.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        let text = self.value(name).map(OsString::into_string).transpose();
        text.map_err(|_| ConfigError::new(name, "must be valid UTF-8"))
    }

    /// Returns a variable whose value is a path, which need not be UTF-8.
    pub(super) fn path(&self, name: &'static str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    fn value(&self, name: &'static str) -> Option<OsString> {
        let value = (self.read)(name);
        let value = value.filter(|value| !value.to_string_lossy().trim().is_empty())?;
        self.found.borrow_mut().push(name);
        Some(value)
    }
}

fn overflow(value: &str) -> Result<Overflow, ConfigError> {
    match value {
        "drop-newest" => Ok(Overflow::DropNewest),
        "drop-oldest" => Ok(Overflow::DropOldest),
        "block" => Ok(Overflow::Block(BLOCK)),
        _ => {
            let problem = format!("must be drop-newest, drop-oldest or block, not {value}");
            Err(ConfigError::new("EYEGO_LOG_OVERFLOW", problem))
        }
    }
}

fn flag(value: &str) -> Result<bool, ConfigError> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => {
            let problem = format!("must be 1, true, 0 or false, not {value}");
            Err(ConfigError::new("EYEGO_LOG_DISABLED", problem))
        }
    }
}

fn sample_rate(value: &str) -> Result<f64, ConfigError> {
    let rate = value.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
    rate.ok_or_else(|| {
        let problem = format!("must be a number from 0 to 1, not {value}");
        ConfigError::new("EYEGO_LOG_SAMPLE_RATE", problem)
    })
}

fn compression(value: &str) -> Result<bool, ConfigError> {
    match value {
        "zstd" => Ok(true),
        "none" => Ok(false),
        _ => {
            let problem = format!("must be zstd or none, not {value}");
            Err(ConfigError::new("EYEGO_LOG_COMPRESSION", problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<ClientBuilder, ConfigError> {
        let find = |name: &str| {
            let mut variables = variables.iter();
            variables.find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
        };
        ClientBuilder::from_variables(&Variables::new(&find))
    }

    #[test]
    fn an_option_out_of_range_is_named_with_its_variable() {
        for (option, variable, value) in [
            ("linger", "EYEGO_LOG_LINGER", "2h"),
            ("max_in_flight", "EYEGO_LOG_MAX_IN_FLIGHT", "1000"),
            ("url", "EYEGO_LOG_URL", "http://h:99999"),
        ] {
            let url = ("EYEGO_LOG_URL", "http://h");
            let error = read(&[(variable, value), url]).unwrap().build().unwrap_err();
            assert_eq!(error.option(), option);
            assert!(error.to_string().contains(&format!("(set by {variable})")), "{error}");
        }
    }

    #[test]
    fn a_missing_url_is_reported_at_most_once_in_a_process() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};

        use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

        struct Counting(Arc<AtomicUsize>);

        impl<S: tracing::Subscriber> Layer<S> for Counting {
            fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }

        let reports = Arc::new(AtomicUsize::new(0));
        let layer = Counting(Arc::clone(&reports));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for _ in 0..3 {
                let _ = read(&[]).unwrap();
            }
        });
        assert!(reports.load(Ordering::SeqCst) <= 1, "another test may have been the first");
    }

    #[cfg(feature = "spool")]
    #[test]
    fn a_spool_directory_that_cannot_be_used_is_named_with_its_variable() {
        let variables =
            [("EYEGO_LOG_URL", "http://h"), ("EYEGO_LOG_SPOOL_DIR", "Cargo.toml/spool")];
        let error = read(&variables).unwrap().build().unwrap_err();
        assert_eq!(error.option(), "spool_dir");
        assert!(error.to_string().ends_with("(set by EYEGO_LOG_SPOOL_DIR)"), "{error}");
    }

    #[test]
    fn a_size_with_a_unit_or_too_many_digits_is_an_error_that_names_the_range() {
        for value in ["64KiB", "99999999999999999999999"] {
            let variables = [("EYEGO_LOG_URL", "http://h"), ("EYEGO_LOG_MAX_BATCH_BYTES", value)];
            let expected = format!(
                "EYEGO_LOG_MAX_BATCH_BYTES must be a whole number of bytes from 256 to 16777216, \
                 not {value}"
            );
            assert_eq!(read(&variables).unwrap_err().to_string(), expected);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_need_not_be_utf_8_but_text_must() {
        use std::os::unix::ffi::OsStringExt as _;

        let value = OsString::from_vec(b"/a\xff".to_vec());
        let with = |wanted: &'static str| {
            let value = value.clone();
            let find = move |name: &str| (name == wanted).then(|| value.clone());
            ClientBuilder::from_variables(&Variables::new(&find))
        };
        let builder = with("EYEGO_LOG_CA_FILE").unwrap();
        assert_eq!(builder.connection.tls.ca_file, Some(value.clone().into()));
        #[cfg(feature = "spool")]
        assert_eq!(with("EYEGO_LOG_SPOOL_DIR").unwrap().spool_dir, Some(value.clone().into()));
        let error = with("EYEGO_LOG_URL").unwrap_err();
        assert_eq!(error.to_string(), "EYEGO_LOG_URL must be valid UTF-8");
    }

    #[test]
    fn every_kind_of_variable_is_parsed() {
        let builder = read(&[
            ("EYEGO_LOG_URL", "http://h"),
            ("EYEGO_LOG_API_KEY", "secret"),
            ("EYEGO_LOG_LINGER", "20ms"),
            ("EYEGO_LOG_MAX_BATCH_EVENTS", "7"),
            ("EYEGO_LOG_OVERFLOW", "drop-oldest"),
            ("EYEGO_LOG_CA_FILE", ""),
        ])
        .unwrap();
        assert_eq!(builder.linger, Duration::from_millis(20));
        assert_eq!(builder.max_batch_events, 7);
        assert_eq!(builder.overflow, Overflow::DropOldest);
        assert_eq!(builder.connection.tls.ca_file, None);
        assert!(!format!("{builder:?}").contains("secret"));
    }

    #[test]
    fn an_invalid_variable_is_named_in_the_error() {
        let url = ("EYEGO_LOG_URL", "http://h");
        for (variable, value) in [
            ("EYEGO_LOG_LINGER", "20"),
            ("EYEGO_LOG_MAX_IN_FLIGHT", "-1"),
            ("EYEGO_LOG_OVERFLOW", "panic"),
            ("EYEGO_LOG_COMPRESSION", "gzip"),
            ("EYEGO_LOG_DISABLED", "maybe"),
            ("EYEGO_LOG_SAMPLE_RATE", "10"),
        ] {
            let error = read(&[url, (variable, value)]).unwrap_err();
            assert_eq!(error.option(), variable);
            assert!(error.to_string().contains(value), "{error}");
        }
    }

    #[test]
    fn a_missing_url_disables_the_client_unless_that_is_excluded() {
        let is_disabled = |variables: &[(&str, &str)]| read(variables).unwrap().is_disabled;
        let url = ("EYEGO_LOG_URL", "http://h");
        assert!(is_disabled(&[]) && is_disabled(&[("EYEGO_LOG_DISABLED", "true")]));
        assert!(!is_disabled(&[url]) && !is_disabled(&[url, ("EYEGO_LOG_DISABLED", "0")]));
        assert!(is_disabled(&[url, ("EYEGO_LOG_DISABLED", "1")]));
        assert!(is_disabled(&[url, ("EYEGO_LOG_DISABLED", "TRUE")]));
        let error = read(&[("EYEGO_LOG_DISABLED", "0")]).unwrap_err();
        assert_eq!(error.option(), "EYEGO_LOG_URL");
        assert!(
            read(&[("EYEGO_LOG_SPOOL_DIR", ""), ("EYEGO_LOG_API_KEY_FILE", "/no/such/file")])
                .unwrap()
                .build()
                .is_ok()
        );
    }

    #[cfg(feature = "spool")]
    #[test]
    fn spool_variables_are_parsed_and_validated() {
        let url = ("EYEGO_LOG_URL", "http://h");
        let dir = ("EYEGO_LOG_SPOOL_DIR", "/nowhere");
        let options = |variables: &[(&str, &str)]| {
            let builder = read(&[&[url, dir], variables].concat())?;
            builder.check_spool()?;
            Ok::<_, ConfigError>(builder.spool_options().unwrap())
        };
        let defaults = options(&[]).unwrap();
        assert_eq!((defaults.dir.to_str(), defaults.max_bytes), (Some("/nowhere"), 1 << 30));
        assert_eq!(defaults.sync, crate::SpoolSync::Every(Duration::from_secs(1)));
        let each = options(&[("EYEGO_LOG_SPOOL_SYNC", "batch")]).unwrap();
        assert_eq!(each.sync, crate::SpoolSync::EachBatch);
        for (variable, value) in
            [("EYEGO_LOG_SPOOL_SYNC", "often"), ("EYEGO_LOG_SPOOL_MAX_BYTES", "1 GiB")]
        {
            let error = options(&[(variable, value)]).unwrap_err();
            assert_eq!(error.option(), variable);
            assert!(error.to_string().contains(value), "{error}");
        }
        let small = options(&[("EYEGO_LOG_SPOOL_MAX_BYTES", "1000")]).unwrap_err();
        assert_eq!(small.option(), "spool_max_bytes");
    }

    #[cfg(not(feature = "spool"))]
    #[test]
    fn the_spool_needs_its_crate_feature() {
        let variables = [("EYEGO_LOG_URL", "http://h"), ("EYEGO_LOG_SPOOL_DIR", "/nowhere")];
        let error = read(&variables).unwrap_err();
        assert_eq!(error.to_string(), "EYEGO_LOG_SPOOL_DIR needs the crate feature `spool`");
        let disabled = [variables[0], variables[1], ("EYEGO_LOG_DISABLED", "1")];
        assert!(read(&disabled).unwrap().build().is_ok());
    }
}
