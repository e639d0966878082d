//! A `tracing` layer that logs marked events (crate feature `tracing`).
//!
//! A `tracing` event is marked if it has the fields `userId` (or `user_id`) and
//! `action`. Its other fields and its message become the metadata. The layer
//! ignores all other events, and all events on a client's own threads, so the
//! client never logs its own requests.
//!
//! An event that is not valid, for example because its user id is too long, is
//! counted in [`Stats::invalid`](crate::Stats::invalid) and reported to
//! [`on_problem`](crate::ClientBuilder::on_problem).
//!
//! ```
//! use eyego_log_client::Client;
//! use eyego_log_client::tracing::TracingLayer;
//! use tracing_subscriber::prelude::*;
//!
//! # let client = Client::builder("http://localhost:9").build().unwrap();
//! let subscriber = tracing_subscriber::registry().with(TracingLayer::new(client));
//! tracing::subscriber::with_default(subscriber, || {
//!     tracing::info!(userId = "user-123", action = "CLICK_BUTTON", page = "home", "clicked");
//!     tracing::info!("ignored, because it has no user and action");
//! });
//! ```

use std::fmt;

use serde_json::{Map, Value};
use tracing_core::field::{Field, Visit};
use tracing_core::{Event as TracingEvent, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::api::client::Client;
use crate::model::event::Event;
use crate::sync;

/// A layer that logs marked events; see the [module documentation](self).
#[derive(Debug, Clone)]
pub struct TracingLayer {
    client: Client,
}

impl TracingLayer {
    /// Creates a layer that logs through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl<S: Subscriber> Layer<S> for TracingLayer {
    fn on_event(&self, event: &TracingEvent<'_>, _: Context<'_, S>) {
        let fields = event.metadata().fields();
        let is_user = |field: &Field| matches!(field.name(), "userId" | "user_id");
        let is_marked = fields.field("action").is_some() && fields.iter().any(|f| is_user(&f));
        if !is_marked || sync::is_own_thread() {
            return;
        }
        let mut found = Fields::default();
        event.record(&mut found);
        if let (Some(user_id), Some(action)) = (found.user_id, found.action) {
            // A `tracing` call cannot fail, so errors are counted and reported.
            self.client.log_for_layer(&Event::new(user_id, action).metadata(found.metadata));
        }
    }
}

/// The fields of a marked event.
#[derive(Default)]
struct Fields {
    user_id: Option<String>,
    action: Option<String>,
    metadata: Map<String, Value>,
}

impl Fields {
    fn take(&mut self, field: &Field, value: Value) {
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        match field.name() {
            "userId" | "user_id" => self.user_id = Some(text(value)),
            "action" => self.action = Some(text(value)),
            name => drop(self.metadata.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        // The server rejects integers above `i64::MAX`.
        let number = i64::try_from(value).map(Value::from);
        self.take(field, number.unwrap_or_else(|_| value.to_string().into()));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.take(field, value.to_string().into());
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.take(field, value.to_string().into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}").into());
    }
}
