//! Parses the values of options.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::model::errors::ConfigError;

/// Parses a number. `expected` describes the valid values.
pub(super) fn number<T: FromStr>(
    option: &'static str,
    value: &str,
    expected: &str,
) -> Result<T, ConfigError> {
    let invalid = |_| ConfigError::new(option, format!("must be {expected}, not {value}"));
    value.trim().parse().map_err(invalid)
}

/// Parses a duration with a unit. `expected` describes the valid values.
pub(super) fn duration(
    option: &'static str,
    value: &str,
    expected: impl Display,
) -> Result<Duration, ConfigError> {
    humantime::parse_duration(value.trim())
        .map_err(|_| ConfigError::new(option, format!("must be {expected}, not {value}")))
}

/// Checks that a duration is within its range.
pub(super) fn check_duration(
    option: &'static str,
    value: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let [min, max, value] = [min, max, value].map(humantime::format_duration);
    Err(ConfigError::new(option, format!("must be from {min} to {max}, not {value}")))
}
