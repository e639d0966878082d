//! How problems reach the program.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use eyego_log_client::{Client, Event, Timestamp};
use wiremock::ResponseTemplate;

use crate::eventually::eventually;
use crate::server::{FakeServer, accepted};

type Reports = Arc<Mutex<Vec<(Instant, String)>>>;

/// Starts a server that fails while the switch is on, and a client that collects
/// its reports.
async fn failing_server() -> (FakeServer, Client, Arc<AtomicBool>, Reports) {
    let fails = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&fails);
    let server = FakeServer::start(move |_, seen| {
        if switch.load(Ordering::SeqCst) { ResponseTemplate::new(503) } else { accepted(seen) }
    })
    .await;
    let reports = Reports::default();
    let collected = Arc::clone(&reports);
    let hook = move |problem: &str| {
        collected.lock().unwrap().push((Instant::now(), problem.to_owned()));
    };
    let client = server.client().on_problem(hook).build().unwrap();
    (server, client, fails, reports)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_episode_of_a_problem_is_reported_and_cleared_by_recovery() {
    let (_server, client, fails, reports) = failing_server().await;
    for episode in 1..=3 {
        fails.store(true, Ordering::SeqCst);
        let before = Timestamp::from(SystemTime::now());
        client.log(Event::new("a", "A")).unwrap();
        eventually("the problem is reported", || reports.lock().unwrap().len() == episode);
        let problem = client.stats().last_problem.unwrap();
        assert!(problem.message.contains("503") && problem.time >= before, "{problem}");
        fails.store(false, Ordering::SeqCst);
        assert!(client.flush().await.all_delivered());
        assert_eq!(client.stats().last_problem, None);
    }
    let reports = reports.lock().unwrap();
    assert!(reports.iter().all(|(_, problem)| problem.contains("503")), "{reports:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flapping_server_causes_at_most_one_report_per_second() {
    let (_server, client, fails, reports) = failing_server().await;
    let begin = Instant::now();
    let mut episodes = 0;
    while begin.elapsed() < Duration::from_secs(3) {
        let failed = client.stats().failed_requests;
        fails.store(true, Ordering::SeqCst);
        client.log(Event::new("a", "A")).unwrap();
        eventually("a request fails", || client.stats().failed_requests > failed);
        fails.store(false, Ordering::SeqCst);
        assert!(client.flush().await.all_delivered());
        episodes += 1;
    }
    let reports = reports.lock().unwrap();
    assert!(episodes > 3 && reports.len() > 1, "{episodes} episodes, {reports:?}");
    for pair in reports.windows(2) {
        // Each is delayed a little until the hook runs.
        assert!(pair[1].0 - pair[0].0 > Duration::from_millis(800), "{reports:?}");
    }
}
