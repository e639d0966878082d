//! Deadlines of callers: they hold whatever the program's own code does, and
//! whoever waits gets attempts although requests are paused.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use eyego_log_client::transport::{BoxFuture, Request, Response, Transport, TransportError};
use eyego_log_client::{Client, Event, LossReason, RequestError, SendError};
use futures_executor::block_on;

use crate::eventually::{TIMEOUT, eventually};
use crate::server::{accept, quick, response};

/// Much shorter than [`TIMEOUT`], and long enough for a busy machine.
const SHORT: Duration = Duration::from_millis(300);

/// Accepts all events while it is up, and counts its requests.
#[derive(Clone, Default)]
struct Switchable {
    is_up: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
}

impl Transport for Switchable {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let result = if self.is_up.load(Ordering::SeqCst) {
            Ok(accept(&request))
        } else {
            Err(TransportError::new("down"))
        };
        Box::pin(std::future::ready(result))
    }
}

/// Creates a client whose requests are paused for a long time after a failure.
fn paused(server: &Switchable) -> Client {
    let pause = Duration::from_secs(3600);
    let builder = Client::builder("http://down").transport(server.clone()).linger(Duration::ZERO);
    let client = builder.retry(pause, pause).on_problem(|_| {}).compression(false).build().unwrap();
    client.log(Event::new("a", "A")).unwrap();
    eventually("the first request fails", || client.stats().failed_requests > 0);
    client
}

#[test]
fn each_call_that_waits_gets_an_attempt_during_a_pause() {
    type Call = fn(&Client);
    let calls: [(&str, Call); 4] = [
        ("flush", |client| drop(block_on(client.flush_within(TIMEOUT)))),
        ("send", |client| {
            block_on(client.send(Event::new("a", "A"))).unwrap();
            // Delivers the first event, which `send` does not cover.
            drop(block_on(client.flush_within(TIMEOUT)));
        }),
        ("shutdown", |client| drop(block_on(client.shutdown_within(TIMEOUT)))),
        ("guard", |client| drop(client.guard().timeout(TIMEOUT))),
    ];
    for (name, call) in calls {
        let server = Switchable::default();
        let client = paused(&server);
        server.is_up.store(true, Ordering::SeqCst);
        call(&client);
        let stats = client.stats();
        assert_eq!((stats.pending, stats.lost.total()), (0, 0), "{name}: {stats:?}");
    }
    let server = Switchable::default();
    let client = paused(&server);
    server.is_up.store(true, Ordering::SeqCst);
    drop(client);
    assert_eq!(server.requests.load(Ordering::SeqCst), 2, "dropping the client");
}

#[test]
fn a_server_that_recovers_while_a_caller_waits_is_noticed() {
    let server = Switchable::default();
    let client = paused(&server);
    let flushing = client.clone();
    let flush = std::thread::spawn(move || block_on(flushing.flush_within(TIMEOUT)));
    // The attempt at the beginning of the flush fails.
    eventually("the flush causes an attempt", || server.requests.load(Ordering::SeqCst) > 1);
    server.is_up.store(true, Ordering::SeqCst);
    let begin = Instant::now();
    assert!(flush.join().unwrap().all_delivered());
    assert!(begin.elapsed() < TIMEOUT / 3, "an attempt is made each second");
}

#[test]
fn many_calls_do_not_cause_many_requests() {
    let server = Switchable::default();
    let client = paused(&server);
    let begin = Instant::now();
    for _ in 0..200 {
        let _ = block_on(client.flush_within(Duration::from_millis(1)));
        drop(client.send(Event::new("a", "A")));
    }
    let limit = 6 + 2 * usize::try_from(begin.elapsed().as_secs()).unwrap();
    let requests = server.requests.load(Ordering::SeqCst);
    assert!(requests <= limit, "{requests} requests");
    assert!(client.stats().is_balanced());
}

/// Blocks its thread, which is the client's, until it is released.
struct Blocking(Mutex<mpsc::Receiver<()>>);

impl Transport for Blocking {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        let _ = self.0.lock().unwrap().recv();
        Box::pin(std::future::ready(Ok(accept(&request))))
    }
}

#[test]
fn deadlines_hold_while_the_clients_thread_is_blocked() {
    let (release, released) = mpsc::channel();
    let client =
        quick("http://blocking").transport(Blocking(Mutex::new(released))).build().unwrap();
    client.log(Event::new("a", "A")).unwrap();
    let begin = Instant::now();
    let report = block_on(client.flush_within(SHORT));
    assert_eq!((report.unsettled, report.is_settled()), (1, false));
    let report = block_on(client.shutdown_within(SHORT));
    assert!(!report.is_settled() && report.stats.is_balanced(), "{report:?}");
    assert!(begin.elapsed() < TIMEOUT / 2);
    drop(release);
    eventually("the events are settled in the end", || client.stats().pending == 0);
}

#[test]
fn calls_that_read_fail_while_the_clients_thread_is_blocked() {
    let (release, released) = mpsc::channel();
    let builder = quick("http://blocking").transport(Blocking(Mutex::new(released)));
    let client = builder.request_timeout(SHORT).build().unwrap();
    client.log(Event::new("a", "A")).unwrap();
    let begin = Instant::now();
    let errors = [
        block_on(client.query().fetch()).unwrap_err(),
        block_on(client.readiness()).unwrap_err(),
        block_on(client.erase_user("ada")).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, RequestError::NoResponse(_)), "{error}");
        assert!(error.is_retryable() && error.to_string().contains("300ms"), "{error}");
    }
    assert!(begin.elapsed() < TIMEOUT / 2);
    drop(release);
}

/// Begins a shutdown with a long timeout and gives it up.
fn begin_long_shutdown(client: &Client) {
    let mut long = Box::pin(client.shutdown_within(2 * TIMEOUT));
    assert!(long.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn the_earliest_timeout_of_all_shutdowns_applies() {
    type End = fn(Client);
    let ends: [(&str, End); 3] = [
        ("shutdown", |client| {
            let report = block_on(client.shutdown_within(SHORT));
            assert_eq!(report.unsettled, 1, "{report:?}");
        }),
        ("guard", |client| drop(client.guard().timeout(SHORT))),
        ("drop", drop),
    ];
    for (name, end) in ends {
        let lost = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&lost);
        let hook = move |loss: &eyego_log_client::Loss<'_>| {
            assert_eq!(loss.reason, LossReason::Shutdown);
            counter.fetch_add(loss.count(), Ordering::SeqCst);
        };
        let builder = quick("http://hung").transport(Hung).on_loss(hook);
        let client = builder.shutdown_timeout(SHORT).build().unwrap();
        client.log(Event::new("a", "A")).unwrap();
        begin_long_shutdown(&client);
        let begin = Instant::now();
        end(client);
        assert!(begin.elapsed() < TIMEOUT, "{name}");
        assert_eq!(lost.load(Ordering::SeqCst), 1, "{name}");
    }
}

#[test]
fn an_earlier_timeout_gets_its_last_attempt() {
    let server = Switchable::default();
    let client = paused(&server);
    begin_long_shutdown(&client);
    eventually("the shutdown causes an attempt", || server.requests.load(Ordering::SeqCst) == 2);
    server.is_up.store(true, Ordering::SeqCst);
    let report = block_on(client.shutdown_within(2 * SHORT));
    assert!(report.all_delivered(), "{report:?}");
}

/// Refuses the first request and accepts all others.
struct RefusesFirst(AtomicBool);

impl Transport for RefusesFirst {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        let response = if self.0.swap(false, Ordering::SeqCst) {
            response(401, r#"{"status":"fail","message":"no"}"#)
        } else {
            accept(&request)
        };
        Box::pin(std::future::ready(Ok(response)))
    }
}

/// Never responds.
struct Hung;

impl Transport for Hung {
    fn send(&self, _: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn a_hook_that_sleeps_or_calls_its_own_client_delays_nobody() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let own: Arc<OnceLock<Client>> = Arc::default();
    let hook_client = Arc::clone(&own);
    let hook = move |_: &eyego_log_client::Loss<'_>| {
        let client = hook_client.get().unwrap();
        client.log(Event::new("hook", "A")).unwrap();
        let _ = block_on(client.flush_within(TIMEOUT));
        let _ = released.lock().unwrap().recv();
    };
    let transport = RefusesFirst(AtomicBool::new(true));
    let builder = quick("http://refuses").transport(transport).on_loss(hook);
    let client = builder.compression(false).build().unwrap();
    assert!(own.set(client.clone()).is_ok());
    let lost = block_on(client.send(Event::new("a", "A")));
    assert!(matches!(lost, Err(SendError::Lost { reason: LossReason::Unauthorized, .. })));
    let begin = Instant::now();
    for _ in 0..10 {
        block_on(client.send(Event::new("a", "A"))).unwrap();
    }
    assert!(block_on(client.flush_within(TIMEOUT)).is_settled());
    let _ = block_on(client.shutdown_within(SHORT));
    assert!(begin.elapsed() < TIMEOUT / 2, "the hook still waits");
    drop(release);
}

#[test]
fn send_ends_at_the_delivery_timeout() {
    let builder = quick("http://hung").transport(Hung).request_timeout(2 * TIMEOUT);
    let client = builder.delivery_timeout(SHORT).max_in_flight(1).build().unwrap();
    let begin = Instant::now();
    let deliveries: Vec<_> = (0..5).map(|_| client.send(Event::new("a", "A"))).collect();
    for delivery in deliveries {
        let result = block_on(delivery);
        assert!(matches!(result, Err(SendError::Lost { reason: LossReason::Expired, .. })));
    }
    assert!(begin.elapsed() < TIMEOUT / 2);
}

#[test]
fn events_expire_in_the_buffer_after_a_last_attempt() {
    let server = Switchable::default();
    let pause = Duration::from_secs(3600);
    let builder = Client::builder("http://down").transport(server.clone()).linger(Duration::ZERO);
    let builder = builder.retry(pause, pause).on_problem(|_| {}).max_batch_events(1);
    let client = builder.delivery_timeout(2 * SHORT).compression(false).build().unwrap();
    for _ in 0..10 {
        client.log(Event::new("a", "A")).unwrap();
    }
    eventually("all events expire", || client.stats().lost.get(LossReason::Expired) == 10);
    let requests = server.requests.load(Ordering::SeqCst);
    assert!((2..6).contains(&requests), "a first and a last attempt: {requests}");
    assert!(client.stats().is_balanced());
}

#[test]
fn log_goes_on_while_thousands_of_flushes_wait() {
    let server = Switchable::default();
    let client = paused(&server);
    let mut flushes: Vec<_> = (0..5000)
        .map(|n| {
            client.log(Event::new(format!("user-{n}"), "A")).unwrap();
            Box::pin(client.flush_within(TIMEOUT))
        })
        .collect();
    let mut context = Context::from_waker(Waker::noop());
    assert!(flushes.iter_mut().all(|flush| flush.as_mut().poll(&mut context).is_pending()));
    // No call waits for the flushes, whose events cannot be delivered yet.
    for n in 0..10_000 {
        client.log(Event::new(format!("user-{n}"), "B")).unwrap();
    }
    assert_eq!((client.stats().accepted, client.stats().delivered), (15_001, 0));
    server.is_up.store(true, Ordering::SeqCst);
    let reports = block_on(futures_util::future::join_all(flushes));
    assert!(reports.iter().all(eyego_log_client::Report::all_delivered));
}

#[test]
fn thousands_of_flushes_share_one_batch_and_all_end() {
    let server = Switchable::default();
    let client = paused(&server);
    let mut flushes = Vec::new();
    for n in 0..5000 {
        client.log(Event::new(format!("user-{n}"), "A")).unwrap();
        let client = client.clone();
        flushes.push(Box::pin(async move { client.flush_within(TIMEOUT).await }));
    }
    server.is_up.store(true, Ordering::SeqCst);
    let reports = block_on(futures_util::future::join_all(flushes));
    assert!(reports.iter().all(eyego_log_client::Report::all_delivered));
    let requests = server.requests.load(Ordering::SeqCst);
    assert!(requests < 100, "{requests} requests for 5001 events");
}
