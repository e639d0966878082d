//! The query of `GET /api/v1/logs` and its parameters. The cursor and the
//! metadata filter are in submodules.

mod cursor;
mod filter;
mod path;

use std::collections::HashSet;

pub use self::cursor::{Cursor, ParseCursorError};
pub use self::filter::{MetadataFilter, Scalar};
pub use self::path::MetadataPath;
use crate::Timestamp;
use crate::field::{FieldError, FieldErrors};
use crate::limits::{
    DEFAULT_LIMIT, MAX_LIMIT, MAX_METADATA_FILTERS, MAX_PARAMETERS, MAX_PATH_ALTERNATIVES,
    MAX_SKIPPED_ROWS,
};

/// Selects a page of log entries.
#[derive(Debug, Clone, PartialEq)]
pub struct LogQuery {
    /// Only events of this user.
    pub user_id: Option<String>,
    /// Only events with this action.
    pub action: Option<String>,
    /// Only events at or after this time. A time outside the range of
    /// [`Timestamp`] is clamped.
    pub from: Option<Timestamp>,
    /// Only events before this time.
    pub to: Option<Timestamp>,
    /// Only events whose metadata matches all of these filters.
    pub metadata: Vec<MetadataFilter>,
    /// Maximum number of events: 1 to [`MAX_LIMIT`].
    pub limit: u32,
    /// Where the page starts.
    pub start: Start,
    /// Order of the events.
    pub order: Order,
}

impl Default for LogQuery {
    /// Selects the latest events of all users.
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

/// Where a page starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the page with this number, starting at 1. Rows of earlier pages are
    /// skipped.
    Page(u64),
    /// After this row, at a cost that does not grow with the depth.
    After(Cursor),
}

/// Order of the rows by (`timestamp`, `id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Newest first.
    Descending,
    /// Oldest first.
    Ascending,
}

impl LogQuery {
    /// Parses the query from URL parameters that are already percent-decoded.
    ///
    /// # Errors
    /// Returns an error for each parameter that is invalid, unknown or repeated, or
    /// one error if there are more parameters or metadata filters than
    /// [`limits`](crate::limits) allows.
    ///
    /// ```
    /// use eyego_log_core::LogQuery;
    ///
    /// let query = LogQuery::from_pairs([("userId", "user-123"), ("metadata.page", "home")])?;
    /// assert_eq!(query.user_id.as_deref(), Some("user-123"));
    ///
    /// let error = LogQuery::from_pairs([("limit", "1001")]).unwrap_err();
    /// assert_eq!(error.to_string(), "limit must be a whole number from 1 to 1000");
    /// # Ok::<(), eyego_log_core::FieldErrors>(())
    /// ```
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, FieldErrors> {
        let mut query = Self::default();
        let mut errors = FieldErrors::new();
        let mut seen = HashSet::new();
        for (name, value) in pairs {
            if !seen.insert(name) {
                errors.add(name, "must not be repeated");
                continue;
            }
            if seen.len() > MAX_PARAMETERS {
                let message = format_args!("a query may have at most {MAX_PARAMETERS} parameters");
                return Err(FieldError::of_input(message).into());
            }
            if let Err(reason) = query.set(name, value) {
                errors.add(name, reason);
            }
        }
        if seen.contains("page") && seen.contains("cursor") {
            errors.add("cursor", "must not be combined with page");
        }
        query.check_filters(&mut errors);
        if let (Some(from), Some(to)) = (query.from, query.to)
            && from > to
        {
            errors.add("from", format!("must not be after to ({from} > {to})"));
        }
        if let Start::Page(page) = query.start
            && (page - 1).saturating_mul(u64::from(query.limit)) > MAX_SKIPPED_ROWS
        {
            let reason = format!(
                "must not skip more than {MAX_SKIPPED_ROWS} rows; use cursor for deeper pages \
                 (nextCursor of the response)"
            );
            errors.add("page", reason);
        }
        if errors.is_empty() { Ok(query) } else { Err(errors) }
    }

    /// Checks the limits of all filters together.
    fn check_filters(&self, errors: &mut FieldErrors) {
        let alternatives: usize = self.metadata.iter().map(MetadataFilter::alternatives).sum();
        if self.metadata.len() > MAX_METADATA_FILTERS {
            let count = self.metadata.len();
            let reason =
                format_args!("must have at most {MAX_METADATA_FILTERS} filters, not {count}");
            errors.add("metadata", reason);
        } else if alternatives > MAX_PATH_ALTERNATIVES {
            let reason = format_args!(
                "must have shorter paths or fewer filters: a path of n segments matches 2^(n-1) \
                 ways to split it into keys, and all filters together may have at most \
                 {MAX_PATH_ALTERNATIVES}, not {alternatives}"
            );
            errors.add("metadata", reason);
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "userId" => self.user_id = Some(non_empty(value)?),
            "action" => self.action = Some(non_empty(value)?),
            "from" => self.from = Some(parse_time(value)?),
            "to" => self.to = Some(parse_time(value)?),
            "limit" => self.limit = parse_limit(value)?,
            "page" => {
                let page = value.parse().ok().filter(|page| *page >= 1);
                self.start = Start::Page(page.ok_or("must be a whole number from 1")?);
            }
            "cursor" => self.start = Start::After(parse_cursor(value)?),
            "order" => {
                self.order = match value {
                    "desc" => Order::Descending,
                    "asc" => Order::Ascending,
                    _ => return Err("must be desc or asc".to_owned()),
                }
            }
            _ => match name.strip_prefix("metadata.") {
                Some(path) => {
                    let filter = MetadataFilter::new(path, value);
                    self.metadata.push(filter.map_err(|error| error.to_string())?);
                }
                None => {
                    return Err("is not a known parameter (those are userId, action, from, to, \
                                metadata.<path>, limit, page, cursor, order)"
                        .to_owned());
                }
            },
        }
        Ok(())
    }

    /// Returns the URL parameters of the query, not percent-encoded.
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

    /// Returns the number of rows to skip, which is 0 for a cursor.
    #[must_use]
    pub fn skipped_rows(&self) -> u64 {
        match self.start {
            Start::Page(page) => (page - 1).saturating_mul(u64::from(self.limit)),
            Start::After(_) => 0,
        }
    }
}

/// Parses the parameter `limit` of a list: the maximum number of results of a page.
///
/// # Errors
/// Returns the reason the value is invalid.
pub fn parse_limit(value: &str) -> Result<u32, String> {
    let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| format!("must be a whole number from 1 to {MAX_LIMIT}"))
}

/// Parses the parameter `cursor` of a list: the position after which a page starts.
///
/// # Errors
/// Returns the reason the value is invalid.
pub fn parse_cursor(value: &str) -> Result<Cursor, String> {
    value.parse().map_err(|error: ParseCursorError| error.to_string())
}

fn non_empty(value: &str) -> Result<String, String> {
    if value.is_empty() {
        Err("must not be empty; omit it to match all".to_owned())
    } else {
        Ok(value.to_owned())
    }
}

fn parse_time(value: &str) -> Result<Timestamp, String> {
    Timestamp::parse_clamped(value).map_err(|error| {
        // The most common mistake: an unescaped `+` in a URL is a space.
        let hint = if value.contains(' ') { " (in a URL write + as %2B)" } else { "" };
        format!("{error}{hint}")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn errors(pairs: &[(&str, &str)]) -> String {
        LogQuery::from_pairs(pairs.iter().copied()).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_parameter() {
        assert_eq!(errors(&[("page", "0")]), "page must be a whole number from 1");
        for limit in ["0", "1001", "-1", "1.5", "", "ten"] {
            assert_eq!(errors(&[("limit", limit)]), "limit must be a whole number from 1 to 1000");
        }
        assert!(errors(&[("colour", "red")]).starts_with("colour is not a known parameter"));
        assert!(errors(&[("metadata", "x")]).starts_with("metadata is not a known parameter"));
        assert_eq!(
            errors(&[("cursor", "xyz")]),
            "cursor must be the nextCursor of an earlier response, unchanged"
        );
        assert_eq!(errors(&[("order", "up")]), "order must be desc or asc");
        assert_eq!(errors(&[("userId", "a"), ("userId", "b")]), "userId must not be repeated");
        assert!(
            errors(&[("from", "2026-01-02T00:00:00Z"), ("to", "2026-01-01T00:00:00Z")])
                .starts_with("from must not be after to")
        );
        assert!(errors(&[("from", "2026-01-02T00:00:00 01:00")]).ends_with("write + as %2B)"));
        assert!(errors(&[("page", "1002")]).contains("cursor"));
        assert!(LogQuery::from_pairs([("page", "1001")]).is_ok(), "skips 10,000 rows");
        assert!(errors(&[("metadata.1.2.3.4.5.6.7.8.9", "x")]).contains("8 segments"));
    }

    #[test]
    fn parameters_and_filters_are_limited() {
        let names = |count: usize, prefix: &str| -> Vec<String> {
            (0..count).map(|n| format!("{prefix}{n}")).collect()
        };
        let errors_of =
            |names: &[String]| LogQuery::from_pairs(names.iter().map(|name| (name.as_str(), "x")));
        assert_eq!(
            errors_of(&names(10_000, "x")).unwrap_err().to_string(),
            "a query may have at most 100 parameters"
        );
        assert_eq!(errors_of(&names(100, "x")).unwrap_err().total(), 100);
        assert!(errors_of(&names(16, "metadata.")).is_ok());
        assert_eq!(
            errors_of(&names(17, "metadata.")).unwrap_err().to_string(),
            "metadata must have at most 16 filters, not 17"
        );
        assert!(errors_of(&names(4, "metadata.a.b.c.d.e.f.g.h")).is_ok(), "4 * 128");
        let errors = errors_of(&names(5, "metadata.a.b.c.d.e.f.g.h")).unwrap_err().to_string();
        assert!(errors.ends_with("at most 512, not 640"), "{errors}");
        assert_eq!(errors.matches(';').count(), 0, "{errors}");
        let repeated = std::iter::repeat_n(("userId", "x"), 50_000);
        assert_eq!(LogQuery::from_pairs(repeated).unwrap_err().total(), 49_999);
    }

    #[test]
    fn times_are_clamped() {
        let query = LogQuery::from_pairs([
            ("from", "0000-01-01T00:00:00+14:00"),
            ("to", "9999-12-31T23:59:59.9999999999-12:00"),
        ])
        .unwrap();
        assert_eq!((query.from, query.to), (Some(Timestamp::MIN), Some(Timestamp::MAX)));
    }

    #[test]
    fn every_error_is_listed() {
        assert_eq!(errors(&[("page", "0"), ("limit", "0"), ("x", "")]).matches(';').count(), 2);
    }

    proptest! {
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
    }
}
