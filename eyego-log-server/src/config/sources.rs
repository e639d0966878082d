//! Combines the sources of the configuration: flag over variable over file over
//! default.
//!
//! clap applies this order by itself once the values of the file have become the
//! defaults of the options.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStr, Resettable};
use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, ArgMatches, Command, value_parser};

use super::file::{ConfigFile, flag_and_key};
use super::{ConfigError, environment, options};

/// Id of the flag that names the configuration file.
const FILE: &str = "config";

/// Parses a command line with the options of `Config`; adds the flag `--config`.
/// All of these may precede or follow a subcommand.
///
/// # Errors
/// Returns an error if the command line is malformed, the file cannot be read, or
/// a value is invalid.
pub(crate) fn parse(command: Command, args: &[OsString]) -> Result<ArgMatches, ConfigError> {
    let command = command.arg(file_option());
    let known = command.clone();
    let command = command.mut_args(|option| ignore_blank_variable(option).global(true));
    let matches = try_parse(command.clone(), args)?;
    environment::check(&known, variables())?;
    let Some(path) = matches.get_one::<PathBuf>(FILE) else { return Ok(matches) };
    let file = ConfigFile::read(path)?;
    let command = command.mut_args(|option| match file.value(option.get_id().as_str()) {
        Some(value) => option.default_value(value.clone()),
        None => option,
    });
    try_parse(command, args)
}

fn variables() -> impl Iterator<Item = (String, String)> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

fn file_option() -> Arg {
    Arg::new(FILE)
        .long(FILE)
        .env("EYEGO_CONFIG")
        .value_name("FILE")
        .help_heading(None::<&str>)
        .display_order(0)
        .value_parser(value_parser!(PathBuf))
        .help("TOML file with options, such as `listen` in table `[http]`")
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
    let reason = options::rejection(option, &error, &value);
    let variable = variable.to_string_lossy();
    ConfigError::Invalid(format!("{variable}: {reason} ({})", flag_and_key(option)))
}
