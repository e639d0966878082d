//! `GET /api/v1/stats`.

use serde_json::{Value, json};

use super::{event, store_all};
use crate::fixture::{embedded_server, get};
use crate::http::paths;

const RANGE: &str = "from=2026-03-28T23:00:00Z&to=2026-03-30T22:00:00Z";

#[tokio::test]
async fn statistics_count_by_day_of_a_zone() {
    let server = embedded_server().await;
    // 2026-03-28T23:00:00Z is midnight in Berlin. The day has 23 hours.
    let events: Vec<_> = (0..47)
        .map(|hour| {
            let user = ["ada", "bob", "eva"][hour % 3];
            let action = if hour % 10 == 0 { "LOGIN" } else { "CLICK" };
            event(hour, user, action, 1_774_738_800_000 + i64::try_from(hour).unwrap() * 3_600_000)
        })
        .collect();
    store_all(&server, &events).await;
    let query = format!("/api/v1/stats?{RANGE}&interval=1d&tz=Europe/Berlin&by=action&top=1");
    let (status, body) = get(&server, &query).await;
    assert_eq!((status, &body["status"]), (200, &json!("success")), "{body}");
    assert_eq!(
        body["data"],
        json!({
            "total": 47, "users": 3, "approximate": false, "interval": "1d",
            "buckets": [
                {"start": "2026-03-28T23:00:00.000Z", "count": 23, "by": {"CLICK": 20}, "other": 3},
                {"start": "2026-03-29T22:00:00.000Z", "count": 24, "by": {"CLICK": 22}, "other": 2},
            ],
            "top": [{"value": "CLICK", "count": 42, "users": 3}],
            "other": 5,
        })
    );
    let query = format!("/api/v1/stats?{RANGE}&userId=ada&metadata.page=home&by=metadata.n&top=2");
    let (_, body) = get(&server, &query).await;
    let data = &body["data"];
    assert_eq!((&data["total"], &data["users"]), (&json!(16), &json!(1)), "{body}");
    assert_eq!((&data["interval"], data["top"].as_array().unwrap().len()), (&json!("1h"), 2));
    assert_eq!(data["other"], 14);
    let (_, body) = get(&server, &format!("/api/v1/stats?{RANGE}")).await;
    assert_eq!((&body["data"]["total"], &body["data"]["top"]), (&json!(47), &json!([])));
    let sum: u64 = body["data"]["buckets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bucket| bucket["count"].as_u64().unwrap())
        .sum();
    assert_eq!(sum, 47);
}

#[tokio::test]
async fn invalid_statistics_return_400_with_what_is_possible() {
    let server = embedded_server().await;
    for (query, expected, message) in [
        ("", vec!["from", "to"], "RFC 3339"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", vec!["from"], "must not be after"),
        (&format!("{RANGE}&interval=2h"), vec!["interval"], "auto, 1m, 5m, 1h or 1d"),
        (&format!("{RANGE}&interval=1m"), vec!["interval"], "must be 5m or longer"),
        (&format!("{RANGE}&tz=Berlin"), vec!["tz"], "Europe/Berlin"),
        (&format!("{RANGE}&by=page&top=0"), vec!["by", "top"], "from 1 to 100"),
        (&format!("{RANGE}&limit=1"), vec!["limit"], "interval, tz, by, top"),
    ] {
        let (status, body) = get(&server, &format!("/api/v1/stats?{query}")).await;
        assert_eq!((status, paths(&body)), (400, expected), "{query}: {body}");
        assert!(body["message"].as_str().unwrap().contains(message), "{body}");
    }
}

#[tokio::test]
async fn hostile_values_stay_text() {
    let server = embedded_server().await;
    let mut hostile = event(1, "ada", "A", 1_774_738_800_000);
    hostile["metadata"]["page"] = json!("\"},<script>\n");
    store_all(&server, &[hostile]).await;
    let (_, body) = get(&server, &format!("/api/v1/stats?{RANGE}&by=metadata.page")).await;
    let value: &Value = &body["data"]["top"][0]["value"];
    assert_eq!(value, "\"},<script>\n");
    assert_eq!(body["data"]["buckets"][0]["by"]["\"},<script>\n"], 1);
}
