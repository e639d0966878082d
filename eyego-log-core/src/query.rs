//! The query of `GET /api/v1/logs`: its parameters, its cursor, and the rules
//! by which a filter on metadata matches.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::field::{FieldError, FieldErrors};
use crate::limits::{DEFAULT_LIMIT, MAX_LIMIT, MAX_PATH_SEGMENTS, MAX_SKIPPED_ROWS};
use crate::{LogEntry, LogId, Timestamp};

/// Which logs, in which order, from where.
#[derive(Debug, Clone, PartialEq)]
pub struct LogQuery {
    /// Only this user's.
    pub user_id: Option<String>,
    /// Only this action's.
    pub action: Option<String>,
    /// Only from this time on.
    pub from: Option<Timestamp>,
    /// Only before this time.
    pub to: Option<Timestamp>,
    /// Only those that match each of these.
    pub metadata: Vec<MetadataFilter>,
    /// How many at most: 1 to [`MAX_LIMIT`].
    pub limit: u32,
    /// Where to begin.
    pub start: Start,
    /// In which order.
    pub order: Order,
}

impl Default for LogQuery {
    /// The latest logs of all users.
    fn default() -> Self {
        Self {
            user_id: None,
            action: None,
            from: None,
            to: None,
            metadata: Vec::new(),
            limit: DEFAULT_LIMIT,
            start: Start::Page(1),
            order: Order::Descending,
        }
    }
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// After the rows of the pages before this one; the first is 1.
    Page(u64),
    /// After this row, at the same cost at any depth.
    After(Cursor),
}

/// The order of the rows by (`timestamp`, `id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Newest first.
    Descending,
    /// Oldest first.
    Ascending,
}

impl LogQuery {
    /// The query that these parameters, already percent-decoded, ask for.
    ///
    /// # Errors
    /// Every fault; an unknown or repeated parameter is one.
    ///
    /// ```
    /// use eyego_log_core::LogQuery;
    ///
    /// let query = LogQuery::from_pairs([("userId", "user-123"), ("metadata.page", "home")])?;
    /// assert_eq!(query.user_id.as_deref(), Some("user-123"));
    ///
    /// let fault = LogQuery::from_pairs([("limit", "1001")]).unwrap_err();
    /// assert_eq!(fault.to_string(), "limit must be a whole number from 1 to 1000");
    /// # Ok::<(), eyego_log_core::FieldErrors>(())
    /// ```
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, FieldErrors> {
        let mut query = Self::default();
        let mut faults = FieldErrors::new();
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in pairs {
            if seen.contains(&name) {
                faults.push(FieldError::new(name, "must not be repeated"));
                continue;
            }
            seen.push(name);
            if let Err(fault) = query.set(name, value) {
                faults.push(FieldError::new(name, fault));
            }
        }
        if seen.contains(&"page") && seen.contains(&"cursor") {
            faults.push(FieldError::new("cursor", "must not be combined with page"));
        }
        if let (Some(from), Some(to)) = (query.from, query.to)
            && from > to
        {
            faults.push(FieldError::new("from", format!("must not be after to ({from} > {to})")));
        }
        if let Start::Page(page) = query.start
            && (page - 1).saturating_mul(u64::from(query.limit)) > MAX_SKIPPED_ROWS
        {
            let fault = format!(
                "must not skip more than {MAX_SKIPPED_ROWS} rows; go deeper by cursor \
                 (take nextCursor of the answer)"
            );
            faults.push(FieldError::new("page", fault));
        }
        if faults.is_empty() { Ok(query) } else { Err(faults) }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "userId" => self.user_id = Some(non_empty(value)?),
            "action" => self.action = Some(non_empty(value)?),
            "from" => self.from = Some(time(value)?),
            "to" => self.to = Some(time(value)?),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                self.limit =
                    limit.ok_or_else(|| format!("must be a whole number from 1 to {MAX_LIMIT}"))?;
            }
            "page" => {
                let page = value.parse().ok().filter(|page| *page >= 1);
                self.start = Start::Page(page.ok_or("must be a whole number from 1")?);
            }
            "cursor" => {
                let cursor = value.parse().map_err(|error: ParseCursorError| error.to_string())?;
                self.start = Start::After(cursor);
            }
            "order" => {
                self.order = match value {
                    "desc" => Order::Descending,
                    "asc" => Order::Ascending,
                    _ => return Err("must be desc or asc".to_owned()),
                }
            }
            _ => match name.strip_prefix("metadata.") {
                Some(path) => self.metadata.push(MetadataFilter::new(path, value)?),
                None => {
                    return Err("is not a known parameter (those are userId, action, from, to, \
                                metadata.<path>, limit, page, cursor, order)"
                        .to_owned());
                }
            },
        }
        Ok(())
    }

    /// The parameters that ask for this query.
    #[must_use]
    pub fn to_pairs(&self) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        let mut add = |name: &str, value: String| pairs.push((name.to_owned(), value));
        if let Some(user_id) = &self.user_id {
            add("userId", user_id.clone());
        }
        if let Some(action) = &self.action {
            add("action", action.clone());
        }
        if let Some(from) = self.from {
            add("from", from.to_string());
        }
        if let Some(to) = self.to {
            add("to", to.to_string());
        }
        for filter in &self.metadata {
            add(&format!("metadata.{}", filter.path()), filter.text().to_owned());
        }
        add("limit", self.limit.to_string());
        match self.start {
            Start::Page(1) => {}
            Start::Page(page) => add("page", page.to_string()),
            Start::After(cursor) => add("cursor", cursor.to_string()),
        }
        if self.order == Order::Ascending {
            add("order", "asc".to_owned());
        }
        pairs
    }

    /// Rows to skip; 0 where a cursor says where to begin.
    #[must_use]
    pub fn skipped_rows(&self) -> u64 {
        match self.start {
            Start::Page(page) => (page - 1).saturating_mul(u64::from(self.limit)),
            Start::After(_) => 0,
        }
    }
}

fn non_empty(value: &str) -> Result<String, String> {
    if value.is_empty() {
        Err("must not be empty; leave it out to match all".to_owned())
    } else {
        Ok(value.to_owned())
    }
}

fn time(value: &str) -> Result<Timestamp, String> {
    value.parse().map_err(|error: crate::ParseTimestampError| {
        // The commonest slip: a `+` in a URL is a space.
        let hint = if value.contains(' ') { " (in a URL write + as %2B)" } else { "" };
        format!("{error}{hint}")
    })
}

/// The place of a row in the order by (`timestamp`, `id`): opaque text outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The row's time.
    pub timestamp: Timestamp,
    /// The row's id.
    pub id: LogId,
}

impl From<&LogEntry> for Cursor {
    fn from(entry: &LogEntry) -> Self {
        Self { timestamp: entry.timestamp, id: entry.id }
    }
}

/// The first byte of a cursor, to be changed with its layout.
const CURSOR_VERSION: u8 = 1;

impl Cursor {
    fn payload(&self) -> [u8; 21] {
        let mut payload = [CURSOR_VERSION; 21];
        payload[1..9].copy_from_slice(&self.timestamp.as_millis().to_be_bytes());
        payload[9..].copy_from_slice(self.id.as_bytes());
        payload
    }
}

/// Tells a cursor that was cut or mistyped from a good one (FNV-1a, 16 bits).
fn checksum(payload: &[u8]) -> [u8; 2] {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in payload {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    let [a, b, c, d] = hash.to_be_bytes();
    [a ^ c, b ^ d]
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = self.payload();
        for byte in payload.iter().chain(&checksum(&payload)) {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// The text is not a cursor that an answer gave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be the nextCursor of an earlier answer, unchanged")]
pub struct ParseCursorError;

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 46 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ParseCursorError);
        }
        let mut bytes = [0; 23];
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte =
                u8::from_str_radix(&text[2 * n..2 * n + 2], 16).map_err(|_| ParseCursorError)?;
        }
        let (payload, sum) = bytes.split_at(21);
        if sum != checksum(payload) || payload[0] != CURSOR_VERSION {
            return Err(ParseCursorError);
        }
        let mut millis = [0; 8];
        millis.copy_from_slice(&payload[1..9]);
        let mut id = [0; 12];
        id.copy_from_slice(&payload[9..]);
        let timestamp =
            Timestamp::from_millis(i64::from_be_bytes(millis)).ok_or(ParseCursorError)?;
        Ok(Self { timestamp, id: LogId::from_bytes(id) })
    }
}

/// A condition on one path of the metadata.
///
/// The rules, which every store follows and [`matches`](Self::matches) states:
/// - `a.b` names the member `b` of the object `a`, and any member whose own key
///   has dots: each way to split the path is tried.
/// - On the way and at the end an array stands for each of its elements (of one
///   level).
/// - The value matches as the string that it is; where it reads as a JSON
///   number, `true`, `false` or `null` it matches that as well: numbers by
///   value (1 and 1.0), `null` only a present null.
///
/// ```
/// use eyego_log_core::query::MetadataFilter;
/// use serde_json::json;
///
/// let filter = MetadataFilter::new("cart.items", "2").unwrap();
/// for metadata in [
///     json!({"cart": {"items": 2}}),
///     json!({"cart": {"items": 2.0}}),
///     json!({"cart": {"items": "2"}}),
///     json!({"cart": {"items": [1, 2]}}),
///     json!({"cart.items": 2}),
/// ] {
///     assert!(filter.matches(metadata.as_object().unwrap()), "{metadata}");
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataFilter {
    path: String,
    text: String,
    scalar: Option<Scalar>,
}

/// What the text of a filter's value reads as, besides being a string.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar {
    /// A present null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number without fraction or exponent that an `i64` holds.
    Integer(i64),
    /// Any other number.
    Float(f64),
}

impl MetadataFilter {
    /// The condition that `value` stands at `path`, whose segments are
    /// separated by dots.
    ///
    /// # Errors
    /// The fault, as the end of a sentence that begins with the parameter's
    /// name.
    pub fn new(path: &str, value: &str) -> Result<Self, String> {
        if path.split('.').count() > MAX_PATH_SEGMENTS {
            return Err(format!("must have at most {MAX_PATH_SEGMENTS} segments after metadata"));
        }
        if path.contains('\0') {
            return Err("must not contain U+0000".to_owned());
        }
        Ok(Self { path: path.to_owned(), text: value.to_owned(), scalar: read_scalar(value) })
    }

    /// The path, as it was given.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value as a string.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What else the value reads as.
    #[must_use]
    pub fn scalar(&self) -> Option<Scalar> {
        self.scalar
    }

    /// Whether the metadata fulfils the condition: the rule that each store
    /// follows.
    #[must_use]
    pub fn matches(&self, metadata: &serde_json::Map<String, Value>) -> bool {
        self.matches_below(metadata, &self.path)
    }

    fn matches_below(&self, object: &serde_json::Map<String, Value>, path: &str) -> bool {
        let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
        for end in ends {
            let Some(member) = object.get(&path[..end]) else { continue };
            let rest = path.get(end + 1..);
            let found = match member {
                Value::Array(elements) => {
                    elements.iter().any(|element| self.matches_member(element, rest))
                }
                single => self.matches_member(single, rest),
            };
            if found {
                return true;
            }
        }
        false
    }

    fn matches_member(&self, member: &Value, rest: Option<&str>) -> bool {
        match (rest, member) {
            (Some(rest), Value::Object(object)) => self.matches_below(object, rest),
            (Some(_), _) => false,
            (None, value) => self.is_value(value),
        }
    }

    fn is_value(&self, value: &Value) -> bool {
        match (value, self.scalar) {
            (Value::String(text), _) => *text == self.text,
            (Value::Null, Some(Scalar::Null)) => true,
            (Value::Bool(is), Some(Scalar::Bool(wanted))) => *is == wanted,
            (Value::Number(is), Some(Scalar::Integer(wanted))) => match is.as_i64() {
                Some(is) => is == wanted,
                None => is.as_f64().is_some_and(|is| float_is_integer(is, wanted)),
            },
            (Value::Number(is), Some(Scalar::Float(wanted))) => match is.as_i64() {
                Some(is) => float_is_integer(wanted, is),
                None => is.as_f64() == Some(wanted),
            },
            _ => false,
        }
    }
}

/// Compares by value, exactly: 2^53 + 1 is not the float 2^53.
fn float_is_integer(float: f64, integer: i64) -> bool {
    // Each float in this range is converted without loss; 2^63 itself is
    // outside, and no i64.
    const END: f64 = (1_u64 << 63) as f64;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
    let whole = float.fract() == 0.0 && (-END..END).contains(&float) && float as i64 == integer;
    whole
}

fn read_scalar(text: &str) -> Option<Scalar> {
    match serde_json::from_str(text).ok()? {
        // "Reads as" means the whole text: JSON's parser also allows blanks
        // around it.
        _ if text.trim_ascii() != text => None,
        Value::Null => Some(Scalar::Null),
        Value::Bool(value) => Some(Scalar::Bool(value)),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Some(Scalar::Integer(integer)),
            None => number.as_f64().map(Scalar::Float),
        },
        Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn faults(pairs: &[(&str, &str)]) -> String {
        LogQuery::from_pairs(pairs.iter().copied()).unwrap_err().to_string()
    }

    #[test]
    fn faults_name_the_parameter() {
        assert_eq!(faults(&[("page", "0")]), "page must be a whole number from 1");
        for limit in ["0", "1001", "-1", "1.5", "", "ten"] {
            assert_eq!(faults(&[("limit", limit)]), "limit must be a whole number from 1 to 1000");
        }
        assert!(faults(&[("colour", "red")]).starts_with("colour is not a known parameter"));
        assert!(faults(&[("metadata", "x")]).starts_with("metadata is not a known parameter"));
        assert_eq!(
            faults(&[("cursor", "xyz")]),
            "cursor must be the nextCursor of an earlier answer, unchanged"
        );
        assert_eq!(faults(&[("order", "up")]), "order must be desc or asc");
        assert_eq!(faults(&[("userId", "a"), ("userId", "b")]), "userId must not be repeated");
        assert!(
            faults(&[("from", "2026-01-02T00:00:00Z"), ("to", "2026-01-01T00:00:00Z")])
                .starts_with("from must not be after to")
        );
        assert!(faults(&[("from", "2026-01-02T00:00:00 01:00")]).ends_with("write + as %2B)"));
        assert!(faults(&[("page", "1002")]).contains("cursor"));
        assert!(LogQuery::from_pairs([("page", "1001")]).is_ok(), "skips 10,000 rows");
        assert!(faults(&[("metadata.1.2.3.4.5.6.7.8.9", "x")]).contains("8 segments"));
    }

    #[test]
    fn several_faults_are_all_listed() {
        assert_eq!(faults(&[("page", "0"), ("limit", "0"), ("x", "")]).matches(';').count(), 2);
    }

    fn matches(metadata: &Value, path: &str, value: &str) -> bool {
        MetadataFilter::new(path, value).unwrap().matches(metadata.as_object().unwrap())
    }

    #[test]
    fn each_way_to_split_a_path_is_tried() {
        for metadata in [
            json!({"a": {"b": {"c": 1}}}),
            json!({"a.b": {"c": 1}}),
            json!({"a": {"b.c": 1}}),
            json!({"a.b.c": 1}),
            json!({"a": {"b": [{"c": 0}, {"c": [7, 1]}]}}),
        ] {
            assert!(matches(&metadata, "a.b.c", "1"), "{metadata}");
        }
        assert!(!matches(&json!({"a": {"b": {"c": {"d": 1}}}}), "a.b.c", "1"));
        assert!(!matches(&json!({"a": [[1]]}), "a", "1"), "arrays of one level");
        assert!(matches(&json!({"": {"": 1}}), ".", "1"), "empty keys");
    }

    #[test]
    fn a_value_matches_as_what_it_reads_as_and_as_a_string() {
        for (metadata, value, expected) in [
            (json!({"k": 1}), "1", true),
            (json!({"k": 1.0}), "1", true),
            (json!({"k": 1}), "1.0", true),
            (json!({"k": 1}), "1e0", true),
            (json!({"k": "1"}), "1", true),
            (json!({"k": "1"}), "1.0", false),
            (json!({"k": 1}), " 1", false),
            (json!({"k": 9_007_199_254_740_993_i64}), "9007199254740992.0", false),
            (json!({"k": i64::MAX}), "9223372036854775808", false),
            (json!({"k": true}), "true", true),
            (json!({"k": "true"}), "true", true),
            (json!({"k": null}), "null", true),
            (json!({"k": "null"}), "null", true),
            (json!({}), "null", false),
            (json!({"k": {}}), "{}", false),
        ] {
            assert_eq!(matches(&metadata, "k", value), expected, "{metadata} {value}");
        }
    }

    proptest! {
        #[test]
        fn cursors_round_trip_and_notice_a_change(
            millis in Timestamp::MIN.as_millis()..=Timestamp::MAX.as_millis(),
            id: [u8; 12],
            place in 0usize..46,
        ) {
            let timestamp = Timestamp::from_millis(millis).unwrap();
            let cursor = Cursor { timestamp, id: LogId::from_bytes(id) };
            let text = cursor.to_string();
            prop_assert_eq!(text.parse::<Cursor>().unwrap(), cursor);
            let mut broken = text.into_bytes();
            broken[place] = if broken[place] == b'0' { b'1' } else { b'0' };
            prop_assert!(String::from_utf8(broken).unwrap().parse::<Cursor>().is_err());
        }

        #[test]
        fn queries_round_trip_as_parameters(
            user_id in prop::option::of("\\PC{1,8}"),
            paths in prop::collection::btree_map("[a-z.]{0,6}", "\\PC{0,6}", 0..3),
            limit in 1u32..=1000,
            page in 1u64..10,
        ) {
            let query = LogQuery {
                user_id,
                metadata: paths
                    .iter()
                    .map(|(path, value)| MetadataFilter::new(path, value).unwrap())
                    .collect(),
                limit,
                start: Start::Page(page),
                ..LogQuery::default()
            };
            let pairs = query.to_pairs();
            let pairs = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            prop_assert_eq!(LogQuery::from_pairs(pairs).unwrap(), query);
        }

        #[test]
        fn no_cursor_panics(text in "\\PC{0,60}") {
            let _ = text.parse::<Cursor>();
        }
    }
}
