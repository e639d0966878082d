//! Streams the body of a response to the caller, without holding more than a few
//! pieces of it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Sender, at, catch_panic};
use crate::delivery::mailbox::{StreamPiece, StreamTarget};
use crate::transport::describe::{is_stream, rounded};
use crate::transport::{
    Request, Response, ResponseBody, ResponseLimit, TransportError, TransportResult,
};

/// How much of the body of an error response is read, in bytes.
const ERROR_BYTES: usize = 64 << 10;

/// How much is read of a successful response that is not the expected one.
const SHOWN_BYTES: usize = 1 << 10;

impl Sender {
    /// Sends a request, passes on the head of the response, and then the pieces
    /// of its body as the caller takes them. If the caller drops the channel, the
    /// response is dropped, which cancels the request.
    pub(super) async fn stream(
        &self,
        request: Request,
        response: oneshot::Sender<TransportResult>,
        target: StreamTarget,
    ) {
        let opened = until_closed(&target, catch_panic(self.open(request, &target))).await;
        let (head, body) = match opened {
            Some(Ok((head, body))) => (head, body),
            Some(Err(error)) => return drop(response.send(Err(error))),
            None => return,
        };
        if response.send(Ok(head)).is_err() {
            return;
        }
        let Some(mut body) = body else { return };
        loop {
            let next = catch_panic(async { body.next_piece().await });
            let next = timeout(target.idle_timeout, next);
            let Some(next) = until_closed(&target, next).await else { return };
            let piece = match next {
                Ok(Ok(Some(bytes))) => StreamPiece::Data(bytes),
                Ok(Ok(None)) => StreamPiece::End,
                Ok(Err(error)) => StreamPiece::Failed(error),
                Err(_) => StreamPiece::Failed(nothing_received(target.idle_timeout)),
            };
            let is_last = !matches!(piece, StreamPiece::Data(_));
            if target.pieces.send(piece).await.is_err() || is_last {
                return;
            }
        }
    }

    /// Returns the head of the expected response and its body, or the beginning of
    /// another response.
    async fn open(
        &self,
        mut request: Request,
        &StreamTarget { idle_timeout, media_type, .. }: &StreamTarget,
    ) -> Result<(Response, Option<Box<dyn ResponseBody>>), TransportError> {
        let attempt = self.endpoint.authorize(&mut request)?;
        let limit = request.extensions().get().map_or(ERROR_BYTES, |ResponseLimit(limit)| *limit);
        let opened = timeout(idle_timeout, async {
            let response = self.transport.send_streaming(request).await?;
            let (head, body) = response.into_parts();
            if is_stream(head.status, &head.headers, media_type) {
                return Ok((Response::from_parts(head, bytes::Bytes::new()), Some(body)));
            }
            // Of a successful response, only the beginning is shown.
            let limit = if head.status.is_success() { SHOWN_BYTES } else { limit };
            let body = read_beginning(body, limit).await?;
            Ok((Response::from_parts(head, body), None))
        });
        match opened.await {
            Ok(Ok((mut response, body))) => {
                response.extensions_mut().insert(attempt);
                Ok((response, body))
            }
            Ok(Err(error)) => {
                let error: TransportError = error;
                Err(at(&attempt, error))
            }
            Err(_) => Err(at(&attempt, nothing_received(idle_timeout))),
        }
    }
}

fn nothing_received(timeout: Duration) -> TransportError {
    let timeout = rounded(timeout);
    TransportError::new(format!("nothing was received for {timeout}"))
}

async fn read_beginning(
    mut body: Box<dyn ResponseBody>,
    limit: usize,
) -> Result<bytes::Bytes, TransportError> {
    let mut bytes = BytesMut::new();
    while bytes.len() < limit
        && let Some(piece) = body.next_piece().await?
    {
        bytes.extend_from_slice(&piece[..piece.len().min(limit - bytes.len())]);
    }
    Ok(bytes.freeze())
}

/// Returns `None` if the caller drops the channel before `future` is done.
async fn until_closed<T>(target: &StreamTarget, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut closed = pin!(target.pieces.closed());
    poll_fn(|context| match closed.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => future.as_mut().poll(context).map(Some),
    })
    .await
}
