//! Response bodies of reads. They hold their share of the read budget until the
//! last byte is written out, or the client is gone.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::error::ApiError;
use crate::application::read_budget::ReadShare;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Size at which a piece of a list is handed to the connection.
const PIECE_BYTES: usize = 64 << 10;

/// The key and the value of the list in its envelope.
const EMPTY_LIST: &str = "\"data\":[]";

/// Bytes, and the share that they are part of.
struct Held {
    bytes: Vec<u8>,
    _share: Arc<ReadShare>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Returns the bytes. The share is released when they have been written out.
pub(super) fn hold(bytes: Vec<u8>, share: Arc<ReadShare>) -> Bytes {
    Bytes::from_owner(Held { bytes, _share: share })
}

/// Builds a response from one value. Its size must have been reserved.
pub(super) fn one(body: &impl Serialize, share: Arc<ReadShare>) -> Response {
    sized(body, 0, share)
}

/// Builds a response from one large value of about `size` bytes, which must have been
/// reserved. Takes no more memory than that.
pub(super) fn sized(body: &impl Serialize, size: usize, share: Arc<ReadShare>) -> Response {
    let mut bytes = Vec::with_capacity(size);
    match serde_json::to_writer(&mut bytes, body) {
        Ok(()) => respond(Body::from(hold(bytes, share))),
        Err(error) => ApiError::internal(error.to_string()).into_response(),
    }
}

/// Builds a response from an envelope whose `data` is an empty array, and the
/// items that belong there. Items are encoded piece by piece while the client
/// reads, so that a large page takes no second copy and never blocks the thread.
pub(super) fn list<T>(envelope: &impl Serialize, items: Vec<T>, share: Arc<ReadShare>) -> Response
where
    T: Serialize + Send + 'static,
{
    let envelope = match serde_json::to_string(envelope) {
        Ok(envelope) => envelope,
        Err(error) => return ApiError::internal(error.to_string()).into_response(),
    };
    let Some((head, tail)) = envelope.split_once(EMPTY_LIST) else {
        return ApiError::internal("the envelope has no empty list".to_owned()).into_response();
    };
    let head = format!("{head}\"data\":[");
    let mut pieces = Pieces {
        head: head.into_bytes(),
        items: items.into_iter(),
        is_first: true,
        tail: Some(format!("]{tail}")),
        share,
    };
    match pieces.next() {
        // The usual page is one piece, and so has a length.
        Some(Ok(piece)) if pieces.tail.is_none() => respond(Body::from(piece)),
        first => {
            respond(Body::from_stream(futures_util::stream::iter(first.into_iter().chain(pieces))))
        }
    }
}

fn respond(body: Body) -> Response {
    (StatusCode::OK, [(CONTENT_TYPE, JSON)], body).into_response()
}

/// The pieces of a list's body.
struct Pieces<T> {
    head: Vec<u8>,
    items: std::vec::IntoIter<T>,
    is_first: bool,
    /// `None` once it is part of a piece.
    tail: Option<String>,
    share: Arc<ReadShare>,
}

impl<T: Serialize> Iterator for Pieces<T> {
    type Item = serde_json::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut piece = std::mem::take(&mut self.head);
        while piece.len() < PIECE_BYTES {
            let Some(item) = self.items.next() else {
                piece.extend_from_slice(self.tail.take().unwrap_or_default().as_bytes());
                break;
            };
            if !std::mem::take(&mut self.is_first) {
                piece.push(b',');
            }
            if let Err(error) = serde_json::to_writer(&mut piece, &item) {
                return Some(Err(error));
            }
        }
        (!piece.is_empty()).then(|| Ok(hold(piece, Arc::clone(&self.share))))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{HttpBody as _, to_bytes};
    use eyego_log_core::{Action, LogEntry, LogId, Metadata, Timestamp, UserId};
    use serde_json::{Value, json};

    use super::*;
    use crate::application::read_budget::ReadBudget;
    use crate::domain::read::{PageItem as _, ReadMemory as _};

    #[test]
    fn the_size_of_an_event_is_exact() {
        for text in ["u", "\"\\/\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}\u{2028}ü😀"] {
            let entry = LogEntry::new(
                LogId::from_bytes([1; 12]),
                UserId::new(text).unwrap(),
                Action::new(text).unwrap(),
                Timestamp::from_millis(-62_167_219_200_000).unwrap(),
                Metadata::from_json(r#"{"a" : "ü"}"#.to_owned()).unwrap(),
            );
            assert_eq!(entry.json_bytes(), serde_json::to_vec(&entry).unwrap().len(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_list_of_any_size_is_one_json_document() {
        let budget = ReadBudget::new(64 << 20);
        for count in [0, 1, 3, 1000] {
            let items: Vec<Value> =
                (0..count).map(|n| json!({"n": n, "a": "\"data\":[]"})).collect();
            let items: Vec<Value> = match count {
                1000 => items.into_iter().map(|item| json!([item, "x".repeat(200)])).collect(),
                _ => items,
            };
            let envelope = json!({"before": 1, "data": [], "next": "n"});
            let response = list(&envelope, items.clone(), budget.start().unwrap());
            let has_length = response.body().size_hint().exact().is_some();
            assert_eq!(has_length, count < 1000);
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body, json!({"before": 1, "data": items, "next": "n"}));
        }
    }

    #[tokio::test]
    async fn the_share_is_held_until_the_last_piece_is_dropped() {
        let budget = ReadBudget::new(4 << 20);
        let share = budget.start().unwrap();
        share.reserve(2 << 20).unwrap();
        let items = vec!["x".repeat(50 << 10); 4];
        let response = list(&json!({"data": []}), items, share);
        let is_free = || budget.start().unwrap().reserve(2 << 20).is_ok();
        let mut stream = response.into_body().into_data_stream();
        let mut pieces = Vec::new();
        while let Some(piece) = futures_util::StreamExt::next(&mut stream).await {
            pieces.push(piece.unwrap());
        }
        drop(stream);
        assert!(pieces.len() > 1);
        assert!(!is_free());
        drop(pieces);
        assert!(is_free());
    }
}
