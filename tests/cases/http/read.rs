//! Queries: filters, order, pages, and invalid parameters.

use serde_json::{Value, json};

use super::{paths, post_as};
use crate::fixture::{NDJSON, embedded_server, get, stored};

#[tokio::test]
async fn invalid_query_returns_400_with_the_parameter() {
    let server = embedded_server().await;
    for (query, path) in [
        ("page=0", "page"),
        ("page=5000", "page"),
        ("limit=1001", "limit"),
        ("limit=0", "limit"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("from=yesterday", "from"),
        ("colour=red", "colour"),
        ("userId=a&userId=b", "userId"),
        ("cursor=broken", "cursor"),
        ("order=up", "order"),
        ("userId=%FF", "userId"),
        ("metadata.a.b.c.d.e.f.g.h.i=1", "metadata.a.b.c.d.e.f.g.h.i"),
    ] {
        let (status, response) = get(&server, &format!("/api/v1/logs?{query}")).await;
        assert_eq!(status, 400, "{query}");
        assert_eq!(paths(&response), [path], "{query}: {response}");
    }
    let (status, response) = get(&server, "/api/v1/logs/xyz").await;
    assert_eq!((status, paths(&response)), (400, vec!["id"]));
    let (status, response) = get(&server, "/api/v1/logs/69682d8d81847b87ab93264b").await;
    assert_eq!((status, &response["status"]), (404, &json!("fail")));
}

#[tokio::test]
async fn filters_order_pages_and_cursors_agree() {
    let server = embedded_server().await;
    let lines: Vec<_> = (0..57)
        .map(|n| {
            json!({"userId": format!("user-{}", n % 3), "action": if n % 2 == 0 { "EVEN" } else { "ODD" },
                   "timestamp": format!("2026-01-01T00:00:{:02}Z", n / 4), "metadata": {"n": n, "even.n": n % 2 == 0}})
            .to_string()
        })
        .collect();
    let (_, response) = post_as(&server, "/api/v1/logs/batch", NDJSON, lines.join("\n")).await;
    for id in response["ids"].as_array().unwrap() {
        stored(&server, id.as_str().unwrap()).await;
    }
    let (_, all) = get(&server, "/api/v1/logs?limit=1000").await;
    let all = all["data"].as_array().unwrap().clone();
    assert_eq!(all.len(), 57);
    let place = |log: &Value| (log["timestamp"].to_string(), log["id"].to_string());
    assert!(all.is_sorted_by(|a, b| place(a) > place(b)), "newest first");

    for order in ["desc", "asc"] {
        let expected: Vec<_> =
            if order == "desc" { all.clone() } else { all.iter().rev().cloned().collect() };
        let (mut by_cursor, mut by_page, mut cursor) = (Vec::new(), Vec::new(), String::new());
        for page in 1.. {
            let (_, response) =
                get(&server, &format!("/api/v1/logs?limit=10&order={order}{cursor}")).await;
            by_cursor.extend(response["data"].as_array().unwrap().clone());
            let (_, paged) =
                get(&server, &format!("/api/v1/logs?limit=10&order={order}&page={page}")).await;
            assert_eq!(paged["page"], page);
            by_page.extend(paged["data"].as_array().unwrap().clone());
            match response["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(by_cursor, expected);
        assert_eq!(by_page, expected);
    }
    for (query, expected) in [
        ("userId=user-1", 19),
        ("action=ODD", 28),
        ("from=2026-01-01T00:00:10Z", 17),
        ("to=2026-01-01T00:00:10Z", 40),
        ("from=2026-01-01T00:00:10Z&to=2026-01-01T00:00:11Z", 4),
        ("metadata.n=7", 1),
        ("metadata.n=7.0", 1),
        ("metadata.even.n=true", 29),
        ("metadata.even.n=true&userId=user-0&action=EVEN", 10),
        ("metadata.m=null", 0),
    ] {
        let (status, response) = get(&server, &format!("/api/v1/logs?limit=1000&{query}")).await;
        assert_eq!((status, &response["results"]), (200, &json!(expected)), "{query}");
    }
}
