//! The options from environment variables.

use std::time::Duration;

use super::{Builder, Overflow};
use crate::error::ConfigError;

/// `EYEGO_LOG_OVERFLOW`'s `block` waits this long.
const BLOCK: Duration = Duration::from_secs(1);

impl Builder {
    /// The options that these variables set, over the defaults. Look at
    /// [`Client::from_env`](crate::Client::from_env) for their names.
    ///
    /// # Errors
    /// `EYEGO_LOG_URL` is missing, or a variable cannot be read.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(|name| {
            std::env::var_os(name).map(|v| v.to_string_lossy().into_owned())
        })
    }

    fn from_variables(read: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let read = |name: &str| read(name).filter(|value| !value.trim().is_empty());
        let url = read("EYEGO_LOG_URL").ok_or_else(|| {
            ConfigError::new("EYEGO_LOG_URL", "is not set: such as http://localhost:3000")
        })?;
        let mut builder = Self::new(url);
        builder.api_key = read("EYEGO_LOG_API_KEY");
        builder.api_key_file = read("EYEGO_LOG_API_KEY_FILE").map(Into::into);
        builder.ca_file = read("EYEGO_LOG_CA_FILE").map(Into::into);
        let sizes = [
            ("EYEGO_LOG_MAX_BATCH_EVENTS", &mut builder.max_batch_events),
            ("EYEGO_LOG_MAX_BATCH_BYTES", &mut builder.max_batch_bytes),
            ("EYEGO_LOG_MAX_EVENT_BYTES", &mut builder.max_event_bytes),
            ("EYEGO_LOG_MAX_BUFFER_BYTES", &mut builder.max_buffer_bytes),
            ("EYEGO_LOG_MAX_IN_FLIGHT", &mut builder.max_in_flight),
        ];
        for (name, option) in sizes {
            if let Some(value) = read(name) {
                let fault =
                    || ConfigError::new(name, format!("must be a whole number, not {value}"));
                *option = value.trim().parse().map_err(|_| fault())?;
            }
        }
        let durations = [
            ("EYEGO_LOG_LINGER", &mut builder.linger),
            ("EYEGO_LOG_REQUEST_TIMEOUT", &mut builder.request_timeout),
            ("EYEGO_LOG_DELIVERY_TIMEOUT", &mut builder.delivery_timeout),
            ("EYEGO_LOG_SHUTDOWN_TIMEOUT", &mut builder.shutdown_timeout),
        ];
        for (name, option) in durations {
            if let Some(value) = read(name) {
                let fault = || {
                    ConfigError::new(
                        name,
                        format!("must be a duration such as 500ms or 5s, not {value}"),
                    )
                };
                *option = duration(value.trim()).ok_or_else(fault)?;
            }
        }
        if let Some(value) = read("EYEGO_LOG_OVERFLOW") {
            builder.overflow = match value.trim() {
                "drop-newest" => Overflow::DropNewest,
                "drop-oldest" => Overflow::DropOldest,
                "block" => Overflow::Block(BLOCK),
                _ => {
                    let fault = format!("must be drop-newest, drop-oldest or block, not {value}");
                    return Err(ConfigError::new("EYEGO_LOG_OVERFLOW", fault));
                }
            };
        }
        if let Some(value) = read("EYEGO_LOG_COMPRESSION") {
            builder.compression = match value.trim() {
                "zstd" => true,
                "none" => false,
                _ => {
                    let fault = format!("must be zstd or none, not {value}");
                    return Err(ConfigError::new("EYEGO_LOG_COMPRESSION", fault));
                }
            };
        }
        #[cfg(feature = "spool")]
        builder.spool.read(read)?;
        #[cfg(not(feature = "spool"))]
        if read("EYEGO_LOG_SPOOL_DIR").is_some() {
            return Err(ConfigError::new("EYEGO_LOG_SPOOL_DIR", "needs the feature spool"));
        }
        Ok(builder)
    }
}

/// `500ms`, `5s`, `2m`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Builder, ConfigError> {
        Builder::from_variables(|name| {
            let mut variables = variables.iter();
            variables.find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn each_kind_of_variable_is_read() {
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
        assert_eq!(builder.ca_file, None);
        assert!(!format!("{builder:?}").contains("secret"));
    }

    #[test]
    fn a_bad_variable_is_named() {
        let url = ("EYEGO_LOG_URL", "http://h");
        for (variable, value) in [
            ("EYEGO_LOG_LINGER", "20"),
            ("EYEGO_LOG_MAX_IN_FLIGHT", "-1"),
            ("EYEGO_LOG_OVERFLOW", "panic"),
            ("EYEGO_LOG_COMPRESSION", "gzip"),
        ] {
            let error = read(&[url, (variable, value)]).unwrap_err();
            assert_eq!(error.option(), variable);
            assert!(error.to_string().contains(value), "{error}");
        }
        assert_eq!(read(&[]).unwrap_err().option(), "EYEGO_LOG_URL");
    }

    #[cfg(feature = "spool")]
    #[test]
    fn the_spool_is_read_and_checked() {
        let url = ("EYEGO_LOG_URL", "http://h");
        let dir = ("EYEGO_LOG_SPOOL_DIR", "/nowhere");
        let options = |variables: &[(&str, &str)]| {
            let builder = read(&[&[url, dir], variables].concat())?;
            Ok::<_, ConfigError>(builder.spool.validate(512 << 10)?.unwrap())
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
    fn a_spool_needs_its_feature() {
        let variables = [("EYEGO_LOG_URL", "http://h"), ("EYEGO_LOG_SPOOL_DIR", "/nowhere")];
        let error = read(&variables).unwrap_err();
        assert_eq!(error.to_string(), "EYEGO_LOG_SPOOL_DIR needs the feature spool");
    }
}
