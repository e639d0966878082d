//! A server on the embedded queue and store, and how to talk to it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use stack::server::Server;

use super::JSON;

/// A server and how to talk to it.
pub(super) struct Api {
    pub(super) server: Server,
    pub(super) client: Client,
}

impl Api {
    pub(super) async fn start() -> Result<Self> {
        Self::with(&[]).await
    }

    pub(super) async fn with(env: &[(&str, &str)]) -> Result<Self> {
        let builder =
            env.iter().fold(Server::builder(), |builder, (name, value)| builder.env(name, value));
        let server = builder.start().await?;
        server.wait_ready(Duration::from_secs(10)).await?;
        // A test may compute for longer than the server keeps an idle connection.
        let client = Client::builder().pool_max_idle_per_host(0).build()?;
        Ok(Self { server, client })
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.base_url())
    }

    pub(super) async fn get(&self, path: &str) -> Result<(StatusCode, Value)> {
        let answer = self.client.get(self.url(path)).send().await?;
        Ok((answer.status(), answer.json().await?))
    }

    pub(super) async fn post(
        &self,
        path: &str,
        media: &str,
        body: impl Into<Vec<u8>>,
    ) -> Result<(StatusCode, Value)> {
        self.post_with(path, &[("content-type", media)], body).await
    }

    pub(super) async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<(StatusCode, Value)> {
        let mut request = self.client.post(self.url(path)).body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await?;
        Ok((answer.status(), answer.json().await?))
    }

    pub(super) async fn log(&self, body: Value) -> Result<(StatusCode, Value)> {
        self.post("/api/v1/logs", JSON, body.to_string()).await
    }

    /// Waits until a log can be read; answers it.
    pub(super) async fn stored(&self, id: &str) -> Result<Value> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let (status, body) = self.get(&format!("/api/v1/logs/{id}")).await?;
            if status == StatusCode::OK {
                return Ok(body["data"].clone());
            }
            ensure!(Instant::now() < deadline, "{id} is not stored: {body}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
