//! The query of `GET /api/v1/logs`: its parameters. Its cursor, and the rules by
//! which a filter on metadata matches, have files of their own.

mod cursor;
mod filter;

pub use self::cursor::{Cursor, ParseCursorError};
pub use self::filter::{MetadataFilter, Scalar};
use crate::Timestamp;
use crate::field::{FieldError, FieldErrors};
use crate::limits::{DEFAULT_LIMIT, MAX_LIMIT, MAX_SKIPPED_ROWS};

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
