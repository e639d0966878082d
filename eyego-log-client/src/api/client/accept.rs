//! Hands events over to the client: each is filtered, encoded and buffered.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use eyego_log_core::{LogId, Timestamp};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::api::client::delivery::Delivery;
use crate::api::client::inner::Inner;
use crate::api::client::{Client, deadline_after};
use crate::model::errors::LogError;
use crate::model::event::Event;
use crate::pipeline::encode;
use crate::pipeline::event_queue::EventQueue;
use crate::pipeline::filter::{Filter, Review};
use crate::pipeline::problems::ProblemKind;

impl Client {
    /// Logs an event and returns immediately. The event's id and timestamp are
    /// fixed, it is encoded and buffered, and then delivered in the background.
    ///
    /// This performs no I/O, does not allocate once the buffer is warm, and
    /// blocks only with [`Overflow::Block`](crate::Overflow::Block). It never
    /// panics unless the metadata's `Serialize` implementation does.
    ///
    /// An event that the program itself excludes, by
    /// [`before_send`](crate::ClientBuilder::before_send),
    /// [`sample_rate`](crate::ClientBuilder::sample_rate) or because the client is
    /// [disabled](Self::disabled), gets an id as well, but is not delivered.
    ///
    /// # Errors
    /// Returns [`LogError::Invalid`] or [`LogError::TooLarge`] if the event is
    /// not valid. Returns [`LogError::Full`] or [`LogError::Closed`], and counts
    /// the event as lost, if the buffer is full or the client is shut down.
    ///
    /// ```
    /// use eyego_log_client::{Client, Event};
    ///
    /// # let client = Client::builder("http://localhost:9").build()?;
    /// let error = client.log(Event::new("", "LOGIN")).unwrap_err();
    /// assert_eq!(error.to_string(), "userId must be a non-empty string");
    /// # Ok::<(), eyego_log_client::ConfigError>(())
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "callers hand the event over")]
    pub fn log<M: Serialize>(&self, event: Event<'_, M>) -> Result<LogId, LogError> {
        self.accept(&event, |queue, line| queue.enqueue(line, None))
    }

    /// Logs an event like [`log`](Self::log) does, unless the buffer is full or the
    /// client is shut down. The caller then keeps the event, and nothing is
    /// counted as lost. This never blocks. With
    /// [`Overflow::DropOldest`](crate::Overflow::DropOldest) the buffer is never full
    /// for a new event: older events are lost instead, and are counted.
    ///
    /// # Errors
    /// Returns a [`LogError`] if the event is not accepted. After
    /// [`LogError::Full`] the same event can be tried again.
    ///
    /// ```
    /// use eyego_log_client::{Client, Event, LogError};
    ///
    /// # fn write_to_a_file(event: &Event<'_>) {}
    /// # let client = Client::builder("http://localhost:9").build()?;
    /// let event = Event::new("user-123", "LOGIN");
    /// if let Err(LogError::Full) = client.try_log(&event) {
    ///     write_to_a_file(&event);
    /// }
    /// # Ok::<(), eyego_log_client::ConfigError>(())
    /// ```
    pub fn try_log<M: Serialize>(&self, event: &Event<'_, M>) -> Result<LogId, LogError> {
        self.accept(event, EventQueue::try_enqueue)
    }

    /// Logs several events as [`log`](Self::log) does. Returns the results in the
    /// order of the events.
    ///
    /// ```
    /// use eyego_log_client::{Client, Event};
    ///
    /// # let client = Client::builder("http://localhost:9").build()?;
    /// let results = client.log_many(["ada", "bob", ""].map(|user| Event::new(user, "LOGIN")));
    /// assert!(results[0].is_ok() && results[1].is_ok() && results[2].is_err());
    /// # Ok::<(), eyego_log_client::ConfigError>(())
    /// ```
    pub fn log_many<'a, M: Serialize>(
        &self,
        events: impl IntoIterator<Item = Event<'a, M>>,
    ) -> Vec<Result<LogId, LogError>> {
        events.into_iter().map(|event| self.log(event)).collect()
    }

    /// Logs an event. If the buffer is full, waits for room without blocking the
    /// thread, at most for the
    /// [`shutdown_timeout`](crate::ClientBuilder::shutdown_timeout).
    ///
    /// The event is encoded, and buffered if there is room, by the call itself. If
    /// the future is dropped while it waits, the event is counted as lost. With
    /// [`Overflow::DropOldest`](crate::Overflow::DropOldest) this never waits: older
    /// events are lost instead.
    ///
    /// # Errors
    /// The future returns the errors of [`log`](Self::log), and [`LogError::Full`]
    /// only after the timeout.
    ///
    /// ```no_run
    /// # use eyego_log_client::{Client, Event};
    /// # async fn run(client: Client) -> Result<(), eyego_log_client::LogError> {
    /// for n in 0..10_000_000 {
    ///     client.log_async(Event::new("user-123", "IMPORT").field("n", n)).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn log_async<M: Serialize>(
        &self,
        event: Event<'_, M>,
    ) -> impl Future<Output = Result<LogId, LogError>> + Send + use<M> {
        self.log_async_within(event, self.inner.shutdown_timeout)
    }

    /// Like [`log_async`](Self::log_async), but waits at most for `timeout`.
    ///
    /// # Errors
    /// The future returns the errors of [`log_async`](Self::log_async).
    #[expect(clippy::needless_pass_by_value, reason = "callers hand the event over")]
    pub fn log_async_within<M: Serialize>(
        &self,
        event: Event<'_, M>,
        timeout: Duration,
    ) -> impl Future<Output = Result<LogId, LogError>> + Send + use<M> {
        let mut waiting = None;
        let result = self.accept(&event, |queue, line| {
            if let Some(room) = queue.enqueue_or_wait(line)? {
                let inner = Arc::clone(&self.inner);
                waiting = Some((Unbuffered { inner, line: line.to_vec() }, room));
            }
            Ok(())
        });
        let deadline = deadline_after(timeout);
        async move {
            match (result, waiting) {
                (Ok(id), Some((unbuffered, room))) => {
                    unbuffered.buffer(room, deadline).await.map(|()| id)
                }
                (result, _) => result,
            }
        }
    }

    /// Logs an event like [`log`](Self::log) does, and returns a future that
    /// resolves once the event is delivered or lost.
    ///
    /// The event is buffered by the call itself; dropping the future does not
    /// cancel it. The event does not linger for others to share its request, so
    /// for many events [`log`](Self::log) and one [`flush`](Self::flush) cost
    /// less. For an event that the program itself excludes, the future resolves
    /// immediately.
    ///
    /// ```no_run
    /// # use eyego_log_client::{Client, Event};
    /// # async fn run(client: Client) -> Result<(), eyego_log_client::SendError> {
    /// let id = client.send(Event::new("user-123", "PAID")).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "callers hand the event over")]
    pub fn send<M: Serialize>(&self, event: Event<'_, M>) -> Delivery {
        let mut acknowledgement = None;
        let result = self.accept(&event, |queue, line| {
            let (ack, receiver) = oneshot::channel();
            queue.enqueue(line, Some(ack))?;
            acknowledgement = Some(receiver);
            Ok(())
        });
        Delivery::new(self, result, acknowledgement)
    }

    /// Filters and encodes an event, and passes its line to `enqueue`.
    #[inline]
    pub(in crate::api) fn accept<M: Serialize>(
        &self,
        event: &Event<'_, M>,
        enqueue: impl FnOnce(&EventQueue, &[u8]) -> Result<(), LogError>,
    ) -> Result<LogId, LogError> {
        let Inner { queue, process, ids, max_event_bytes, filter, starter, .. } = &*self.inner;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let since_epoch = since_epoch.unwrap_or_default();
        if process.is_forked_at(since_epoch) {
            process.lose_event();
            return Err(LogError::Forked);
        }
        let millis = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
        let now = Timestamp::from_millis_clamped(millis);
        let id = event.id.unwrap_or_else(|| ids.generate(now));
        if let Some(filter) = filter
            && !filter.is_sampled(&event.user_id)
        {
            queue.update_stats(|stats| stats.sampled_out += 1);
            return Ok(id);
        }
        let context = self.context.as_deref();
        let result =
            encode::with_line(event, context, id, now, *max_event_bytes, |line| match filter {
                None => enqueue(queue, line),
                Some(filter) => self.inner.filter(filter, line, now, enqueue),
            });
        if let Some(starter) = starter {
            starter.start();
        }
        if matches!(result, Err(LogError::Invalid(_) | LogError::TooLarge { .. })) {
            queue.update_stats(|stats| stats.invalid += 1);
        }
        result.map(|()| id)
    }

    /// Logs an event for a layer, which cannot return an error to its caller. An
    /// invalid event is therefore reported as a problem. `may_block` allows it to
    /// wait for room if the overflow policy does.
    #[cfg_attr(
        not(any(feature = "tracing", feature = "tower")),
        expect(dead_code, reason = "only the layers call it")
    )]
    pub(crate) fn log_for_layer<M: Serialize>(&self, event: &Event<'_, M>, may_block: bool) {
        let enqueue = |queue: &EventQueue, line: &[u8]| match may_block {
            true => queue.enqueue(line, None),
            false => queue.enqueue_now(line),
        };
        if let Err(error @ (LogError::Invalid(_) | LogError::TooLarge { .. })) =
            self.accept(event, enqueue)
        {
            let introduction = format!(
                "a layer logs an invalid event of user \"{:.100}\" with action \"{:.100}\": ",
                event.user_id, event.action
            );
            self.inner.reporter.note(ProblemKind::Invalid, &introduction, &error.to_string());
        }
    }

    /// Counts and reports an event that a layer's closure did not create, because
    /// it panicked.
    #[cfg(feature = "tower")]
    pub(crate) fn note_panic_in_layer(&self) {
        self.inner.queue.update_stats(|stats| stats.invalid += 1);
        self.report_panic("a request is not logged: ");
    }

    /// Reports that a closure of a layer panicked. `introduction` says what follows from
    /// that.
    #[cfg(any(feature = "tower", feature = "tracing"))]
    pub(crate) fn report_panic(&self, introduction: &'static str) {
        self.inner.reporter.note(ProblemKind::Invalid, introduction, "a closure panicked");
    }
}

impl Inner {
    /// Passes on what the filter leaves of an event.
    fn filter(
        &self,
        filter: &Filter,
        line: &[u8],
        now: Timestamp,
        enqueue: impl FnOnce(&EventQueue, &[u8]) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let Self { queue, max_event_bytes, reporter, .. } = self;
        if filter.is_disabled {
            queue.update_stats(|stats| stats.disabled += 1);
            return Ok(());
        }
        match filter.review(line) {
            Review::Keep => enqueue(queue, line),
            Review::Replace(draft) => {
                let (event, max_bytes) = (draft.to_event(), *max_event_bytes);
                let id = draft.id();
                encode::with_line(&event, None, id, now, max_bytes, |line| enqueue(queue, line))
            }
            Review::Drop => {
                queue.update_stats(|stats| stats.filtered += 1);
                Ok(())
            }
            Review::Failed(message) => {
                queue.update_stats(|stats| stats.filtered += 1);
                reporter.note(ProblemKind::Invalid, "an event is dropped: ", message);
                Ok(())
            }
        }
    }
}

/// An encoded event that waits for room. Dropping it counts the event as lost.
struct Unbuffered {
    inner: Arc<Inner>,
    /// Empty once the event is buffered or counted.
    line: Vec<u8>,
}

impl Unbuffered {
    async fn buffer(
        mut self,
        mut room: oneshot::Receiver<()>,
        deadline: Instant,
    ) -> Result<(), LogError> {
        let inner = Arc::clone(&self.inner);
        loop {
            if inner.timer.within(deadline, room).await.is_none() {
                return Err(LogError::Full);
            }
            let result = inner.queue.enqueue_or_wait(&self.line);
            match result {
                Ok(Some(next)) => room = next,
                Ok(None) | Err(_) => {
                    self.line.clear();
                    return result.map(drop);
                }
            }
        }
    }
}

impl Drop for Unbuffered {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.inner.queue.give_up(&self.line);
        }
    }
}
