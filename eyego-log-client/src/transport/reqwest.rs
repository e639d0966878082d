//! A transport that uses the program's own `reqwest::Client`.

use crate::transport::http::{append, from_head};
use crate::transport::{BoxFuture, Method, Request, Response, Transport, TransportError};

#[derive(Debug)]
pub(crate) struct ReqwestTransport(pub(crate) reqwest::Client);

impl Transport for ReqwestTransport {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(async move {
            let mut builder = match request.method {
                Method::Get => self.0.get(&request.url),
                Method::Post => self.0.post(&request.url).body(request.body),
            };
            for (name, value) in request.headers {
                builder = builder.header(name, value);
            }
            let mut received = builder.send().await.map_err(failed)?;
            let mut response = from_head(received.status(), received.headers());
            while let Some(chunk) = received.chunk().await.map_err(failed)? {
                append(&mut response, &chunk)?;
            }
            Ok(response)
        })
    }
}

fn failed(error: reqwest::Error) -> TransportError {
    // The URL is known and may be long.
    let error = error.without_url();
    TransportError::new(error.to_string()).with_source(error)
}
