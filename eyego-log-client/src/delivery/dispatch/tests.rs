//! The dispatcher with simulated time and responses.

use proptest::prelude::*;

use super::*;
use crate::pipeline::accounting::Accounting;

const POLICY: RetryPolicy = RetryPolicy {
    base: Duration::from_millis(100),
    max: Duration::from_secs(30),
    delivery_timeout: Duration::from_secs(120),
};

fn dispatcher() -> Dispatcher {
    let options = DispatchOptions { retry: POLICY, max_in_flight: 4, compression: true };
    Dispatcher::new(options, fastrand::Rng::with_seed(7))
}

fn batch(events: usize) -> Batch {
    let mut batch = Batch::new();
    (0..events).for_each(|n| batch.push(format!("{n}\n").as_bytes(), None));
    batch
}

fn send(dispatcher: &mut Dispatcher, now: Instant) -> Option<Ticket> {
    dispatcher.poll(now).map(|outgoing| outgoing.ticket)
}

fn busy(seconds: Option<u64>) -> Classification {
    let retry_after = seconds.map(Duration::from_secs);
    Classification::Retry { retry_after, message: "busy".to_owned() }
}

#[test]
fn several_requests_are_in_flight_until_one_fails() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    (0..6).for_each(|_| dispatcher.offer(batch(1)));
    let tickets: Vec<_> = std::iter::from_fn(|| send(&mut dispatcher, now)).collect();
    assert_eq!(tickets.len(), 4);
    assert!(dispatcher.handle_response(tickets[0], busy(None), now).is_empty());
    let later = now + Duration::from_secs(60);
    assert!(send(&mut dispatcher, later).is_none(), "three are still in flight");
    for ticket in &tickets[1..3] {
        dispatcher.handle_response(*ticket, busy(None), now);
    }
    dispatcher.handle_response(tickets[3], Classification::Delivered, now);
    let later = dispatcher.wake_at().unwrap();
    assert!(send(&mut dispatcher, later).is_some());
}

#[test]
fn a_failing_server_receives_one_probe_at_a_time() {
    let mut now = Instant::now();
    let mut dispatcher = dispatcher();
    (0..10).for_each(|_| dispatcher.offer(batch(1)));
    let end = now + Duration::from_secs(60);
    let mut probes = 0;
    while now < end {
        if let Some(ticket) = send(&mut dispatcher, now) {
            assert!(probes == 0 || send(&mut dispatcher, now).is_none());
            dispatcher.handle_response(ticket, busy(None), now);
            probes += 1;
        }
        now = dispatcher.wake_at().unwrap().max(now + Duration::from_millis(1));
    }
    assert!((5..40).contains(&probes), "{probes} probes in a minute");
}

#[test]
fn retry_after_pauses_all_requests_and_loses_nothing() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    dispatcher.offer(batch(1));
    dispatcher.offer(batch(1));
    let ticket = send(&mut dispatcher, now).unwrap();
    assert!(dispatcher.handle_response(ticket, busy(Some(300)), now).is_empty());
    assert!(send(&mut dispatcher, now + Duration::from_secs(299)).is_none());
    assert!(!dispatcher.wants_batch(now + Duration::from_secs(299)));
    let later = now + Duration::from_secs(300);
    assert!(dispatcher.wake_at().unwrap() >= later);
    let resumed = dispatcher.wake_at().unwrap();
    assert!(send(&mut dispatcher, resumed).is_some());
}

#[test]
fn a_batch_that_keeps_failing_expires_after_the_delivery_timeout() {
    let start = Instant::now();
    let mut now = start;
    let mut dispatcher = dispatcher();
    dispatcher.offer(batch(2));
    loop {
        let ticket = send(&mut dispatcher, now).unwrap();
        let settled = dispatcher.handle_response(ticket, busy(None), now);
        if let [SettledBatch { batch, outcome }] = &settled[..] {
            let expected = Outcome::lost(LossReason::Expired, "busy");
            assert_eq!((batch.len(), outcome), (2, &expected));
            break;
        }
        now = dispatcher.wake_at().unwrap();
    }
    let took = now - start;
    assert!(took > Duration::from_secs(60) && took <= Duration::from_secs(150), "{took:?}");
}

#[test]
fn a_batch_that_always_fails_does_not_block_the_others() {
    let mut now = Instant::now();
    let mut dispatcher = dispatcher();
    dispatcher.offer(batch(7));
    (0..50).for_each(|_| dispatcher.offer(batch(1)));
    let mut delivered = 0;
    let end = now + Duration::from_secs(30);
    while now < end && delivered < 50 {
        while let Some(ticket) = send(&mut dispatcher, now) {
            if dispatcher.events_of(ticket) == Some(7) {
                dispatcher.handle_response(ticket, busy(None), now);
            } else {
                delivered +=
                    dispatcher.handle_response(ticket, Classification::Delivered, now).len();
            }
        }
        now += Duration::from_millis(10);
    }
    assert_eq!(delivered, 50);
}

#[test]
fn an_oversized_batch_is_split_until_only_the_oversized_event_is_lost() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    dispatcher.offer(batch(8));
    let (mut delivered, mut lost) = (0, Vec::new());
    while let Some(OutgoingBatch { ticket, batch, .. }) = dispatcher.poll(now) {
        let classification = if batch.bytes().contains(&b'5') {
            Classification::SplitBatch(LossReason::TooLarge, "413".to_owned())
        } else {
            Classification::Delivered
        };
        for settled in dispatcher.handle_response(ticket, classification, now) {
            match settled.outcome {
                Outcome::Delivered => delivered += settled.batch.len(),
                Outcome::Lost { reason, .. } => lost.push((reason, settled.batch.bytes().to_vec())),
            }
        }
    }
    assert_eq!(delivered, 7);
    assert_eq!(lost, [(LossReason::TooLarge, b"5\n".to_vec())]);
}

#[test]
fn compression_stays_off_after_the_server_refuses_it() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    dispatcher.offer(batch(1000));
    let ticket = send(&mut dispatcher, now).unwrap();
    assert!(
        dispatcher
            .handle_response(ticket, Classification::DisableCompression("415".to_owned()), now)
            .is_empty()
    );
    let OutgoingBatch { ticket, is_compressed, .. } = dispatcher.poll(now).unwrap();
    assert!(!is_compressed);
    let settled = dispatcher.handle_response(
        ticket,
        Classification::DisableCompression("415".to_owned()),
        now,
    );
    assert_eq!(settled[0].outcome, Outcome::lost(LossReason::Refused, "415"));
}

/// Any response of a server.
fn any_classification() -> impl Strategy<Value = Classification> {
    let item = (0_usize..6, prop::option::of(Just(LossReason::Invalid)));
    let message = String::new;
    prop_oneof![
        4 => Just(Classification::Delivered),
        2 => prop::collection::vec(item, 1..4).prop_map(move |mut items| {
            items.sort_by_key(|(index, _)| *index);
            items.dedup_by_key(|(index, _)| *index);
            let rejected = items.into_iter().map(|(index, reason)| Rejected { index, reason, message: message() });
            Classification::PerItem { rejected: rejected.collect(), retry_after: None }
        }),
        2 => prop::option::of(0_u64..20).prop_map(busy),
        1 => Just(Classification::UnexpectedResponse(message())),
        1 => Just(Classification::SplitBatch(LossReason::TooLarge, message())),
        1 => Just(Classification::DisableCompression(message())),
        1 => Just(Classification::Lost(LossReason::Unauthorized, message())),
    ]
}

#[derive(Debug, Clone)]
enum Action {
    Offer(usize),
    Respond(usize, Classification),
    AdvanceMillis(u64),
    RestartWorker,
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (1_usize..6).prop_map(Action::Offer),
        6 => (0_usize..4, any_classification()).prop_map(|(which, classification)| Action::Respond(which, classification)),
        3 => (0_u64..40_000).prop_map(Action::AdvanceMillis),
        1 => Just(Action::RestartWorker),
    ]
}

proptest! {
    /// Whatever the server responds, every accepted event is delivered, pending
    /// or lost.
    #[test]
    fn the_counts_always_balance(actions in prop::collection::vec(any_action(), 0..80)) {
        let mut now = Instant::now();
        let mut dispatcher = dispatcher();
        let mut accounting = Accounting::default();
        let settle = |accounting: &mut Accounting, settled: Vec<SettledBatch>| {
            for SettledBatch { batch, outcome } in settled {
                accounting.settle(0, batch.len() as u64, batch.cost(), &outcome);
            }
        };
        for action in actions {
            match action {
                Action::Offer(events) => {
                    let batch = batch(events);
                    batch.lines().iter().for_each(|line| accounting.accept(0, Batch::cost_of(line.len())));
                    dispatcher.offer(batch);
                }
                Action::Respond(which, classification) => {
                    let ticket = dispatcher.in_flight.get(which).map(|sent| sent.ticket);
                    if let Some(ticket) = ticket {
                        let settled = dispatcher.handle_response(ticket, classification, now);
                        settle(&mut accounting, settled);
                    }
                }
                Action::AdvanceMillis(millis) => now += Duration::from_millis(millis),
                Action::RestartWorker => dispatcher.abandon_in_flight(),
            }
            while dispatcher.poll(now).is_some() {}
            let held: usize = dispatcher.queue.iter().map(Batch::len).sum::<usize>()
                + dispatcher.retrying.iter().map(|(_, batch)| batch.len()).sum::<usize>()
                + dispatcher.in_flight.iter().map(|sent| sent.batch.len()).sum::<usize>();
            prop_assert_eq!(accounting.stats.pending, held as u64);
            prop_assert!(accounting.stats.is_balanced());
            // Every batch is in flight or has a time at which it is sent.
            prop_assert!(held == 0 || !dispatcher.in_flight.is_empty() || dispatcher.wake_at().is_some());
        }
        let rest = dispatcher.drain();
        let lost = Outcome::lost(LossReason::Shutdown, "");
        for batch in rest {
            accounting.settle(0, batch.len() as u64, batch.cost(), &lost);
        }
        prop_assert_eq!((accounting.stats.pending, accounting.stats.pending_bytes), (0, 0));
        prop_assert!(accounting.stats.is_balanced());
    }
}
