//! The configuration file: TOML, one table per concern.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Arg;
use clap::builder::ValueParser;
use toml::{Table, Value};

use super::{ConfigError, Properties, options};

/// The values of a configuration file by the id of their option, in the form in
/// which a flag would give them.
#[derive(Debug)]
pub(super) struct ConfigFile(BTreeMap<String, String>);

impl ConfigFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not valid TOML, or
    /// contains an unknown key or an invalid value.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let table: Table = text.parse().map_err(|error| syntax_error(path, &text, &error))?;
        Self::from_table(&table)
            .map_err(|message| ConfigError::Invalid(format!("{}: {message}", path.display())))
    }

    /// Returns the value that the file gives to the option with this id.
    pub(super) fn value(&self, id: &str) -> Option<&String> {
        self.0.get(id)
    }

    fn from_table(table: &Table) -> Result<Self, String> {
        let definitions = options::definitions();
        let mut values = BTreeMap::new();
        let entries = flatten(table, &definitions);
        for (key, value) in entries {
            let Some(option) = definitions.iter().find(|option| file_key(option) == key) else {
                return Err(unknown_key(&key, &definitions));
            };
            let text = to_text(value, option).ok_or_else(|| {
                format!("{key}: expected a string, a number or a boolean, not {}", value.type_str())
            })?;
            if text.trim().is_empty() {
                continue;
            }
            options::check(option, &text)
                .map_err(|reason| format!("{key}: {reason} ({})", flag_and_variable(option)))?;
            values.insert(option.get_id().to_string(), text);
        }
        Ok(Self(values))
    }
}

fn syntax_error(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let last_line = before.rsplit('\n').next().unwrap_or_default();
    ConfigError::Syntax {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: last_line.chars().count() + 1,
        reason: error.message().to_owned(),
    }
}

/// Returns the key of an option: its id, or for an option under a help heading
/// `table.key`, where the heading names the table.
pub(super) fn file_key(option: &Arg) -> String {
    let id = option.get_id().as_str();
    match table_name(option) {
        Some(table) => {
            let key = id.strip_prefix(&format!("{table}_")).unwrap_or(id);
            format!("{table}.{key}")
        }
        None => id.to_owned(),
    }
}

/// Names an option in an error about its variable.
pub(super) fn flag_and_key(option: &Arg) -> String {
    format!("flag --{}, file key {}", option.get_long().unwrap_or_default(), file_key(option))
}

fn flag_and_variable(option: &Arg) -> String {
    let variable = option.get_env().unwrap_or_default().to_string_lossy();
    format!("flag --{}, variable {variable}", option.get_long().unwrap_or_default())
}

fn table_name(option: &Arg) -> Option<String> {
    option.get_help_heading().map(str::to_ascii_lowercase)
}

/// Returns the entries of the top level and of the tables that hold options.
fn flatten<'a>(table: &'a Table, options: &[Arg]) -> Vec<(String, &'a Value)> {
    let is_table_of_options =
        |name: &str| options.iter().any(|option| table_name(option).as_deref() == Some(name));
    let mut entries = Vec::new();
    for (name, value) in table {
        match value {
            Value::Table(inner) if is_table_of_options(name) => {
                entries.extend(inner.iter().map(|(key, value)| (format!("{name}.{key}"), value)));
            }
            value => entries.push((name.clone(), value)),
        }
    }
    entries
}

/// Returns the value in the form in which a flag would give it, or `None` if the
/// option cannot have a value of this type.
fn to_text(value: &Value, option: &Arg) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        Value::Table(table) if takes_properties(option.get_value_parser()) => {
            serde_json::to_string(table).ok()
        }
        Value::Table(_) | Value::Array(_) | Value::Datetime(_) => None,
    }
}

fn takes_properties(parser: &ValueParser) -> bool {
    parser.type_id() == std::any::TypeId::of::<Properties>()
}

fn unknown_key(key: &str, options: &[Arg]) -> String {
    let table = |key: &str| key.rsplit_once('.').map(|(table, _)| table.to_owned());
    let keys: Vec<_> =
        options.iter().map(file_key).filter(|known| table(known) == table(key)).collect();
    format!("unknown key {key}: expected one of {}", keys.join(", "))
}
