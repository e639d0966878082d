//! The formats of an export.

use super::csv::Columns;

/// The values of `format`.
pub(in crate::interface::http) const FORMATS: &[&str] =
    if cfg!(feature = "parquet") { &["ndjson", "csv", "parquet"] } else { &["ndjson", "csv"] };

/// Media type of a Parquet file.
pub(in crate::interface::http) const PARQUET: &str = "application/vnd.apache.parquet";

/// The reason another value of `format` is invalid.
pub(super) const OTHER_FORMAT: &str = if cfg!(feature = "parquet") {
    "must be ndjson, csv or parquet"
} else {
    "must be ndjson or csv; parquet needs a server that is built with the cargo feature `parquet`"
};

/// How the events are to be written.
#[derive(Debug, PartialEq)]
pub(super) enum Format {
    Ndjson,
    Csv(Columns),
    #[cfg(feature = "parquet")]
    Parquet(Columns),
}

impl Format {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "ndjson" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv(Columns::default())),
            #[cfg(feature = "parquet")]
            "parquet" => Some(Self::Parquet(Columns::default())),
            _ => None,
        }
    }

    /// Returns the format with these columns, or `None` if it has no columns.
    pub(super) fn with_columns(self, columns: Columns) -> Option<Self> {
        match self {
            Self::Ndjson => None,
            Self::Csv(_) => Some(Self::Csv(columns)),
            #[cfg(feature = "parquet")]
            Self::Parquet(_) => Some(Self::Parquet(columns)),
        }
    }

    /// Returns whether compressing it again would gain nothing.
    pub(super) fn is_compressed(&self) -> bool {
        match self {
            Self::Ndjson | Self::Csv(_) => false,
            #[cfg(feature = "parquet")]
            Self::Parquet(_) => true,
        }
    }

    /// Returns the media type and the extension of a file name.
    pub(super) fn media_type(&self) -> (&'static str, &'static str) {
        match self {
            Self::Ndjson => ("application/x-ndjson", "ndjson"),
            Self::Csv(_) => ("text/csv; charset=utf-8; header=present", "csv"),
            #[cfg(feature = "parquet")]
            Self::Parquet(_) => (PARQUET, "parquet"),
        }
    }
}
