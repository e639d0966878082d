//! A web service that logs requests with a layer and user actions directly. It
//! sends itself a few requests and exits.

#![expect(clippy::print_stdout, reason = "prints for its user")]

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
    // A lost event is counted and must not prevent the sale.
    if let Err(error) = client.log(Event::new(user, "BUY").metadata(json!({"item": item}))) {
        tracing::warn!(%error, "cannot log a sale");
    }
    format!("you bought item {item}\n")
}

fn service(client: Client) -> Router {
    let log_requests = RequestLogLayer::new(
        client.clone(),
        // Only requests with a known user are logged.
        |request: &Request| {
            let user = request.headers().get("x-user")?.to_str().ok()?.to_owned();
            Some((user, request.uri().path().to_owned()))
        },
        |(user, path), response: Option<&Response>| {
            let status = response.map(|response| response.status().as_u16());
            Event::new(user, "REQUEST").metadata(json!({"path": path, "status": status}))
        },
    );
    Router::new().route("/{user}/buy/{item}", get(buy)).with_state(client).layer(log_requests)
}

#[tokio::main]
async fn main() -> Result<()> {
    let client = Client::from_env()?;
    let service = service(client.clone());
    // A real service would listen on a port instead.
    for item in 0..3 {
        let request = Request::get(format!("/ada/buy/{item}")).header("x-user", "ada");
        let response = service.clone().oneshot(request.body(axum::body::Body::empty())?).await?;
        println!("{}", response.status());
    }
    let report = client.shutdown().await;
    ensure!(report.stats.delivered == 6, "{report:?}");
    Ok(())
}
