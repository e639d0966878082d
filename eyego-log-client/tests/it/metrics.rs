//! The statistics as the `metrics` crate sees them.

use eyego_log_client::{Client, Event, metrics};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use crate::server::{FakeServer, accepted};

/// Publishes and returns all metrics, as `name` or `name{reason}`, with their values.
fn published(client: &Client) -> Vec<(String, f64)> {
    let recorder = DebuggingRecorder::new();
    ::metrics::with_local_recorder(&recorder, || metrics::publish(client));
    let metrics = recorder.snapshotter().snapshot().into_vec();
    let metrics = metrics.into_iter().map(|(key, _, description, value)| {
        let key = key.key();
        assert!(description.is_some(), "{key} has no description");
        let labels = key.labels().map(|label| format!("{{{}}}", label.value()));
        let name = format!("{}{}", key.name(), labels.collect::<String>());
        let value = match value {
            DebugValue::Counter(count) => f64::from(u32::try_from(count).unwrap()),
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(_) => panic!("{name} is a histogram"),
        };
        (name, value)
    });
    metrics.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn published_metrics_are_the_statistics() {
    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let client = server.client().build().unwrap();
    let value = |name: &str| {
        let metrics = published(&client);
        metrics.iter().find(|(found, _)| found == name).map(|(_, value)| *value)
    };
    assert_eq!(value("eyego_log_client_accepted_total"), Some(0.0));
    assert_eq!(value("eyego_log_client_last_success_timestamp_seconds"), None);
    for user in ["a", "b", "c"] {
        client.log(Event::new(user, "A")).unwrap();
    }
    assert!(client.flush().await.all_delivered());
    assert!(client.log(Event::new("", "A")).is_err());
    let stats = client.stats();
    for (name, expected) in [
        ("eyego_log_client_accepted_total", 3),
        ("eyego_log_client_delivered_total", 3),
        ("eyego_log_client_invalid_total", 1),
        ("eyego_log_client_requests_total", stats.requests),
        ("eyego_log_client_sent_bytes_total", stats.sent_bytes),
        ("eyego_log_client_pending", 0),
        ("eyego_log_client_filtered_total", 0),
        ("eyego_log_client_worker_restarts_total", 0),
        ("eyego_log_client_lost_total{overflow}", 0),
    ] {
        let expected = f64::from(u32::try_from(expected).unwrap());
        assert_eq!(value(name), Some(expected), "{name}");
    }
    let last_success = value("eyego_log_client_last_success_timestamp_seconds").unwrap();
    assert!(last_success > 1.7e9, "{last_success}");
}
