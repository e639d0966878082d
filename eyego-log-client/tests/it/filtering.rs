//! What the program decides about its events before they are buffered: a disabled
//! client, sampling, `before_send`, and metadata of the client and its scopes.

use std::sync::{Arc, Mutex};

use eyego_log_client::testing::Recorder;
use eyego_log_client::{Client, ClientBuilder, DraftEvent, Event, LogError, RequestError};
use serde_json::json;

use crate::eventually::eventually;
use crate::server::quick;

fn recording(change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> (Client, Recorder) {
    let recorder = Recorder::new();
    let builder = quick("http://test").transport(recorder.clone());
    (change(builder).build().unwrap(), recorder)
}

#[tokio::test]
async fn a_disabled_client_discards_and_counts_events() {
    let from_builder = quick("no url").disabled(true).api_key_file("/no/such/file").build();
    for client in [Client::disabled(), from_builder.unwrap()] {
        assert!(client.is_disabled());
        let given = "69682d8d81847b87ab93264b".parse().unwrap();
        assert_eq!(client.log(Event::new("ada", "A").id(given)), Ok(given));
        assert_eq!(client.send(Event::new("ada", "A").id(given)).await, Ok(given));
        assert!(matches!(client.log(Event::new("", "A")), Err(LogError::Invalid(_))));
        let read = client.query().fetch().await;
        assert_eq!(read.unwrap_err(), RequestError::Disabled);
        assert!(client.flush().await.all_delivered());
        let stats = client.shutdown().await.stats;
        assert_eq!((stats.disabled, stats.invalid, stats.accepted), (2, 1, 0));
        assert!(stats.is_balanced());
    }
}

#[tokio::test]
async fn sampling_keeps_all_events_of_some_users() {
    let (client, recorder) = recording(|builder| builder.sample_rate(0.3));
    for _ in 0..2 {
        let results = client.log_many((0..1000).map(|n| Event::new(format!("user-{n}"), "A")));
        assert!(results.iter().all(Result::is_ok));
    }
    assert!(client.flush().await.all_delivered());
    let stats = client.stats();
    assert_eq!(stats.accepted + stats.sampled_out, 2000);
    assert!(stats.is_balanced() && (450..750).contains(&stats.delivered), "{stats:?}");
    for event in recorder.events() {
        let is_same = |other: &&eyego_log_client::LogEntry| other.user_id == event.user_id;
        assert_eq!(recorder.events().iter().filter(is_same).count(), 2);
    }
}

#[tokio::test]
async fn before_send_changes_and_drops_events() {
    let problems = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&problems);
    let (client, recorder) = recording(|builder| {
        builder
            .common_metadata(json!({"service": "shop"}))
            .on_problem(move |problem| reported.lock().unwrap().push(problem.to_owned()))
            .before_send(|mut event: DraftEvent| {
                assert!(event.action != "PANIC", "requested by the test");
                assert_eq!(event.metadata["service"], "shop");
                event.metadata.remove("password");
                event.user_id = event.user_id.to_lowercase();
                if event.action == "TOO_LONG" {
                    event.action = "x".repeat(129);
                }
                (event.action != "SECRET").then_some(event)
            })
    });
    let login = Event::new("ADA", "LOGIN").field("password", "p").field("n", 1);
    let id = client.log(login).unwrap();
    assert!(client.send(Event::new("ada", "SECRET")).await.is_ok());
    assert!(client.log(Event::new("ada", "PANIC")).is_ok());
    assert!(matches!(client.log(Event::new("ada", "TOO_LONG")), Err(LogError::Invalid(_))));
    assert!(client.flush().await.all_delivered());
    let login = recorder.single("LOGIN");
    assert_eq!((login.id, login.user_id.as_str()), (id, "ada"));
    assert_eq!(login.metadata.as_json(), r#"{"n":1,"service":"shop"}"#);
    let stats = client.stats();
    assert_eq!((stats.accepted, stats.filtered, stats.invalid), (1, 2, 1));
    assert!(stats.is_balanced() && recorder.events().len() == 1);
    eventually("the panic is reported", || {
        problems.lock().unwrap().iter().any(|problem| problem.contains("before_send panicked"))
    });
}

#[tokio::test]
async fn before_send_may_log_itself() {
    let slot: Arc<Mutex<Option<Client>>> = Arc::default();
    let inner = Arc::clone(&slot);
    let (client, recorder) = recording(|builder| {
        builder.before_send(move |event| {
            let client = inner.lock().unwrap().take()?;
            client.log(Event::new("ada", "INNER")).ok()?;
            Some(event)
        })
    });
    *slot.lock().unwrap() = Some(client.clone());
    client.log(Event::new("ada", "OUTER")).unwrap();
    assert!(client.flush().await.all_delivered());
    assert_eq!(recorder.with_action("INNER").len() + recorder.with_action("OUTER").len(), 2);
}

#[tokio::test]
async fn before_send_of_another_client_is_called_for_what_before_send_logs() {
    let (audit, audited) = recording(|builder| {
        builder.before_send(|mut event: DraftEvent| {
            event.metadata.remove("password");
            Some(event)
        })
    });
    let auditing = audit.clone();
    let (client, recorder) = recording(|builder| {
        builder.before_send(move |event| {
            let copy = Event::new("ada", "AUDIT").metadata(json!({"password": "secret", "n": 1}));
            auditing.log(copy).ok()?;
            Some(event)
        })
    });
    client.log(Event::new("ada", "LOGIN")).unwrap();
    assert!(client.flush().await.all_delivered() && audit.flush().await.all_delivered());
    assert_eq!(recorder.events().len(), 1);
    assert_eq!(audited.single("AUDIT").metadata.as_json(), r#"{"n":1}"#);
}

#[tokio::test]
async fn scopes_add_metadata_and_the_innermost_wins() {
    let (client, recorder) =
        recording(|builder| builder.common_metadata(json!({"service": "shop", "level": 0})));
    let request = client.with_metadata(json!({"requestId": "r-7", "level": 1})).unwrap();
    let nested = request.with_metadata(json!({"level": 2})).unwrap();
    nested.log(Event::new("ada", "NESTED").metadata(json!({"requestId": "own"}))).unwrap();
    request.log(Event::new("ada", "REQUEST")).unwrap();
    client.log(Event::new("ada", "PLAIN").field("n", 1)).unwrap();
    assert!(client.with_metadata([1]).is_err());
    drop((request, nested));
    assert!(client.flush().await.all_delivered());
    let metadata = |action| json!(recorder.single(action).metadata.to_map());
    let nested = json!({"service": "shop", "requestId": "own", "level": 2});
    assert_eq!(metadata("NESTED"), nested);
    assert_eq!(metadata("REQUEST"), json!({"service": "shop", "requestId": "r-7", "level": 1}));
    assert_eq!(metadata("PLAIN"), json!({"service": "shop", "level": 0, "n": 1}));
}

#[tokio::test]
async fn a_scope_costs_no_allocation_per_event() {
    let (client, _recorder) =
        recording(|builder| builder.linger(std::time::Duration::from_secs(60)));
    let scope = client.with_metadata(json!({"service": "shop", "version": 3})).unwrap();
    let metadata = std::collections::BTreeMap::from([("page", "home")]);
    let event = || Event::new("ada", "A").metadata(&metadata);
    (0..100).for_each(|_| assert!(scope.log(event()).is_ok()));
    let counted = allocation_counter::measure(|| assert!(scope.log(event()).is_ok()));
    assert_eq!(counted.count_total, 0);
}
