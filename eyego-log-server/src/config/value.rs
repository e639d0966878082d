//! Value parsers for sizes, durations, numbers and text, and secrets.
//!
//! The error of a parser says which values it accepts. `docs/configuration.md`
//! quotes it.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const TIB: u64 = 1 << 40;
pub(super) const PIB: u64 = 1 << 50;

const UNITS: [(u64, &str); 5] =
    [(PIB, "PiB"), (TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];

/// Text that `Debug` hides.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Creates a secret from `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Returns a parser for a number of bytes in `range`, written as `1048576`,
/// `1MiB` or `1 MB`.
pub(super) fn size<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let bytes = text.parse::<ByteSize>().ok().map(|size| size.as_u64());
        bytes
            .filter(|bytes| range.contains(bytes))
            .and_then(|bytes| T::try_from(bytes).ok())
            .ok_or_else(|| {
                let (min, max) = (display_size(*range.start()), display_size(*range.end()));
                format!("expected a size from {min} to {max}")
            })
    }
}

/// Returns a parser for a whole number of at least `min`.
pub(super) fn number<T>(
    min: T,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + fmt::Display + Copy + Send + Sync + 'static,
{
    move |text| {
        let number = text.trim().parse().ok().filter(|number| *number >= min);
        number.ok_or_else(|| format!("expected a whole number of at least {min}"))
    }
}

/// Parses a duration of up to an hour, such as `500ms` or `1m 30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const MAX: Duration = Duration::from_secs(60 * 60);

    let duration = humantime::parse_duration(text).ok().filter(|duration| *duration <= MAX);
    duration.ok_or_else(|| "expected a duration from 0s to 1h, such as 25s or 1m 30s".to_owned())
}

/// Accepts any text except blank text.
pub(super) fn non_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("must not be empty".to_owned());
    }
    Ok(text.to_owned())
}

/// Accepts a log level, or directives such as `info,eyego_log_server=debug`.
///
/// `EnvFilter` alone is not strict enough: it takes a misspelt level for the name
/// of a target, and then logs nothing.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    let is_valid = EnvFilter::try_new(text).is_ok() && directives(text).all(names_level);
    if is_valid && !text.trim().is_empty() {
        return Ok(text.to_owned());
    }
    Err(format!(
        "invalid filter `{text}`: expected a level (error, warn, info, debug, trace) or \
         directives such as info,eyego_log_server=debug"
    ))
}

/// Splits a filter at the commas outside of `[span{fields}]`.
fn directives(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
}

fn names_level(directive: &str) -> bool {
    let level = match directive.rsplit_once(['=', ']']) {
        // A span without a level: `target[span]`.
        Some((_, "")) if directive.ends_with(']') => return true,
        Some((_, level)) => level,
        None => directive,
    };
    !level.trim().is_empty() && level.trim().parse::<LevelFilter>().is_ok()
}

/// Formats two numbers of bytes in the largest unit that divides both evenly.
pub(super) fn display_sizes(a: u64, b: u64) -> (String, String) {
    let divides = |unit: u64| a.is_multiple_of(unit) && b.is_multiple_of(unit);
    match UNITS.into_iter().find(|(unit, _)| a.max(b) >= *unit && divides(*unit)) {
        Some((unit, name)) => (format!("{} {name}", a / unit), format!("{} {name}", b / unit)),
        None => (format!("{a} bytes"), format!("{b} bytes")),
    }
}

/// Formats a number of bytes in the largest unit that divides it evenly.
pub(super) fn display_size(bytes: u64) -> String {
    match UNITS.into_iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}
