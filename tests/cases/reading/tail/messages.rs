//! Reads server-sent events.

use std::time::Duration;

use serde_json::Value;
use stack::openapi::{self, Received, Sent};
use stack::server::Server;
use tokio::time::timeout;

use super::TAIL;
use crate::fixture::{TIMEOUT, url};

/// A message with data.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) event: String,
    /// The id that the client would resume from.
    pub(super) id: String,
    pub(super) data: String,
}

impl Message {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// What a block of lines was.
enum Block {
    Message(Message),
    /// Only an id, or a comment with one.
    Position,
    Comment,
}

/// A tail.
pub(super) struct Messages {
    response: reqwest::Response,
    received: Vec<u8>,
    last_id: String,
}

impl Messages {
    pub(super) async fn open(server: &Server, query: &str) -> Self {
        Self::request(reqwest::Client::new().get(url(server, &format!("{TAIL}?{query}")))).await
    }

    pub(super) async fn resume(server: &Server, query: &str, id: &str) -> Self {
        let request = reqwest::Client::new().get(url(server, &format!("{TAIL}?{query}")));
        Self::request(request.header("last-event-id", id)).await
    }

    pub(super) async fn request(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        if response.status() != 200 {
            panic!("{}: {}", response.status(), response.text().await.unwrap());
        }
        Self::of(response)
    }

    /// The head of the response must conform to the OpenAPI document, and each message later.
    pub(super) fn of(response: reqwest::Response) -> Self {
        let query = response.url().query().unwrap_or_default();
        let sent =
            Sent { method: "GET", target: &format!("{TAIL}?{query}"), media_type: None, body: b"" };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        openapi::check(sent, &Received { status, headers, body: Vec::new() }).unwrap();
        Self { response, received: Vec::new(), last_id: String::new() }
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.response.headers()[name].to_str().unwrap()
    }

    /// Returns the next block, or `None` if the response has ended or broke.
    async fn block(&mut self) -> Option<Block> {
        let end = loop {
            match self.received.windows(2).position(|end| end == b"\n\n") {
                Some(end) => break end,
                None => match self.response.chunk().await {
                    Ok(Some(chunk)) => self.received.extend_from_slice(&chunk),
                    Ok(None) | Err(_) => return None,
                },
            }
        };
        let block: Vec<u8> = self.received.drain(..end + 2).collect();
        let block = String::from_utf8(block).unwrap();
        openapi::check_messages(&block).unwrap();
        let mut message = Message { event: String::new(), id: String::new(), data: String::new() };
        let mut has_id = false;
        for line in block.trim_end().lines() {
            match line.split_once(": ").unwrap_or_else(|| panic!("{line}")) {
                ("event", value) => message.event = value.to_owned(),
                ("data", value) => message.data = value.to_owned(),
                ("id", value) => {
                    has_id = true;
                    self.last_id = value.to_owned();
                }
                ("", _) => {}
                _ => panic!("unexpected: {line}"),
            }
        }
        message.id.clone_from(&self.last_id);
        Some(if !message.data.is_empty() {
            Block::Message(message)
        } else if has_id {
            Block::Position
        } else {
            Block::Comment
        })
    }

    /// Returns the next message, or `None` if the response has ended or broke.
    pub(super) async fn try_next(&mut self) -> Option<Message> {
        loop {
            if let Block::Message(message) = self.block().await? {
                return Some(message);
            }
        }
    }

    pub(super) async fn next(&mut self) -> Message {
        timeout(TIMEOUT, self.try_next()).await.expect("no message").expect("the tail ended")
    }

    /// Returns the next message, which must be an event.
    pub(super) async fn next_event(&mut self) -> Message {
        let message = self.next().await;
        assert_eq!(message.event, "log", "{message:?}");
        message
    }

    /// Returns the id of the next block, which must have no data.
    pub(super) async fn position(&mut self) -> String {
        self.position_within(TIMEOUT).await
    }

    pub(super) async fn position_within(&mut self, time: Duration) -> String {
        let position = async {
            loop {
                match self.block().await.expect("the tail ended") {
                    Block::Position => return,
                    Block::Comment => {}
                    Block::Message(message) => panic!("unexpected: {message:?}"),
                }
            }
        };
        timeout(time, position).await.expect("no position");
        self.last_id.clone()
    }

    pub(super) async fn comment(&mut self, time: Duration) {
        let block = timeout(time, self.block()).await.expect("no comment");
        assert!(!matches!(block.expect("the tail ended"), Block::Message(_)));
    }

    pub(super) async fn expect_end(&mut self) {
        assert!(timeout(TIMEOUT, self.try_next()).await.expect("no end").is_none());
    }

    /// Returns the id to resume from.
    pub(super) fn last_id(&self) -> &str {
        &self.last_id
    }
}
