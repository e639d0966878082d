//! The optional crate features, as a program uses them.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eyego_log_client::testing::{Recorder, response};
use eyego_log_client::tower::RequestLogLayer;
use eyego_log_client::transport::http::StatusCode;
use eyego_log_client::{Client, Event, LossReason, Overflow, blocking};
use serde_json::json;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tracing_subscriber::prelude::*;

use crate::eventually::eventually;
use crate::server::quick;

/// The body of a final refusal by the server.
const REFUSED: &str = r#"{"status":"fail","message":"no"}"#;

fn recording_client() -> (Client, Recorder) {
    let recorder = Recorder::new();
    (quick("http://test").transport(recorder.clone()).build().unwrap(), recorder)
}

#[test]
fn blocking_calls_work_without_a_runtime_and_next_to_one() {
    let (client, recorder) = recording_client();
    let blocking_client = blocking::Client::from(client.clone());
    blocking_client.send(Event::new("ada", "LOGIN")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let other = client.clone();
        let sent =
            std::thread::spawn(move || blocking::wait(other.send(Event::new("bob", "LOGIN"))));
        client.send(Event::new("eve", "LOGIN")).await.unwrap();
        sent.join().unwrap().unwrap();
    });
    assert_eq!(recorder.with_action("LOGIN").len(), 3);
    assert!(blocking_client.query().iter().next().unwrap().is_err());
    assert!(blocking_client.shutdown().all_delivered());
    assert!(client.log(Event::new("ada", "LOGIN")).is_err(), "both share the same client");
}

#[tokio::test]
async fn a_recorder_records_events_and_returns_given_responses() {
    let (client, recorder) = recording_client();
    recorder.respond_with([
        response(StatusCode::SERVICE_UNAVAILABLE, ""),
        response(StatusCode::UNAUTHORIZED, REFUSED),
    ]);
    let lost = client.send(Event::new("ada", "LOST")).await;
    assert!(lost.is_err());
    assert_eq!(client.stats().lost.get(LossReason::Unauthorized), 1);
    for n in 0..100 {
        client.log(Event::new("ada", "KEPT").metadata(json!({"n": n}))).unwrap();
    }
    assert!(client.flush().await.is_settled());
    recorder.assert_none("LOST");
    assert_eq!(recorder.with_action("KEPT").len(), 100);
    assert_eq!(recorder.events()[99].metadata.to_map()["n"], 99);
}

#[tokio::test]
async fn a_recorder_accepts_a_compressed_batch_with_one_request() {
    let (client, recorder) = recording_client();
    client.log(Event::new("ada", "LONG").metadata(json!({"text": "x".repeat(10_000)}))).unwrap();
    assert!(client.flush().await.all_delivered());
    assert_eq!(recorder.single("LONG").metadata.to_map()["text"], "x".repeat(10_000));
    let stats = client.stats();
    assert_eq!(stats.requests, 1);
    #[cfg(feature = "zstd")]
    assert!(stats.sent_bytes < 1000, "the body is compressed: {stats:?}");
}

#[tokio::test]
async fn the_tracing_layer_logs_only_marked_events() {
    let (client, recorder) = recording_client();
    let subscriber = tracing_subscriber::registry()
        .with(eyego_log_client::tracing::TracingLayer::new(client.clone()));
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(userId = "ada", action = "CLICK", n = 7, big = u64::MAX, "on {}", "home");
        tracing::info!(user_id = 42, action = "VIEW");
        tracing::info!(action = "NO_USER");
        tracing::info!("not marked");
    });
    assert!(client.flush().await.is_settled());
    let click = recorder.single("CLICK").metadata.to_map();
    assert_eq!(click["message"], "on home");
    assert_eq!(click["n"], 7);
    assert_eq!(click["big"], u64::MAX.to_string());
    assert_eq!(recorder.single("VIEW").user_id.as_str(), "42");
    assert_eq!(recorder.events().len(), 2);
}

#[tokio::test]
async fn the_tracing_layer_adds_what_its_options_ask_for() {
    let (client, recorder) = recording_client();
    let layer = eyego_log_client::tracing::TracingLayer::new(client.clone())
        .with_span_fields(true)
        .with_level(true)
        .with_target(true)
        .with_trace_id(|| Some("t-1".to_owned()));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info!(action = "NO_USER");
        let outer =
            tracing::info_span!("outer", user_id = "ada", depth = 1, late = tracing::field::Empty);
        let _outer = outer.enter();
        outer.record("late", "recorded");
        let _inner = tracing::info_span!("inner", depth = 2, n = 1).entered();
        tracing::warn!(target: "shop", action = "CLICK", n = 3, level = "own");
        tracing::info!(userId = "bob", action = "VIEW");
        tracing::info!("not marked");
    });
    assert!(client.flush().await.is_settled());
    let click = recorder.single("CLICK");
    assert_eq!(click.user_id.as_str(), "ada");
    let expected = json!({"depth": 2, "late": "recorded", "level": "own", "n": 3,
        "target": "shop", "traceId": "t-1"});
    assert_eq!(json!(click.metadata.to_map()), expected);
    assert!(click.metadata.to_map().get("user_id").is_none());
    let view = recorder.single("VIEW");
    assert_eq!(view.metadata.to_map()["user_id"], "ada", "the user of the span is kept");
    assert_eq!((view.user_id.as_str(), &view.metadata.to_map()["level"]), ("bob", &json!("INFO")));
    assert_eq!(recorder.events().len(), 2);
}

#[tokio::test]
async fn deliveries_are_reported_without_a_future() {
    let reported = Arc::new(Mutex::new(Vec::new()));
    let ids = Arc::clone(&reported);
    let recorder = Recorder::new();
    recorder.respond_with([response(StatusCode::NOT_FOUND, REFUSED)]);
    let client = quick("http://test")
        .transport(recorder)
        .on_delivery(move |delivered| {
            assert!(delivered.count() > 0);
            ids.lock().unwrap().extend(delivered.ids());
            assert!(delivered.count() < 3, "a panic is caught");
        })
        .build()
        .unwrap();
    assert!(client.send(Event::new("ada", "LOST")).await.is_err());
    let logged: Vec<_> = (0..1000).map(|_| client.log(Event::new("ada", "A")).unwrap()).collect();
    let report = client.shutdown().await;
    assert_eq!((report.stats.delivered, report.stats.unreported_deliveries), (1000, 0));
    let mut ids = reported.lock().unwrap().clone();
    ids.sort_unstable();
    assert_eq!(ids, logged, "the shutdown waits for the function, and ids ascend");
}

#[tokio::test]
async fn the_client_measures_its_requests() {
    let (client, recorder) = recording_client();
    recorder.respond_with([response(StatusCode::SERVICE_UNAVAILABLE, "")]);
    assert_eq!(client.stats().last_success, None);
    client.send(Event::new("ada", "A")).await.unwrap();
    let stats = client.stats();
    assert_eq!((stats.requests, stats.failed_requests), (2, 1));
    assert!(stats.sent_bytes > 200, "both bodies count: {stats:?}");
    assert!(stats.max_request_time <= stats.request_time && !stats.request_time.is_zero());
    let age = eyego_log_client::Timestamp::from(std::time::SystemTime::now())
        .duration_since(stats.last_success.unwrap());
    assert!(age.is_some_and(|age| age < Duration::from_secs(60)));
}

#[tokio::test]
async fn the_tower_layer_logs_selected_requests() {
    let (client, recorder) = recording_client();
    let layer = RequestLogLayer::new(
        client.clone(),
        |request: &&str| request.strip_prefix("user ").map(str::to_owned),
        |user, response: Option<&usize>| {
            Event::new(user, "REQUEST").metadata(json!({"response": response}))
        },
    );
    let inner =
        service_fn(|request: &'static str| async move { Ok::<_, Infallible>(request.len()) });
    let mut service = ServiceBuilder::new().layer(layer).service(inner);
    for request in ["user ada", "nobody"] {
        service.ready().await.unwrap();
        assert_eq!((&mut service).oneshot(request).await, Ok(request.len()));
    }
    assert!(client.flush_within(Duration::from_secs(5)).await.is_settled());
    let logged = recorder.single("REQUEST");
    assert_eq!(logged.user_id.as_str(), "ada");
    assert_eq!(logged.metadata.as_json(), r#"{"response":8}"#);
}

#[tokio::test]
async fn the_tower_layer_neither_delays_nor_fails_a_request() {
    let recorder = Recorder::new();
    recorder.respond_with((0..10_000).map(|_| response(StatusCode::SERVICE_UNAVAILABLE, "")));
    let client = quick("http://test")
        .transport(recorder)
        .max_buffer_bytes(2 << 20)
        .overflow(Overflow::Block(Duration::from_secs(60)))
        .build()
        .unwrap();
    let layer = RequestLogLayer::new(
        client.clone(),
        |request: &&str| match *request {
            "inspect panics" => panic!("expected by the test"),
            request => Some(request.to_owned()),
        },
        |request, _: Option<&usize>| match &*request {
            "event panics" => panic!("expected by the test"),
            _ => Event::new("ada", "REQUEST").metadata(json!({"text": "x".repeat(60_000)})),
        },
    );
    let inner =
        service_fn(|request: &'static str| async move { Ok::<_, Infallible>(request.len()) });
    let mut service = ServiceBuilder::new().layer(layer).service(inner);
    let began = std::time::Instant::now();
    let more_than_fit = ["logged"; 50];
    for request in ["inspect panics", "event panics"].into_iter().chain(more_than_fit) {
        service.ready().await.unwrap();
        assert_eq!((&mut service).oneshot(request).await, Ok(request.len()));
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let stats = client.shutdown_within(Duration::ZERO).await.stats;
    assert!(stats.is_balanced(), "{stats:?}");
    assert_eq!(stats.invalid, 2);
    assert!(stats.lost.get(LossReason::Overflow) > 0, "{stats:?}");
}

#[test]
fn a_value_that_is_recorded_may_log_itself() {
    struct Logging;

    impl std::fmt::Debug for Logging {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            tracing::info!(action = "INNER");
            f.write_str("value")
        }
    }

    let (client, recorder) = recording_client();
    let layer = eyego_log_client::tracing::TracingLayer::new(client.clone()).with_span_fields(true);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let span = tracing::info_span!("request", userId = "ada", value = tracing::field::Empty);
        let _entered = span.enter();
        span.record("value", tracing::field::debug(Logging));
        tracing::info!(action = "OUTER");
    });
    assert!(futures_executor::block_on(client.flush()).all_delivered());
    assert_eq!(recorder.single("INNER").user_id.as_str(), "ada");
    assert_eq!(recorder.single("OUTER").metadata.to_map()["value"], "value");
}

#[tokio::test]
async fn a_recorder_stores_events_at_once_and_is_ready() {
    let (client, recorder) = recording_client();
    let sent = client.send_stored(Event::new("ada", "PAID"), Duration::from_secs(30));
    let outcome = sent.await.unwrap();
    assert_eq!(outcome, eyego_log_client::StoreOutcome::Stored(recorder.single("PAID").id));
    assert!(client.readiness().await.unwrap().is_ready);
    assert_eq!(client.query().get(outcome.id()).await.unwrap(), None);
    let error = client.erase_user("ada").await.unwrap_err();
    assert_eq!(error.status().unwrap().message, "a recorder only records events");
}

#[tokio::test]
async fn an_action_of_a_span_is_kept_in_the_metadata() {
    let (client, recorder) = recording_client();
    let layer = eyego_log_client::tracing::TracingLayer::new(client.clone()).with_span_fields(true);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let _span = tracing::info_span!("job", userId = "ada", action = "IMPORT").entered();
        tracing::info!(action = "ROW");
        tracing::info!(action = "IMPORT");
    });
    assert!(client.flush().await.all_delivered());
    assert_eq!(json!(recorder.single("ROW").metadata.to_map()), json!({"action": "IMPORT"}));
    assert!(recorder.single("IMPORT").metadata.to_map().is_empty());
}

#[tokio::test]
async fn an_event_whose_trace_id_panics_is_logged_without_it() {
    let (client, recorder) = recording_client();
    let layer = eyego_log_client::tracing::TracingLayer::new(client.clone())
        .with_trace_id(|| panic!("a bug of the program"));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info!(userId = "ada", action = "CLICK");
    });
    let problem = client.stats().last_problem.unwrap().message;
    assert_eq!(problem, "a closure panicked");
    assert!(client.flush().await.all_delivered());
    assert!(recorder.single("CLICK").metadata.to_map().is_empty());
    assert_eq!(client.stats().invalid, 0, "the event is logged");
}

/// Only the global subscriber receives events that another event causes.
#[tokio::test]
#[ignore = "a program that another test runs"]
async fn logs_in_the_function_for_trace_ids() {
    let (client, recorder) = recording_client();
    let layer = eyego_log_client::tracing::TracingLayer::new(client.clone()).with_trace_id(|| {
        tracing::info!(userId = "ada", action = "INNER");
        Some("t-1".to_owned())
    });
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
    tracing::info!(userId = "ada", action = "OUTER");
    assert!(client.flush().await.all_delivered());
    assert!(recorder.single("INNER").metadata.to_map().is_empty());
    assert_eq!(json!(recorder.single("OUTER").metadata.to_map()), json!({"traceId": "t-1"}));
}

#[test]
fn an_event_of_the_function_for_trace_ids_is_logged_without_one() {
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    let name = "features::logs_in_the_function_for_trace_ids";
    let output = program.args(["--ignored", "--exact", name]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn a_tracing_event_with_both_names_of_the_user_is_invalid() {
    let (client, recorder) = recording_client();
    let layer = eyego_log_client::tracing::TracingLayer::new(client.clone()).with_span_fields(true);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info!(userId = "ada", user_id = "bob", action = "BOTH");
        let _span = tracing::info_span!("request", userId = "ada", user_id = 7).entered();
        tracing::info!(action = "SPAN");
    });
    let stats = client.stats();
    assert_eq!((stats.invalid, stats.accepted), (1, 1));
    let problem = stats.last_problem.unwrap().message;
    assert_eq!(problem, "userId must not be set together with user_id");
    assert!(client.flush().await.all_delivered());
    let logged = recorder.single("SPAN");
    assert_eq!((logged.user_id.as_str(), logged.metadata.as_json()), ("ada", r#"{"user_id":7}"#));
}

#[test]
fn the_tracing_layer_ignores_events_of_the_clients_own_thread() {
    let (client, recorder) = recording_client();
    let logging = client.clone();
    let hook = move |_: &eyego_log_client::Loss<'_>| {
        let layer = eyego_log_client::tracing::TracingLayer::new(logging.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(userId = "the client", action = "LOOP");
        });
    };
    let failing = Recorder::new();
    failing.respond_with([response(StatusCode::NOT_FOUND, REFUSED)]);
    let losing = quick("http://test").transport(failing).on_loss(hook).build().unwrap();
    assert!(blocking::wait(losing.send(Event::new("ada", "A"))).is_err());
    let _ = blocking::wait(losing.shutdown());
    let _ = blocking::wait(client.flush());
    recorder.assert_none("LOOP");
}

#[tokio::test]
async fn the_layers_count_and_report_invalid_events() {
    let reported = Arc::new(Mutex::new(Vec::new()));
    let problems = Arc::clone(&reported);
    let hook = move |problem: &str| problems.lock().unwrap().push(problem.to_owned());
    let builder = quick("http://test").transport(Recorder::new()).on_problem(hook);
    let client = builder.build().unwrap();
    let subscriber = tracing_subscriber::registry()
        .with(eyego_log_client::tracing::TracingLayer::new(client.clone()));
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(userId = "x".repeat(100_000), action = "CLICK");
    });
    let layer = RequestLogLayer::new(
        client.clone(),
        |_: &&str| Some(()),
        |(), _: Option<&usize>| Event::new("ada", ""),
    );
    let inner =
        service_fn(|request: &'static str| async move { Ok::<_, Infallible>(request.len()) });
    let service = ServiceBuilder::new().layer(layer).service(inner);
    assert_eq!(service.oneshot("request").await, Ok(7));
    assert!(client.log(Event::new("", "A")).is_err(), "counted as well");
    let stats = client.stats();
    assert_eq!((stats.invalid, stats.accepted), (3, 0));
    assert!(stats.last_problem.unwrap().message.contains("action must be"));
    eventually("it is reported", || !reported.lock().unwrap().is_empty());
    let first = reported.lock().unwrap()[0].clone();
    assert!(first.contains("userId must have at most 256") && first.len() < 400, "{first}");
    assert!(first.contains("x\" with action \"CLICK\": "), "{first}");
}

#[tokio::test]
async fn the_tower_layer_logs_cancelled_and_panicking_requests() {
    let (client, recorder) = recording_client();
    let layer = RequestLogLayer::new(
        client.clone(),
        |request: &&'static str| Some(*request),
        |request, response: Option<&usize>| {
            Event::new(request, "REQUEST").metadata(json!({"response": response}))
        },
    );
    let inner = service_fn(|request: &'static str| async move {
        assert!(request != "panics", "requested by the test");
        std::future::pending::<()>().await;
        Ok::<_, Infallible>(0_usize)
    });
    let service = ServiceBuilder::new().layer(layer).service(inner);
    let cancelled =
        tokio::time::timeout(Duration::from_millis(10), service.clone().oneshot("cancelled")).await;
    assert!(cancelled.is_err());
    assert!(tokio::spawn(service.oneshot("panics")).await.is_err());
    assert!(client.flush().await.is_settled());
    let logged = recorder.with_action("REQUEST");
    let users: Vec<_> = logged.iter().map(|event| event.user_id.as_str()).collect();
    assert_eq!(users, ["cancelled", "panics"]);
    assert!(logged.iter().all(|event| event.metadata.as_json() == r#"{"response":null}"#));
}

/// Collects the messages of all `tracing` events.
#[derive(Clone, Default)]
struct Messages(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Messages {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Visitor<'a>(&'a Messages);
        impl tracing::field::Visit for Visitor<'_> {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.0.lock().unwrap().push(format!("{value:?}"));
            }
        }
        event.record(&mut Visitor(self));
    }
}

#[test]
fn a_client_dropped_in_a_runtime_reports_how_many_events_are_undelivered() {
    let messages = Messages::default();
    let subscriber = tracing_subscriber::registry().with(messages.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(async {
            let (client, _recorder) = recording_client();
            client.log(Event::new("ada", "A")).unwrap();
            drop(client);
        });
    });
    let messages = messages.0.lock().unwrap();
    assert!(messages.len() == 1 && messages[0].contains("1 undelivered event"), "{messages:?}");
}

#[test]
fn a_guard_delivers_everything_at_the_end_of_a_runtime() {
    let (client, recorder) = recording_client();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async move {
        // The longest duration does not overflow.
        let _guard = client.guard().timeout(Duration::MAX);
        client.log(Event::new("ada", "A")).unwrap();
    });
    assert_eq!(recorder.events().len(), 1);
}
