//! A `tracing` layer that logs marked events (crate feature `tracing`).
//!
//! A `tracing` event is marked if it has the fields `userId` (or `user_id`) and
//! `action`. Its other fields and its message become the metadata. Options of the
//! layer add the fields of enclosing spans, the level, the target and the id of the
//! current trace. The layer ignores all other events, and all events on a client's own
//! threads, so the client never logs its own requests.
//!
//! An event that is not valid, for example because its user id is too long or because
//! it has both `userId` and `user_id`, is counted in
//! [`Stats::invalid`](crate::Stats::invalid) and reported to
//! [`on_problem`](crate::ClientBuilder::on_problem). Integers that do not fit into an
//! `i64` become strings, because the server does not accept them as numbers.
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

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::{Map, Value};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Event as TracingEvent, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::api::client::Client;
use crate::model::event::Event;
use crate::sync;

type TraceId = Arc<dyn Fn() -> Option<String> + Send + Sync>;

thread_local! {
    /// A function that returns a trace id is running on this thread.
    static READS_TRACE_ID: Cell<bool> = const { Cell::new(false) };
}

/// A layer that logs marked events; see the [module documentation](self).
#[derive(Clone)]
pub struct TracingLayer {
    client: Client,
    has_span_fields: bool,
    has_level: bool,
    has_target: bool,
    trace_id: Option<TraceId>,
}

impl TracingLayer {
    /// Creates a layer that logs through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let (has_span_fields, has_level, has_target) = (false, false, false);
        Self { client, has_span_fields, has_level, has_target, trace_id: None }
    }

    /// Sets whether the fields of the enclosing spans are added to the metadata.
    /// The event's own fields take precedence, then those of the innermost span.
    /// The user may then be a field of a span, too: that of the innermost span, unless
    /// the event has its own. Another user or another `action` of a span is added to
    /// the metadata under its own name. Defaults to false.
    ///
    /// ```
    /// use eyego_log_client::Client;
    /// use eyego_log_client::tracing::TracingLayer;
    /// use tracing_subscriber::prelude::*;
    ///
    /// # let client = Client::disabled();
    /// let layer = TracingLayer::new(client.clone()).with_span_fields(true);
    /// tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
    ///     let _span = tracing::info_span!("request", user_id = "user-123", path = "/cart").entered();
    ///     tracing::info!(action = "ADD_TO_CART", item = 7);
    /// });
    /// assert_eq!(client.stats().disabled, 1);
    /// ```
    #[must_use]
    pub fn with_span_fields(mut self, enabled: bool) -> Self {
        self.has_span_fields = enabled;
        self
    }

    /// Sets whether the level, such as `INFO`, is added to the metadata as `level`.
    /// Defaults to false.
    #[must_use]
    pub fn with_level(mut self, enabled: bool) -> Self {
        self.has_level = enabled;
        self
    }

    /// Sets whether the target, by default the module path, is added to the
    /// metadata as `target`. Defaults to false.
    #[must_use]
    pub fn with_target(mut self, enabled: bool) -> Self {
        self.has_target = enabled;
        self
    }

    /// Sets a function that returns the id of the current trace, which is added to
    /// the metadata as `traceId`. It runs on the thread that logs the event.
    /// Defaults to none.
    ///
    /// If the function panics, the event is logged without the id, and the panic is
    /// reported to [`on_problem`](crate::ClientBuilder::on_problem). Events that the
    /// function itself causes are logged without the id, because it would call itself.
    ///
    /// With OpenTelemetry, read the id from the current context. Check that the context
    /// is valid: without a trace, its id consists of 32 zeros.
    ///
    /// ```ignore
    /// let layer = TracingLayer::new(client).with_trace_id(|| {
    ///     let context = opentelemetry::Context::current();
    ///     let span = context.span().span_context().clone();
    ///     span.is_valid().then(|| span.trace_id().to_string())
    /// });
    /// ```
    ///
    /// ```
    /// use eyego_log_client::Client;
    /// use eyego_log_client::tracing::TracingLayer;
    ///
    /// # fn current_trace() -> Option<u128> { None }
    /// # let client = Client::disabled();
    /// let layer = TracingLayer::new(client)
    ///     .with_trace_id(|| current_trace().map(|id| format!("{id:032x}")));
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn with_trace_id(
        mut self,
        trace_id: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.trace_id = Some(Arc::new(trace_id));
        self
    }

    /// Adds what the options ask for. The event's own fields take precedence.
    fn enrich<S>(&self, event: &TracingEvent<'_>, context: &Context<'_, S>, fields: &mut Fields)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        if self.has_span_fields {
            for span in context.event_scope(event).into_iter().flatten() {
                if let Some(of_span) = span.extensions().get::<Fields>() {
                    fields.inherit(of_span);
                }
            }
        }
        let level = self.has_level.then(|| event.metadata().level().to_string());
        let target = self.has_target.then(|| event.metadata().target().to_owned());
        let trace_id = self.trace_id.as_ref().and_then(|trace_id| self.call(trace_id));
        for (name, value) in [("level", level), ("target", target), ("traceId", trace_id)] {
            if let Some(value) = value {
                fields.metadata.entry(name).or_insert(value.into());
            }
        }
    }

    /// Calls the program's function, unless the event comes from such a function.
    fn call(&self, trace_id: &TraceId) -> Option<String> {
        if READS_TRACE_ID.replace(true) {
            return None;
        }
        let result = catch_unwind(AssertUnwindSafe(|| trace_id()));
        READS_TRACE_ID.set(false);
        result.unwrap_or_else(|_| {
            self.client.report_panic("an event is logged without its trace id: ");
            None
        })
    }
}

impl fmt::Debug for TracingLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TracingLayer").field("client", &self.client).finish_non_exhaustive()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TracingLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if self.has_span_fields
            && let Some(span) = context.span(id)
        {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            // A second layer records the same fields.
            span.extensions_mut().replace(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if self.has_span_fields
            && let Some(span) = context.span(id)
        {
            // A value may itself log while it is formatted, which reads the span.
            let mut recorded = Fields::default();
            values.record(&mut recorded);
            if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
                fields.update(recorded);
            }
        }
    }

    fn on_event(&self, event: &TracingEvent<'_>, context: Context<'_, S>) {
        let fields = event.metadata().fields();
        let is_user = |field: &Field| matches!(field.name(), "userId" | "user_id");
        let may_have_user = self.has_span_fields || fields.iter().any(|field| is_user(&field));
        if fields.field("action").is_none() || !may_have_user || sync::is_own_thread() {
            return;
        }
        let mut found = Fields::default();
        event.record(&mut found);
        self.enrich(event, &context, &mut found);
        if let (Some((_, user_id)), Some(action)) = (found.user_id, found.action) {
            // A `tracing` call cannot fail, so errors are counted and reported.
            let mut event = Event::new(user_id, action).metadata(found.metadata);
            if found.has_two_users {
                event = event.invalid("userId", "must not be set together with user_id");
            }
            self.client.log_for_layer(&event, true);
        }
    }
}

/// The fields of a marked event, or of a span.
#[derive(Default)]
struct Fields {
    /// The name of the field and its value.
    user_id: Option<(&'static str, String)>,
    action: Option<String>,
    /// There are both `userId` and `user_id`. The second one is in the metadata.
    has_two_users: bool,
    metadata: Map<String, Value>,
}

impl Fields {
    /// Adds the fields of a span that are not known yet.
    fn inherit(&mut self, span: &Self) {
        match (&self.user_id, &span.user_id) {
            (None, user) => self.user_id.clone_from(user),
            (Some((_, own)), Some((name, user))) if own != user => {
                self.add(name, &user.as_str().into());
            }
            _ => {}
        }
        if let Some(action) =
            span.action.as_ref().filter(|action| self.action.as_ref() != Some(*action))
        {
            self.add("action", &action.as_str().into());
        }
        for (name, value) in &span.metadata {
            self.add(name, value);
        }
    }

    /// Adds a member to the metadata unless there is one with this name.
    fn add(&mut self, name: &str, value: &Value) {
        if !self.metadata.contains_key(name) {
            self.metadata.insert(name.to_owned(), value.clone());
        }
    }

    /// Replaces the fields that `newer` has.
    fn update(&mut self, newer: Self) {
        self.user_id = newer.user_id.or(self.user_id.take());
        self.action = newer.action.or(self.action.take());
        self.metadata.extend(newer.metadata);
    }

    fn take(&mut self, field: &Field, value: Value) {
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        match field.name() {
            name @ ("userId" | "user_id") => match &self.user_id {
                Some((other, _)) if *other != name => {
                    self.has_two_users = true;
                    self.metadata.insert(name.to_owned(), value);
                }
                _ => self.user_id = Some((name, text(value))),
            },
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
