//! The keys file: TOML with one `[[key]]` table per key. It contains hashes of
//! tokens, but no tokens.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::Deserialize;
use toml::{Spanned, Value};

use crate::domain::access::{EventLimit, Key, Rate, Scope};

/// Error in a keys file: its line, the entry, the field and the reason.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct KeysFileError {
    /// Line, from 1.
    pub line: usize,
    /// The entry and the field, and what is wrong with it.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<Spanned<Entry>>,
}

/// The fields of an entry.
const FIELDS: [&str; 6] = ["id", "hash", "scopes", "rate", "burst", "concurrent"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: Spanned<String>,
    hash: Spanned<String>,
    scopes: Spanned<Vec<Spanned<String>>>,
    rate: Option<Spanned<String>>,
    burst: Option<Spanned<u32>>,
    concurrent: Option<Spanned<u32>>,
    /// A string or a date of TOML.
    expires: Option<Spanned<Value>>,
}

/// Parses a keys file.
///
/// # Errors
/// Returns the first error, with its line. A file without any key is an error,
/// because a file that is being written is empty for a moment.
pub fn parse(bytes: &[u8]) -> Result<Vec<Key>, KeysFileError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        KeysFileError { line, reason: "the file is not UTF-8".to_owned() }
    })?;
    let file: File = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let field = field_at(text, start).map_or(String::new(), |field| format!("{field}: "));
        at(text, start, format!("{field}{}", error.message()))
    })?;
    if file.key.is_empty() {
        return Err(at(text, 0, "the file contains no [[key]]".to_owned()));
    }
    let mut seen = Seen { text, ids: HashMap::new(), hashes: HashMap::new() };
    file.key.into_iter().map(|entry| seen.check(entry)).collect()
}

fn at(text: &str, offset: usize, reason: String) -> KeysFileError {
    let before = text.get(..offset).unwrap_or_default();
    KeysFileError { line: before.matches('\n').count() + 1, reason }
}

/// Returns the name of the field whose value contains `offset`, if it is in the same line.
fn field_at(text: &str, offset: usize) -> Option<&str> {
    let line = text.get(..offset)?.rsplit('\n').next()?;
    let (name, _) = line.split_once('=')?;
    let name = name.trim();
    FIELDS.contains(&name).then_some(name)
}

/// Converts entries, and remembers what must be unique among them.
struct Seen<'a> {
    text: &'a str,
    ids: HashMap<String, usize>,
    hashes: HashMap<[u8; 32], String>,
}

impl Seen<'_> {
    fn check(&mut self, entry: Spanned<Entry>) -> Result<Key, KeysFileError> {
        let start = entry.span().start;
        let entry = entry.into_inner();
        let id = entry.id.as_ref().clone();
        let error = |offset: usize, field: &str, reason: &str| {
            at(self.text, offset, format!("key `{id}`: {field}: {reason}"))
        };
        if !Key::is_valid_id(&id) {
            let reason = "expected 1 to 64 letters, digits, `-`, `_` or `.`";
            return Err(error(entry.id.span().start, "id", reason));
        }
        if let Some(line) = self.ids.get(&id) {
            let reason = format!("the entry in line {line} has the same id");
            return Err(error(entry.id.span().start, "id", &reason));
        }
        let hash = parse_hash(entry.hash.as_ref())
            .map_err(|reason| error(entry.hash.span().start, "hash", reason))?;
        if let Some(other) = self.hashes.get(&hash) {
            let reason = format!("key `{other}` has the same hash: each key needs its own token");
            return Err(error(entry.hash.span().start, "hash", &reason));
        }
        let mut scopes = Vec::new();
        for scope in entry.scopes.as_ref() {
            let parsed = Scope::from_str(scope.as_ref())
                .map_err(|reason| error(scope.span().start, "scopes", &reason))?;
            scopes.push(parsed);
        }
        if scopes.is_empty() {
            let reason = "a key without a scope allows nothing: list at least one";
            return Err(error(entry.scopes.span().start, "scopes", reason));
        }
        let rate = entry.rate.map(|rate| {
            Rate::from_str(rate.as_ref())
                .map_err(|reason| error(rate.span().start, "rate", &reason))
        });
        let positive = |field: &str, number: Option<Spanned<u32>>| {
            let number = number.map(|number| {
                NonZeroU32::new(*number.as_ref())
                    .ok_or_else(|| error(number.span().start, field, "must be at least 1"))
            });
            number.transpose()
        };
        let burst_start = entry.burst.as_ref().map_or(start, |burst| burst.span().start);
        let burst = positive("burst", entry.burst)?;
        let events = match (rate.transpose()?, burst) {
            (None, Some(_)) => {
                return Err(error(burst_start, "burst", "has no effect without rate"));
            }
            (None, None) => None,
            // The burst defaults to the events of one second.
            (Some(rate), burst) => {
                Some(EventLimit { rate, burst: burst.unwrap_or(rate.per_second()) })
            }
        };
        let concurrent = positive("concurrent", entry.concurrent)?;
        let expires = entry.expires.map(|time| {
            let text = match time.as_ref() {
                Value::String(text) => text.clone(),
                Value::Datetime(time) => time.to_string(),
                _ => String::new(),
            };
            text.parse().map_err(|_| {
                let reason = "expected a time such as \"2027-01-01T00:00:00Z\"";
                error(time.span().start, "expires", reason)
            })
        });
        let expires = expires.transpose()?;
        self.ids.insert(id.clone(), at(self.text, start, String::new()).line);
        self.hashes.insert(hash, id.clone());
        Ok(Key { id, hash, scopes, events, concurrent, expires })
    }
}

/// Parses `sha256:` and 64 hex digits.
fn parse_hash(text: &str) -> Result<[u8; 32], &'static str> {
    const EXPECTED: &str =
        "expected sha256: and 64 hex digits, as `eyego-log-server keys new` prints";
    let hex = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64).ok_or(EXPECTED)?;
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(hex.as_bytes().chunks(2)) {
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match digits {
            [high, low] => {
                *byte = digit(*high).ok_or(EXPECTED)? << 4 | digit(*low).ok_or(EXPECTED)?;
            }
            _ => return Err(EXPECTED),
        }
    }
    Ok(hash)
}

/// Writes the entry of a key, which [`parse`] reads.
#[must_use]
pub fn entry(key: &Key) -> String {
    use std::fmt::Write as _;

    let hash: String = key.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let scopes: Vec<_> = key.scopes.iter().map(|scope| format!("\"{scope}\"")).collect();
    let mut text = format!(
        "[[key]]\nid = \"{}\"\nhash = \"sha256:{hash}\"\nscopes = [{}]\n",
        key.id,
        scopes.join(", ")
    );
    // Writing to a string cannot fail.
    if let Some(limit) = key.events {
        let _ = writeln!(text, "rate = \"{}\"\nburst = {}", limit.rate, limit.burst);
    }
    if let Some(concurrent) = key.concurrent {
        let _ = writeln!(text, "concurrent = {concurrent}");
    }
    if let Some(expires) = key.expires {
        let _ = writeln!(text, "expires = \"{expires}\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use eyego_log_core::Timestamp;
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn with(id: &str, hash: &str, rest: &str) -> String {
        format!("[[key]]\nid = \"{id}\"\nhash = \"{hash}\"\n{rest}\n")
    }

    #[test]
    fn a_complete_entry_is_read() {
        let text = with(
            "web-frontend",
            HASH,
            "scopes = [\"ingest\", \"read\"] # a comment\nrate = \"5000/s\"\nburst = 10000\n\
             concurrent = 8\nexpires = \"2027-01-01T00:00:00Z\"",
        );
        let keys = parse(text.as_bytes()).unwrap();
        assert_eq!(keys.len(), 1);
        let key = &keys[0];
        assert_eq!((key.id.as_str(), key.hash[0], key.hash[31]), ("web-frontend", 0xba, 0xad));
        assert_eq!(key.scopes, [Scope::Ingest, Scope::Read]);
        let events = key.events.unwrap();
        assert_eq!((events.rate.per_second().get(), events.burst.get()), (5000, 10_000));
        assert_eq!(key.concurrent.unwrap().get(), 8);
        assert_eq!(key.expires.unwrap(), "2027-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
    }

    #[test]
    fn an_expiry_without_quotes_is_read() {
        let text = with("web", HASH, "scopes = [\"ingest\"]\nexpires = 2027-01-01 01:00:00+01:00");
        let expires = parse(text.as_bytes()).unwrap()[0].expires;
        assert_eq!(expires, Some("2027-01-01T00:00:00Z".parse().unwrap()));
    }

    #[test]
    fn the_burst_is_one_second_by_default() {
        let text = with("web", HASH, "scopes = [\"ingest\"]\nrate = \"7/s\"");
        let events = parse(text.as_bytes()).unwrap()[0].events.unwrap();
        assert_eq!(events.burst.get(), 7);
    }

    #[test]
    fn errors_name_line_entry_and_field() {
        let ingest = "scopes = [\"ingest\"]";
        let other = HASH.replace('b', "c");
        let cases = [
            (String::new(), "line 1: the file contains no [[key]]"),
            ("[[key]\n".to_owned(), "line 1: "),
            ("[[keys]]\n".to_owned(), "line 1: unknown field `keys`"),
            (
                with("web", HASH, "scopes = [\n\"read\",\n\"injest\"]"),
                "line 6: key `web`: scopes: unknown scope `injest`: expected one of ingest, read, erase, admin, metrics",
            ),
            (with("web", HASH, "scopes = []"), "line 4: key `web`: scopes: a key without a scope"),
            (with("a b", HASH, ingest), "line 2: key `a b`: id: expected 1 to 64"),
            (with("web", "5e88", ingest), "line 3: key `web`: hash: expected sha256: and 64 hex"),
            (with("web", &HASH.replace('f', "g"), ingest), "line 3: key `web`: hash: "),
            (with("web", &HASH.replace("ba", "é"), ingest), "line 3: key `web`: hash: "),
            (
                with("web", HASH, ingest) + &with("web", &other, ingest),
                "line 6: key `web`: id: the entry in line 1 has the same id",
            ),
            (
                with("web", HASH, ingest) + &with("api", HASH, ingest),
                "line 7: key `api`: hash: key `web` has the same hash",
            ),
            (
                with("web", HASH, &format!("{ingest}\nrate = \"5 parsecs\"")),
                "line 5: key `web`: rate: `5 parsecs` is not a rate",
            ),
            (with("web", HASH, &format!("{ingest}\nrate = \"0/s\"")), "line 5: key `web`: rate: "),
            (
                with("web", HASH, &format!("{ingest}\nburst = 5")),
                "line 5: key `web`: burst: has no effect without rate",
            ),
            (
                with("web", HASH, &format!("{ingest}\nrate = \"1/s\"\nburst = 0")),
                "line 6: key `web`: burst: must be at least 1",
            ),
            (
                with("web", HASH, &format!("{ingest}\nconcurrent = 0")),
                "line 5: key `web`: concurrent: must be at least 1",
            ),
            (
                with("web", HASH, &format!("{ingest}\nexpires = \"soon\"")),
                "line 5: key `web`: expires: expected a time",
            ),
            (with("web", HASH, &format!("{ingest}\nscope = 1")), "line 5: unknown field `scope`"),
            ("[[key]]\nid = \"web\"\n".to_owned(), "line 1: missing field `hash`"),
            (with("web", HASH, "scopes = \"read\""), "line 4: scopes: invalid type: string"),
            (
                with("web", HASH, &format!("{ingest}\nrate = \"1/s\"\nburst = -1")),
                "line 6: burst: invalid value: integer `-1`",
            ),
            (
                with("web", HASH, &format!("{ingest}\nexpires = 2027-01-01")),
                "line 5: key `web`: expires: expected a time",
            ),
            (
                with("web", HASH, &format!("{ingest}\nexpires = 5")),
                "line 5: key `web`: expires: expected a time",
            ),
        ];
        for (text, expected) in cases {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}\nfor\n{text}");
        }
        assert_eq!(parse(b"\n\xff").unwrap_err().line, 2);
    }

    prop_compose! {
        fn keys()(
            hash in any::<[u8; 32]>(),
            id in "[A-Za-z0-9._-]{1,64}",
            scopes in prop::sample::subsequence(Scope::ALL.to_vec(), 1..=5),
            events in prop::option::of((1..=Rate::MAX, 1_u32..)),
            concurrent in prop::option::of(1_u32..),
            expires in prop::option::of(0_i64..4_000_000_000_000),
        ) -> Key {
            let limit = |(rate, burst)| EventLimit {
                rate: Rate::new(rate).unwrap(),
                burst: NonZeroU32::new(burst).unwrap(),
            };
            Key {
                id,
                hash,
                scopes,
                events: events.map(limit),
                concurrent: concurrent.and_then(NonZeroU32::new),
                expires: expires.map(Timestamp::from_millis_clamped),
            }
        }
    }

    proptest! {
        #[test]
        fn a_written_entry_is_read_back(key in keys()) {
            prop_assert_eq!(parse(entry(&key).as_bytes()), Ok(vec![key]));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(\\[\\[key\\]\\]|id|hash|=|\"|\\n|[a-z\\[\\]]){0,20}") {
            let _ = parse(text.as_bytes());
        }
    }
}
