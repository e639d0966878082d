//! The thread that turns what the state machines want into I/O: it feeds them
//! the time, the batches and the answers, and sends what they say.
//!
//! It has a runtime of its own, so that it works whatever runtime the program
//! has, or none.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime;

use crate::compress::Compressor;
use crate::dispatch::{Dispatcher, Sending, Ticket};
use crate::feed::Feed;
use crate::loss::LossReason;
use crate::problem::Problems;
use crate::shared::{Answer, Inbox, Job, Phase, Shared};
use crate::transport::{Method, Request, TransportError};
use crate::verdict::{self, Verdict};

/// A worker that panics this often without a delivery in between is given up.
const MAX_PANICS: u32 = 10;

/// The pause before a worker that panicked begins again.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

thread_local! {
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is the thread of a client: what is traced there is the
/// client's own doing.
#[cfg(feature = "tracing")]
pub(crate) fn is_current_thread() -> bool {
    IS_WORKER.try_with(Cell::get).unwrap_or(true)
}

/// Starts the worker.
pub(crate) fn spawn(shared: Arc<Shared>, feed: Feed) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("eyego-log".to_owned());
    thread.spawn(move || supervise(&shared, feed)).map(drop)
}

/// Runs the worker, again after a panic, until the client is closed.
fn supervise(shared: &Arc<Shared>, mut feed: Feed) {
    IS_WORKER.set(true);
    let config = &shared.config;
    let seed = RandomState::new().hash_one(std::process::id());
    let mut dispatcher =
        Dispatcher::new(config.retry, config.max_in_flight, config.compression, seed);
    let mut panics = 0;
    let mut delivered = 0;
    let (reason, message) = loop {
        let error = match run_once(shared, &mut feed, &mut dispatcher) {
            Ok(()) => break (LossReason::Shutdown, "the client was shut down".to_owned()),
            Err(error) => error,
        };
        dispatcher.abandon_in_flight();
        let mut state = shared.state();
        panics = if state.ledger.stats.delivered > delivered { 1 } else { panics + 1 };
        delivered = state.ledger.stats.delivered;
        state.ledger.stats.worker_restarts += 1;
        state.ledger.stats.last_problem = Some(error.clone());
        if panics > MAX_PANICS {
            break (LossReason::Worker, format!("the worker is given up: {error}"));
        }
        state.problems.say(format!("the worker is restarted: {error}"));
        drop(state);
        std::thread::sleep(RESTART_PAUSE);
    };
    feed.end(shared, reason, dispatcher.drain(), &message);
    say_unsaid(shared);
}

/// Runs the worker until the client is closed.
///
/// # Errors
/// It panicked, or there is no runtime for it.
fn run_once(
    shared: &Arc<Shared>,
    feed: &mut Feed,
    dispatcher: &mut Dispatcher,
) -> Result<(), String> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("it gets no runtime: {error}"))?;
    // The state machines are used on: each call leaves them consistent.
    let run = AssertUnwindSafe(|| runtime.block_on(run(shared, feed, dispatcher)));
    let result = catch_unwind(run);
    // A name lookup may still hang in a thread of its own.
    runtime.shutdown_background();
    result.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        format!("it panicked: {}", text.unwrap_or_else(|| "without a word".to_owned()))
    })
}

async fn run(shared: &Arc<Shared>, feed: &mut Feed, dispatcher: &mut Dispatcher) {
    let mut compressor = Compressor::default();
    loop {
        let Inbox { answers, jobs } = shared.empty_inbox();
        for (ticket, answer) in answers {
            take_answer(shared, feed, dispatcher, ticket, &answer);
        }
        for job in jobs {
            tokio::spawn(read(Arc::clone(shared), job));
        }
        let now = Instant::now();
        #[cfg(test)]
        tests::panic_if_asked(shared);
        feed.fill(shared, now);
        send_all(shared, feed, dispatcher, &mut compressor, now);
        say_unsaid(shared);
        let Some(wake_at) = next_wake(shared, feed, dispatcher, now) else { return };
        let news = shared.news.notified();
        match wake_at {
            Wake::At(at) => drop(tokio::time::timeout_at(at.into(), news).await),
            Wake::OnNews => news.await,
        }
    }
}

fn take_answer(
    shared: &Arc<Shared>,
    feed: &mut Feed,
    dispatcher: &mut Dispatcher,
    ticket: Ticket,
    answer: &Answer,
) {
    let Some(events) = dispatcher.events_of(ticket) else { return };
    let verdict = verdict::read(answer, events, SystemTime::now().into());
    {
        let mut state = shared.state();
        let stats = &mut state.ledger.stats;
        match &verdict {
            Verdict::Delivered => state.problems.resolve(),
            Verdict::Retry { message, .. } | Verdict::Nonsense(message) => {
                stats.failed_requests += 1;
                stats.nonsense_answers += u64::from(matches!(verdict, Verdict::Nonsense(_)));
                stats.last_problem = Some(message.clone());
                state.problems.failing(message);
            }
            Verdict::PerItem { .. }
            | Verdict::Halve(..)
            | Verdict::Unencoded(_)
            | Verdict::Lost(..) => {}
        }
    }
    for settled in dispatcher.answer(ticket, verdict, Instant::now()) {
        feed.settle(shared, settled);
    }
}

/// Sends whatever may be sent now.
fn send_all(
    shared: &Arc<Shared>,
    feed: &mut Feed,
    dispatcher: &mut Dispatcher,
    compressor: &mut Compressor,
    now: Instant,
) {
    loop {
        if dispatcher.wants_batch(now)
            && let Some(batch) = feed.next(shared, now)
        {
            dispatcher.offer(batch);
        }
        let Some(sending) = dispatcher.poll(now) else { return };
        let ticket = sending.ticket;
        let request = batch_request(shared, &sending, compressor);
        shared.state().ledger.stats.requests += 1;
        tokio::spawn(post(Arc::clone(shared), ticket, request));
    }
}

fn batch_request(shared: &Shared, sending: &Sending<'_>, compressor: &mut Compressor) -> Request {
    let url = format!("{}/logs/batch", shared.config.base_url);
    let mut request = authorized(shared, Request::new(Method::Post, url));
    request.headers.push(("content-type", "application/x-ndjson".to_owned()));
    let bytes = sending.batch.bytes();
    let compressed = sending.is_compressed.then(|| compressor.compress(bytes)).flatten();
    match compressed {
        Some(compressed) => {
            request.headers.push(("content-encoding", "zstd".to_owned()));
            request.body = compressed;
        }
        None => request.body = bytes.to_vec(),
    }
    request
}

/// The request with the API key, if there is one.
pub(crate) fn authorized(shared: &Shared, mut request: Request) -> Request {
    if let Some(authorization) = &shared.config.authorization {
        request.headers.push(("authorization", authorization.clone()));
    }
    request
}

async fn post(shared: Arc<Shared>, ticket: Ticket, request: Request) {
    /// Answers even where the transport panics: an event that nobody answers
    /// for would be pending for ever.
    struct Guard {
        shared: Arc<Shared>,
        ticket: Ticket,
        answer: Option<Answer>,
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            let panicked = || Err(TransportError::new("the transport panicked"));
            let answer = self.answer.take().unwrap_or_else(panicked);
            self.shared.deliver_answer(self.ticket, answer);
        }
    }

    let mut guard = Guard { shared: Arc::clone(&shared), ticket, answer: None };
    guard.answer = Some(in_time(&shared, request).await);
}

async fn read(shared: Arc<Shared>, job: Job) {
    // Who no longer waits does not need to know.
    let _ = job.answer.send(in_time(&shared, job.request).await);
}

async fn in_time(shared: &Shared, request: Request) -> Answer {
    let timeout = shared.config.request_timeout;
    let sent = tokio::time::timeout(timeout, shared.config.transport.send(request)).await;
    sent.unwrap_or_else(|_| Err(TransportError::new(format!("no answer within {timeout:?}"))))
}

/// What the worker waits for.
enum Wake {
    /// This time, or news before it.
    At(Instant),
    OnNews,
}

/// `None` when the client is closed and all is settled, or its time is up.
fn next_wake(shared: &Shared, feed: &Feed, dispatcher: &Dispatcher, now: Instant) -> Option<Wake> {
    let due = shared.state().buffer.due();
    let feed_at = feed.wake_at(shared, due, now, |due| dispatcher.room_at(due));
    let mut state = shared.state();
    state.ledger.expire(now);
    let trim_at = state.buffer.trim(now);
    let mut times = vec![feed_at, trim_at, dispatcher.wake_at(), state.ledger.next_deadline()];
    if let Phase::Closing(deadline) = state.phase {
        if deadline <= now || state.ledger.stats.pending == 0 {
            return None;
        }
        times.push(Some(deadline));
    }
    let first = times.into_iter().flatten().min();
    Some(first.map_or(Wake::OnNews, Wake::At))
}

fn say_unsaid(shared: &Shared) {
    let unsaid = shared.state().problems.take_unsaid();
    for message in unsaid {
        Problems::tell(shared.config.on_problem.as_ref(), &message);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::transport::{BoxFuture, Response, Transport};
    use crate::{Client, Event, LogError};

    pub(super) fn panic_if_asked(shared: &Shared) {
        let one_less = |left: u32| left.checked_sub(1);
        let asked =
            shared.panics_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
        assert!(!asked, "as asked");
    }

    /// Says that all is accepted, a moment later.
    struct Accepting;

    impl Transport for Accepting {
        fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
            let count = request.body.iter().filter(|byte| **byte == b'\n').count();
            let answer = format!(r#"{{"accepted":{count},"rejected":[]}}"#);
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok(Response::new(202, answer))
            })
        }
    }

    fn builder() -> crate::Builder {
        let builder = Client::builder("http://nowhere").transport(Accepting);
        builder.compression(false).linger(Duration::ZERO).on_problem(|_| {})
    }

    fn client() -> Client {
        builder().build().unwrap()
    }

    #[tokio::test]
    async fn a_worker_that_panics_goes_on_with_all_its_events() {
        panics_and_goes_on(client()).await;
    }

    #[cfg(feature = "spool")]
    #[tokio::test]
    async fn a_worker_that_panics_goes_on_with_its_spool() {
        let dir = tempfile::TempDir::new().unwrap();
        let client = builder().spool_dir(dir.path()).build().unwrap();
        panics_and_goes_on(client.clone()).await;
        let stats = client.shutdown().await.stats;
        assert!(stats.is_balanced() && stats.unspooled == 0, "{stats:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the lock alone");
    }

    async fn panics_and_goes_on(client: Client) {
        for n in 0..2000 {
            if n % 700 == 0 {
                client.shared().panics_left.store(1, Ordering::SeqCst);
            }
            client.log(Event::new("u", "A")).unwrap();
        }
        let report = client.flush().await;
        assert_eq!((report.stats.delivered, report.is_complete()), (2000, true), "{report:?}");
        assert!(report.stats.worker_restarts > 0);
    }

    #[tokio::test]
    async fn a_worker_that_always_panics_is_given_up_and_says_so() {
        let client = client();
        client.shared().panics_left.store(1000, Ordering::SeqCst);
        let lost = client.send(Event::new("u", "A")).await;
        assert!(lost.is_err());
        let stats = client.stats();
        assert_eq!(stats.lost.get(LossReason::Worker), 1);
        assert!(stats.last_problem.unwrap().contains("as asked"));
        assert_eq!(client.log(Event::new("u", "A")), Err(LogError::Closed));
        assert!(client.stats().is_balanced() && client.flush().await.is_complete());
    }
}
