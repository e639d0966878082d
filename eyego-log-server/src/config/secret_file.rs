//! Secrets read from files: each option that holds a secret has a variant whose
//! variable ends with `_FILE`.

use std::path::Path;

use super::ConfigError;

/// Returns the secret for the option with this variable: the `given` value, or the
/// parsed content of `file` without a trailing newline.
///
/// # Errors
/// Returns [`ConfigError::Invalid`] if both are given, or if the file cannot be
/// read, is empty, or has an invalid content. The content is not shown.
pub(super) fn read<T>(
    variable: &str,
    given: Option<T>,
    file: Option<&Path>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    let Some(file) = file else { return Ok(given) };
    if given.is_some() {
        return Err(ConfigError::Invalid(format!(
            "{variable} and {variable}_FILE are both given: give only one of them"
        )));
    }
    let invalid = |reason: String| {
        ConfigError::Invalid(format!("{variable}_FILE: {}: {reason}", file.display()))
    };
    let text = std::fs::read_to_string(file)
        .map_err(|error| invalid(format!("cannot read the file: {error}")))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(invalid("the file is empty".to_owned()));
    }
    parse(text).map(Some).map_err(invalid)
}
