//! The options that are functions of the program.

use std::sync::Arc;

use super::ClientBuilder;
use crate::model::delivered::Delivered;
use crate::model::draft::DraftEvent;
use crate::model::loss::Loss;

impl ClientBuilder {
    /// Sets a function that is called with each loss, after it was counted.
    /// Defaults to none.
    ///
    /// It runs on a thread of its own, soon after the loss, so it delays nobody
    /// and may use the client. Up to 8 MiB of lost events wait for it; further
    /// ones, and those that it loses itself, are counted in
    /// [`Stats::unreported`](crate::Stats::unreported). A shutdown waits for it
    /// until the timeout. Panics in it are caught.
    pub fn on_loss(mut self, hook: impl Fn(&Loss<'_>) + Send + Sync + 'static) -> Self {
        self.hooks.on_loss = Some(Arc::new(hook));
        self
    }

    /// Sets a function that is called with each batch of delivered events, after
    /// they were counted, so that a program learns of each delivery without
    /// awaiting [`send`](crate::Client::send). Defaults to none.
    ///
    /// Like [`on_loss`](Self::on_loss), it runs on a thread of its own, soon after
    /// the delivery. Up to 4 MiB of events wait for it; further ones are counted in
    /// [`Stats::unreported_deliveries`](crate::Stats::unreported_deliveries). It also
    /// receives the events that it logs itself, so it must not log one for each
    /// delivery: that would never end.
    ///
    /// ```
    /// use eyego_log_client::Client;
    ///
    /// let client = Client::builder("http://localhost:3000")
    ///     .on_delivery(|delivered| {
    ///         delivered.ids().for_each(|id| println!("{id} is durable"));
    ///     })
    ///     .build()?;
    /// # Ok::<(), eyego_log_client::ConfigError>(())
    /// ```
    pub fn on_delivery(mut self, hook: impl Fn(&Delivered<'_>) + Send + Sync + 'static) -> Self {
        self.hooks.on_delivery = Some(Arc::new(hook));
        self
    }

    /// Sets a function that is called with a description of each problem: the
    /// server refuses the API key, is unreachable or sends an unexpected
    /// response, the worker panicked, or events are lost. A problem is reported
    /// again only after it was resolved, and at most one report is made per
    /// second. The function runs on a thread of its own. Defaults to a `tracing`
    /// event of level `WARN`.
    pub fn on_problem(mut self, hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.hooks.on_problem = Some(Arc::new(hook));
        self
    }

    /// Sets a function that receives each valid event before it is buffered, with
    /// the metadata of the client and its scopes, and returns it, changed or not,
    /// or `None` to drop it. Defaults to none. [`DraftEvent`] has an example.
    ///
    /// It runs on the thread that logs the event, which it delays; an event is
    /// decoded and encoded again for it. This can change how numbers are written: `1e2`
    /// becomes `100.0`. A dropped event is counted in
    /// [`Stats::filtered`](crate::Stats::filtered), and `log` returns its id. A
    /// changed event is validated again. If the function panics, the event is
    /// dropped, and the problem is reported. It may log events itself. It is not
    /// called for those; the function of another client is called for what it logs
    /// to that client.
    pub fn before_send(
        mut self,
        hook: impl Fn(DraftEvent) -> Option<DraftEvent> + Send + Sync + 'static,
    ) -> Self {
        self.before_send = Some(Arc::new(hook));
        self
    }
}
