//! The event that all benches log, and the same for `serde_json` alone.

use eyego_log_client::Event;
use serde::Serialize;

/// Metadata with five fields that need no allocation.
#[derive(Serialize, Clone, Copy)]
pub(crate) struct Metadata {
    pub(crate) page: &'static str,
    pub(crate) browser: &'static str,
    pub(crate) width: u32,
    pub(crate) ratio: f64,
    pub(crate) referrer: &'static str,
}

pub(crate) const METADATA: Metadata = Metadata {
    page: "home",
    browser: "chrome",
    width: 1920,
    ratio: 0.75,
    referrer: "https://example.com/a/b",
};

/// The same event, to be serialized by `serde_json` alone.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Plain<'a> {
    pub(crate) id: &'a str,
    pub(crate) timestamp: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) action: &'a str,
    pub(crate) metadata: Metadata,
}

pub(crate) const PLAIN: Plain<'static> = Plain {
    id: "69682d8d81847b87ab93264b",
    timestamp: "2026-01-14T23:58:05.442Z",
    user_id: "user-123",
    action: "CLICK_BUTTON",
    metadata: METADATA,
};

pub(crate) fn event() -> Event<'static, Metadata> {
    Event::new("user-123", "CLICK_BUTTON").metadata(METADATA)
}
