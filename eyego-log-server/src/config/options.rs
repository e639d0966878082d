//! The definitions of all options, and the check of a single value.

use std::error::Error as _;

use clap::builder::{PossibleValue, Resettable};
use clap::{Arg, Args, Command};

use super::Config;

/// Returns the definitions of all options.
pub(super) fn definitions() -> Vec<Arg> {
    let command = Config::augment_args(Command::new("options"));
    command.get_arguments().cloned().collect()
}

/// Checks a value of an option.
///
/// # Errors
/// Returns which values the option accepts if this is not one of them.
pub(super) fn check(option: &Arg, value: &str) -> Result<(), String> {
    let option = option.clone().env(Resettable::Reset);
    let flag = format!("--{}={value}", option.get_long().unwrap_or_default());
    let command = Command::new("check").no_binary_name(true).arg(&option);
    match command.try_get_matches_from([flag]) {
        Ok(_) => Ok(()),
        Err(error) => Err(rejection(&option, &error, value)),
    }
}

/// Returns why clap rejects `value`. Includes the value unless it may contain a
/// secret.
pub(super) fn rejection(option: &Arg, error: &clap::Error, value: &str) -> String {
    let reason = reason(option, error);
    let is_shown = reason.contains(&format!("`{value}`"));
    if option.is_hide_env_values_set() || value.is_empty() || is_shown {
        reason
    } else {
        format!("{reason}, not `{value}`")
    }
}

fn reason(option: &Arg, error: &clap::Error) -> String {
    if let Some(source) = error.source() {
        return source.to_string();
    }
    let values = option.get_possible_values();
    let names: Vec<_> = values.iter().map(PossibleValue::get_name).collect();
    match names.split_last() {
        Some((only, [])) => format!("expected {only}"),
        Some((last, others)) => format!("expected {} or {last}", others.join(", ")),
        None => "must not be empty".to_owned(),
    }
}
