//! Events as CSV (RFC 4180), safe to open in a spreadsheet.

use eyego_log_core::LogEntry;
use eyego_log_core::query::MetadataPath;
use serde_json::Value;

/// Maximum number of columns of metadata.
pub(in crate::interface::http) const MAX_COLUMNS: usize = 50;

/// The columns after id, userId, action and timestamp.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Columns {
    /// If empty, one column has the whole metadata as JSON.
    paths: Vec<MetadataPath>,
}

impl Columns {
    /// Parses a list such as `metadata.page,metadata.cart.total`.
    ///
    /// # Errors
    /// Returns the reason the list is invalid.
    pub(super) fn parse(list: &str) -> Result<Self, String> {
        let names: Vec<_> = list.split(',').collect();
        if names.len() > MAX_COLUMNS {
            return Err(format!("must have at most {MAX_COLUMNS} columns, not {}", names.len()));
        }
        let path = |name: &&str| {
            let path = name.strip_prefix("metadata.").ok_or_else(|| {
                "must be a list such as metadata.page,metadata.cart.total: id, userId, action and \
                 timestamp are always included"
                    .to_owned()
            })?;
            MetadataPath::new(path).map_err(|error| error.to_string())
        };
        let twice = names.iter().enumerate().find(|(n, name)| names[..*n].contains(name));
        if let Some((_, name)) = twice {
            return Err(format!("has the column {name} twice"));
        }
        Ok(Self { paths: names.iter().map(path).collect::<Result<_, _>>()? })
    }

    /// Returns the chosen paths. If there are none, one column has the whole
    /// metadata as JSON.
    #[cfg(feature = "parquet")]
    pub(super) fn paths(&self) -> &[MetadataPath] {
        &self.paths
    }

    pub(super) fn write_header(&self, output: &mut Vec<u8>) {
        output.extend_from_slice(b"id,userId,action,timestamp");
        if self.paths.is_empty() {
            output.extend_from_slice(b",metadata");
        }
        for path in &self.paths {
            output.push(b',');
            push_text(output, &format!("metadata.{}", path.as_str()));
        }
        output.extend_from_slice(b"\r\n");
    }

    pub(super) fn write_row(&self, output: &mut Vec<u8>, entry: &LogEntry) {
        output.extend_from_slice(&entry.id.to_hex());
        output.push(b',');
        push_text(output, entry.user_id.as_str());
        output.push(b',');
        push_text(output, entry.action.as_str());
        output.push(b',');
        push_quoted(output, &entry.timestamp.to_string());
        if self.paths.is_empty() {
            output.push(b',');
            push_quoted(output, entry.metadata.as_json());
        } else {
            let metadata = entry.metadata.to_map();
            for path in &self.paths {
                output.push(b',');
                match path.value(&metadata) {
                    None => {}
                    Some(Value::String(text)) => push_text(output, text),
                    // Begins with a digit, a minus sign and a digit, a letter or a bracket.
                    Some(json) => push_quoted(output, &json.to_string()),
                }
            }
        }
        output.extend_from_slice(b"\r\n");
    }
}

/// Writes a cell. A spreadsheet shows text that it would execute with `'` in front.
fn push_text(output: &mut Vec<u8>, text: &str) {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        push_quoted(output, &format!("'{text}"));
    } else {
        push_quoted(output, text);
    }
}

/// Writes a cell, in quotation marks if it needs them.
fn push_quoted(output: &mut Vec<u8>, text: &str) {
    if !text.contains([',', '"', '\r', '\n']) {
        output.extend_from_slice(text.as_bytes());
        return;
    }
    output.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            output.push(b'"');
        }
        output.push(byte);
    }
    output.push(b'"');
}

#[cfg(test)]
mod tests {
    use eyego_log_core::{Action, LogId, Metadata, Timestamp, UserId};

    use super::*;

    fn row(columns: &Columns, user_id: &str, metadata: &str) -> String {
        let entry = LogEntry::new(
            LogId::from_bytes([1; 12]),
            UserId::new(user_id).unwrap(),
            Action::new("A").unwrap(),
            Timestamp::from_millis(0).unwrap(),
            Metadata::from_json(metadata.to_owned()).unwrap(),
        );
        let mut output = Vec::new();
        columns.write_row(&mut output, &entry);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn cells_are_quoted_and_never_executed() {
        let all = Columns::default();
        let fixed = "010101010101010101010101";
        let time = "1970-01-01T00:00:00.000Z";
        for (user_id, cell) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("a\nb", "\"a\nb\""),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("=HYPERLINK(\"x\",\"y\")", "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\""),
        ] {
            assert_eq!(row(&all, user_id, "{}"), format!("{fixed},{cell},A,{time},{{}}\r\n"));
        }
        let columns = Columns::parse("metadata.a,metadata.b.c,metadata.d").unwrap();
        let cells = row(&columns, "u", r#"{"a": -1.5, "b": {"c": "-x"}, "d": [1, "2"]}"#);
        assert_eq!(cells, format!("{fixed},u,A,{time},-1.5,'-x,\"[1,\"\"2\"\"]\"\r\n"));
        assert!(row(&columns, "u", r#"{"a": null}"#).ends_with(",null,,\r\n"));
    }

    #[test]
    fn the_header_names_the_columns() {
        let header = |columns: &Columns| {
            let mut output = Vec::new();
            columns.write_header(&mut output);
            String::from_utf8(output).unwrap()
        };
        assert_eq!(header(&Columns::default()), "id,userId,action,timestamp,metadata\r\n");
        let columns = Columns::parse("metadata.page,metadata.a\"b").unwrap();
        let expected = "id,userId,action,timestamp,metadata.page,\"metadata.a\"\"b\"\r\n";
        assert_eq!(header(&columns), expected);
        assert!(Columns::parse(&["metadata.a"; 51].join(",")).is_err());
    }
}
