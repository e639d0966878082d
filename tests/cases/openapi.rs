//! The OpenAPI document agrees with the router, with docs/api.md and with itself. That responses
//! conform to it is checked wherever a test sends a request (`stack::openapi`).

mod clients;
mod fuzzing;

use std::collections::BTreeSet;

use reqwest::redirect::Policy;
use serde_json::{Value, json};
use stack::keys::KeysFile;
use stack::openapi::{self, document};
use stack::server::Server;

use crate::fixture::{embedded_server, post, post_log, ready, url};
use crate::sources::{read_below, workspace};

/// Statuses that docs/api.md documents once for all routes, because a request gets them whatever its
/// route.
const OF_EVERY_ROUTE: [&str; 14] = [
    "200", "304", "400", "401", "403", "408", "413", "414", "415", "421", "429", "431", "500",
    "503",
];

/// Returns the method, the path and the description of each operation.
fn operations(document: &Value) -> Vec<(String, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter();
        operations.map(move |(method, operation)| (method.to_uppercase(), path.as_str(), operation))
    });
    operations.collect()
}

/// Calls `visit` with each value in the document, and the key it is under.
fn walk<'a>(key: &'a str, value: &'a Value, visit: &mut impl FnMut(&'a str, &'a Value)) {
    visit(key, value);
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| walk(key, value, visit)),
        Value::Array(elements) => elements.iter().for_each(|value| walk(key, value, visit)),
        _ => {}
    }
}

#[tokio::test]
async fn document_is_served_without_a_key() {
    let keys = KeysFile::new().unwrap();
    keys.add("reader", &["read"]).unwrap();
    let server = ready(Server::builder().env("EYEGO_KEYS_FILE", keys.path())).await;
    let request = reqwest::Client::new().get(url(&server, "/openapi.json"));
    let received = openapi::send(request).await.unwrap();
    assert_eq!(received.status, 200);
    let served: Value = serde_json::from_slice(&received.body).unwrap();
    assert_eq!(served, document());
    assert_eq!(served["openapi"], "3.1.0");
    assert_eq!(served["servers"], json!([{"url": "."}]), "an absolute path ignores a path prefix");
    assert_eq!(served["components"]["securitySchemes"]["key"]["scheme"], "bearer");
}

#[test]
fn references_exist_names_are_unique_and_texts_are_for_callers() {
    let document = document();
    let mut references = BTreeSet::new();
    walk("", &document, &mut |key, value| {
        let text = value.as_str().unwrap_or_default();
        match key {
            "$ref" => drop(references.insert(text)),
            // Links and names of Rust's documentation.
            "description" | "summary" => {
                assert!(
                    !text.contains("[`") && !text.contains("::") && !text.contains("`None`"),
                    "{text}"
                );
            }
            _ => {}
        }
    });
    for reference in &references {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference} does not exist");
    }
    for part in ["schemas", "responses"] {
        for name in document["components"][part].as_object().unwrap().keys() {
            let is_used = references.contains(format!("#/components/{part}/{name}").as_str());
            assert!(is_used || name == "MethodNotAllowed", "{name} is not used");
        }
    }
    let operations = operations(&document);
    let ids: BTreeSet<_> = operations
        .iter()
        .map(|(.., operation)| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), operations.len());
}

#[test]
fn document_and_router_have_the_same_routes() {
    let mut routes = BTreeSet::new();
    for source in read_below("eyego-log-server/src/interface/http", &["rs"]) {
        if source.path.ends_with("tests.rs") {
            continue;
        }
        let code = source.text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for call in code.split(".route(").skip(1) {
            let (path, handlers) = call.split_once(',').unwrap();
            let path = path.trim().trim_matches('"').replace("LOGS", "/api/v1/logs");
            let handlers = handlers.split(".route(").next().unwrap();
            let end = handlers.find("\n        .").unwrap_or(handlers.len());
            for method in ["get", "post", "delete", "put", "patch"] {
                if handlers[..end].contains(&format!("{method}(")) {
                    routes.insert(format!("{} {path}", method.to_uppercase()));
                }
            }
        }
    }
    let document = document();
    let documented: BTreeSet<_> =
        operations(&document).iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(documented, routes);
    assert!(routes.contains("POST /api/v1/logs") && routes.len() > 15, "{routes:?}");
}

/// Returns the text of the section of docs/api.md with this heading, up to the next one.
fn section<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("\n## {heading}\n"))?;
    Some(rest.split("\n## ").next().unwrap())
}

/// Returns the three-digit numbers in the first column of the tables of a text.
fn statuses_in_tables(text: &str) -> BTreeSet<String> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let numbers = cells.flat_map(|cell| cell.split(", ")).map(str::to_owned);
    numbers.filter(|number| number.len() == 3 && number.parse::<u16>().is_ok()).collect()
}

/// Returns the names of the parameters in the first column of the tables of a text.
fn parameters_in_tables(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_parameters = false;
    for line in text.lines() {
        is_parameters = match line.strip_prefix("| ") {
            Some(row) => {
                is_parameters
                    || row.starts_with("parameter |")
                    || row.starts_with("query parameter |")
            }
            None => line.starts_with("|-") && is_parameters,
        };
        if is_parameters && line.starts_with("| `") {
            let cell = line[2..].split(" |").next().unwrap();
            names.extend(cell.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    names
}

#[test]
fn api_documentation_has_each_route_status_and_parameter() {
    let text = std::fs::read_to_string(workspace().join("docs/api.md")).unwrap();
    let document = document();
    let mut problems = Vec::new();
    let mut statuses = BTreeSet::from(["405".to_owned()]);
    let mut headings = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let route = format!("{method} {path}");
        if !text.contains(&format!("`{route}`")) {
            problems.push(format!("{route} is not in the table of routes"));
        }
        let responses: BTreeSet<_> =
            operation["responses"].as_object().unwrap().keys().cloned().collect();
        statuses.extend(responses.iter().cloned());
        if !path.starts_with("/api/v1/") {
            continue;
        }
        let Some(section) = section(&text, &route) else {
            problems.push(format!("{route} has no section"));
            continue;
        };
        headings.insert(route.clone());
        for status in responses.iter().filter(|status| !OF_EVERY_ROUTE.contains(&status.as_str())) {
            if !section.contains(status.as_str()) {
                problems.push(format!("{route}: the status {status} is missing"));
            }
        }
        for status in statuses_in_tables(section).difference(&responses) {
            problems.push(format!("{route}: the status {status} is not in /openapi.json"));
        }
        let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let parameters: BTreeSet<_> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| {
                parameter["name"].as_str().unwrap().replace("metadata", "metadata.<path>")
            })
            .collect();
        for name in parameters.iter().filter(|name| !section.contains(&format!("`{name}`"))) {
            problems.push(format!("{route}: the parameter {name} is missing"));
        }
        for name in parameters_in_tables(section).difference(&parameters) {
            problems.push(format!("{route}: the parameter {name} is not in /openapi.json"));
        }
    }
    let all = section(&text, "Responses").unwrap();
    let listed = statuses_in_tables(all);
    for status in statuses.symmetric_difference(&listed) {
        problems.push(format!("the table of statuses and /openapi.json differ in {status}"));
    }
    for line in text.lines().filter_map(|line| line.strip_prefix("## ")) {
        if line.contains(" /") && !headings.contains(line) {
            problems.push(format!("{line} is not in /openapi.json"));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[tokio::test]
async fn streams_pages_and_metrics_conform_to_the_document() {
    let server = embedded_server().await;
    let event = json!({"userId": "u", "action": "A", "metadata": {"page": "home"}});
    assert_eq!(post(&server, "/api/v1/logs?wait=stored", &event).await.0, 200);
    assert_eq!(post_log(&server, &event).await.0, 202);
    let client = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    for (path, status) in [
        ("/api/v1/logs/export", 200),
        ("/api/v1/logs/export?format=csv&columns=metadata.page,metadata.x", 200),
        ("/api/v1/logs?metadata.page=home&userId=u&limit=1&page=1&order=asc", 200),
        ("/metrics", 200),
        ("/", 200),
        ("/docs", 200),
        ("/docs/", 308),
        ("/assets/app.js", 200),
        ("/assets/docs.js", 200),
        ("/assets/app.css?v=0", 200),
        ("/assets/nothing.js", 404),
        ("/openapi.json", 200),
        ("/nothing", 404),
    ] {
        let received = openapi::send(client.get(url(&server, path))).await.unwrap();
        assert_eq!(received.status, status, "{path}");
        let received = openapi::send(client.head(url(&server, path))).await.unwrap();
        assert_eq!(received.status, status, "HEAD {path}");
        let received = openapi::send(client.patch(url(&server, path))).await.unwrap();
        assert_eq!(received.status, if path == "/nothing" { 404 } else { 405 }, "PATCH {path}");
    }
    let followed = reqwest::get(url(&server, "/docs/")).await.unwrap();
    assert_eq!((followed.status().as_u16(), followed.url().path()), (200, "/docs"));
    let etag = openapi::send(client.get(url(&server, "/openapi.json"))).await.unwrap();
    let known =
        client.get(url(&server, "/openapi.json")).header("if-none-match", &etag.headers["etag"]);
    assert_eq!(openapi::send(known).await.unwrap().status, 304);
}
