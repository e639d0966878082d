//! Responses outside of hyper: to a head that it cannot parse or that is too slow,
//! and to a connection that is refused.

use std::time::Duration;

use eyego_log_core::FieldErrors;
use eyego_log_core::wire::{ErrorResponse, Status};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Time for writing a notice and for reading what the client still sends. If a
/// socket is closed with unread data, the client may not see the response.
const LINGER: Duration = Duration::from_secs(2);

/// A response with the envelope, after which the connection is closed.
#[derive(Debug)]
pub(super) struct Notice {
    status: StatusCode,
    message: String,
}

impl Notice {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Self { status, message } = self;
        let is_unavailable = *status == StatusCode::SERVICE_UNAVAILABLE;
        let envelope = ErrorResponse {
            status: if status.is_server_error() { Status::Error } else { Status::Fail },
            message: message.clone(),
            errors: FieldErrors::new(),
        };
        let body = serde_json::to_string(&envelope).unwrap_or_default();
        let retry = if is_unavailable { "retry-after: 1\r\n" } else { "" };
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{retry}\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    /// Sends the response, then reads and drops what the client still sends. Takes
    /// up to two seconds.
    pub(super) async fn send<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: S) {
        let bytes = self.to_bytes();
        let send = async {
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
            let mut rest = [0; 4096];
            while stream.read(&mut rest).await? > 0 {}
            std::io::Result::Ok(())
        };
        // Fails if the client is gone.
        let _ = tokio::time::timeout(LINGER, send).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn notice_is_a_response_with_the_envelope() {
        let notice = Notice::new(StatusCode::SERVICE_UNAVAILABLE, "too many \"x\"");
        let text = String::from_utf8(notice.to_bytes()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert!(head.contains("retry-after: 1\r\n"), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&body["status"], &body["message"]),
            (&"error".into(), &"too many \"x\"".into())
        );
    }
}
