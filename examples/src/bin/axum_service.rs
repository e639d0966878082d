//! A web service that logs its requests by a layer, and what its users do by
//! hand. It serves a few requests of its own and ends.

#![expect(clippy::print_stdout, reason = "a program for people")]

use anyhow::{Result, ensure};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::get;
use eyego_log_client::tower::RequestLogLayer;
use eyego_log_client::{Client, Event};
use serde_json::json;
use tower::ServiceExt;

async fn buy(State(client): State<Client>, Path((user, item)): Path<(String, u32)>) -> String {
    // A log that finds no room is counted; it is no reason to refuse the sale.
    if let Err(error) = client.log(Event::new(user, "BUY").metadata(json!({"item": item}))) {
        tracing::warn!(%error, "a sale is not logged");
    }
    format!("item {item} is yours\n")
}

fn service(client: Client) -> Router {
    let requests = RequestLogLayer::new(
        client.clone(),
        // Logged are requests whose user is known.
        |request: &Request| {
            let user = request.headers().get("x-user")?.to_str().ok()?.to_owned();
            Some((user, request.uri().path().to_owned()))
        },
        |(user, path), response: Option<&Response>| {
            let status = response.map(|response| response.status().as_u16());
            Event::new(user, "REQUEST").metadata(json!({"path": path, "status": status}))
        },
    );
    Router::new().route("/{user}/buy/{item}", get(buy)).with_state(client).layer(requests)
}

#[tokio::main]
async fn main() -> Result<()> {
    let client = Client::from_env()?;
    let service = service(client.clone());
    // Where a real service listens, this one asks itself.
    for item in 0..3 {
        let request = Request::get(format!("/ada/buy/{item}")).header("x-user", "ada");
        let response = service.clone().oneshot(request.body(axum::body::Body::empty())?).await?;
        println!("{}", response.status());
    }
    let report = client.shutdown().await;
    ensure!(report.stats.delivered == 6, "{report:?}");
    Ok(())
}
