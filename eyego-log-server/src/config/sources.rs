//! Combines the sources of the configuration: flag over variable over file over
//! default.
//!
//! clap applies this order by itself once the values of the file have become the
//! defaults of the options.

use std::error::Error as _;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStr, Resettable};
use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, ArgMatches, Args, Command, value_parser};

use super::file::ConfigFile;
use super::{Config, ConfigError};

/// Id of the flag that names the configuration file.
const FILE: &str = "config";

/// Parses a command line with the options of [`Config`]; adds the flag `--config`.
/// All of these may precede or follow a subcommand.
///
/// # Errors
/// Returns an error if the command line is malformed, the file cannot be read, or
/// a value is invalid.
pub(crate) fn parse(command: Command, args: &[OsString]) -> Result<ArgMatches, ConfigError> {
    let command =
        command.arg(file_option()).mut_args(|option| ignore_blank_variable(option).global(true));
    let matches = try_parse(command.clone(), args)?;
    let Some(path) = matches.get_one::<PathBuf>(FILE) else { return Ok(matches) };
    let file = ConfigFile::read(path)?;
    let command = command.mut_args(|option| match file.value(option.get_id().as_str()) {
        Some(value) => option.default_value(value.clone()),
        None => option,
    });
    try_parse(command, args)
}

fn file_option() -> Arg {
    Arg::new(FILE)
        .long(FILE)
        .env("EYEGO_CONFIG")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("TOML file with options, such as `listen` in the table `http`")
}

/// Returns the definitions of all options.
pub(super) fn options() -> Vec<Arg> {
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
        Err(error) => Err(with_value(&option, reason(&option, &error), value)),
    }
}

/// A variable that is set to nothing counts as unset.
fn ignore_blank_variable(option: Arg) -> Arg {
    let value = option.get_env().and_then(std::env::var_os);
    if value.is_some_and(|value| value.to_string_lossy().trim().is_empty()) {
        option.env(Resettable::<OsStr>::Reset)
    } else {
        option
    }
}

fn try_parse(mut command: Command, args: &[OsString]) -> Result<ArgMatches, ConfigError> {
    command.try_get_matches_from_mut(args).map_err(|error| name_variable(&command, error))
}

/// Turns clap's error about the value of an option, which names the flag only,
/// into one that also names the variable.
fn name_variable(command: &Command, error: clap::Error) -> ConfigError {
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return error.into();
    }
    let context = |kind| error.get(kind).map(ToString::to_string);
    let flag = context(ContextKind::InvalidArg);
    let option = command.get_arguments().find(|option| Some(option.to_string()) == flag);
    let Some((option, variable)) = option.and_then(|option| Some((option, option.get_env()?)))
    else {
        return error.into();
    };
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    let reason = with_value(option, reason(option, &error), &value);
    let flag = option.get_long().unwrap_or_default();
    ConfigError::Invalid(format!("{} (--{flag}): {reason}", variable.to_string_lossy()))
}

/// Returns why clap rejects the value of an option.
fn reason(option: &Arg, error: &clap::Error) -> String {
    if let Some(source) = error.source() {
        return source.to_string();
    }
    let values = option.get_possible_values();
    if values.is_empty() {
        return "must not be empty".to_owned();
    }
    let names: Vec<_> = values.iter().map(|value| value.get_name()).collect();
    format!("expected {}", names.join(" or "))
}

/// Adds the rejected value, unless it may contain a secret.
fn with_value(option: &Arg, reason: String, value: &str) -> String {
    if option.is_hide_env_values_set() || value.is_empty() {
        reason
    } else {
        format!("{reason}, not `{value}`")
    }
}
