//! The dispatcher with simulated time and responses.

mod deadlines;
mod own_failures;

use proptest::prelude::*;

use super::*;
use crate::delivery::response::{Classification, Rejected};
use crate::pipeline::accounting::Accounting;
use crate::pipeline::batch::{Outcome, SettledBatch};

const POLICY: RetryPolicy = RetryPolicy {
    base: Duration::from_millis(100),
    max: Duration::from_secs(30),
    delivery_timeout: Duration::from_secs(120),
};

fn dispatcher() -> Dispatcher {
    let options = DispatchOptions {
        retry: POLICY,
        max_in_flight: 4,
        compression: true,
        max_batch_events: 500,
        max_refused_bytes: 1 << 20,
        request_timeout: Duration::from_secs(15),
    };
    Dispatcher::new(options, fastrand::Rng::with_seed(7))
}

fn batch(events: usize) -> Batch {
    let mut batch = Batch::new(1 << 20);
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
    assert!(dispatcher.handle_response(ticket, busy(Some(60)), now).is_empty());
    dispatcher.want_attempt(now);
    let almost = now + Duration::from_secs(59);
    dispatcher.advance(None, almost);
    assert!(send(&mut dispatcher, almost).is_none() && !dispatcher.wants_batch(almost));
    let resumed = dispatcher.wake_at().unwrap();
    assert!(resumed >= now + Duration::from_secs(60));
    assert!(send(&mut dispatcher, resumed).is_some());
}

/// Responds to a batch like a server that refuses some events for now.
fn respond_partly(
    dispatcher: &mut Dispatcher,
    ticket: Ticket,
    refused: &[usize],
    now: Instant,
) -> u64 {
    let rejected = refused.iter().map(|index| Rejected {
        index: *index,
        reason: None,
        message: "quota".to_owned(),
    });
    let classification =
        Classification::PerItem { rejected: rejected.collect(), retry_after: None };
    let settled = dispatcher.handle_response(ticket, classification, now);
    settled.iter().map(|settled| settled.batch.len() as u64).sum()
}

#[test]
fn a_batch_of_refused_events_alone_does_not_delay_the_others() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    (0..8).for_each(|_| dispatcher.offer(batch(2)));
    let ticket = send(&mut dispatcher, now).unwrap();
    assert_eq!(respond_partly(&mut dispatcher, ticket, &[1], now), 1);
    for _ in 0..3 {
        let refused = send(&mut dispatcher, now).unwrap();
        let accepted = send(&mut dispatcher, now).unwrap();
        respond_partly(&mut dispatcher, refused, &[0, 1], now);
        dispatcher.handle_response(accepted, Classification::Delivered, now);
    }
    assert_eq!(dispatcher.refused_events(), 7);
    let ticket = send(&mut dispatcher, now).expect("requests are not paused");
    respond_partly(&mut dispatcher, ticket, &[0, 1], now);
}

/// A server that begins to refuse everything gets few requests.
#[test]
fn refused_batches_in_a_row_cause_a_pause() {
    let mut now = Instant::now();
    let mut dispatcher = dispatcher();
    dispatcher.offer(batch(2));
    let ticket = send(&mut dispatcher, now).unwrap();
    respond_partly(&mut dispatcher, ticket, &[1], now);
    let mut requests = 0;
    let end = now + Duration::from_secs(60);
    while now < end {
        dispatcher.offer(batch(2));
        while let Some(ticket) = send(&mut dispatcher, now) {
            let events = dispatcher.sent(ticket).unwrap().events;
            respond_partly(&mut dispatcher, ticket, &Vec::from_iter(0..events), now);
            requests += 1;
        }
        now += Duration::from_millis(50);
    }
    assert!(requests <= 75, "{requests} requests in a minute");
}

/// Every second event of each batch is refused for 30 seconds, during which a
/// batch comes each 10 ms.
#[test]
fn refused_events_do_not_delay_the_others_and_are_delivered_in_the_end() {
    let start = Instant::now();
    let mut now = start;
    let mut dispatcher = dispatcher();
    let (mut accepted, mut refused_requests) = (0, 0);
    let end = start + Duration::from_secs(30);
    while now < end {
        dispatcher.offer(batch(10));
        while let Some(OutgoingBatch { ticket, .. }) = dispatcher.poll(now) {
            // Only refused events are collected into batches of another size, or
            // retried for the second time.
            let is_refused =
                dispatcher.in_flight.iter().any(|sent| sent.ticket == ticket && sent.is_refused);
            let events = dispatcher.sent(ticket).unwrap().events;
            if is_refused {
                refused_requests += 1;
                let all: Vec<_> = (0..events).collect();
                respond_partly(&mut dispatcher, ticket, &all, now);
            } else {
                accepted += respond_partly(&mut dispatcher, ticket, &[1, 3, 5, 7, 9], now);
            }
        }
        assert!(dispatcher.queue.is_empty(), "every batch is sent immediately");
        now += Duration::from_millis(10);
    }
    assert_eq!(accepted, 15_000);
    assert_eq!(dispatcher.refused_events(), 15_000);
    assert!((5..40).contains(&refused_requests), "{refused_requests}");
    let mut delivered = 0;
    while delivered < 15_000 {
        now = dispatcher.wake_at().unwrap().max(now);
        while let Some(ticket) = send(&mut dispatcher, now) {
            for settled in dispatcher.handle_response(ticket, Classification::Delivered, now) {
                delivered += settled.batch.len();
            }
        }
    }
    assert_eq!(dispatcher.refused_events(), 0);
}

#[test]
fn refused_events_occupy_only_a_part_of_the_buffer() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    dispatcher.options.max_refused_bytes = 1000;
    let mut lost = 0;
    for _ in 0..100 {
        dispatcher.offer(batch(10));
        let ticket = send(&mut dispatcher, now).unwrap();
        lost += respond_partly(&mut dispatcher, ticket, &[1, 2, 3], now) - 7;
        dispatcher.options.max_batch_events = 3;
    }
    assert!(lost > 200 && dispatcher.refused_events() + lost == 300, "{lost}");
}

#[test]
fn a_server_that_refuses_everything_receives_few_requests() {
    for reason in [LossReason::TooLarge, LossReason::Refused] {
        let start = Instant::now();
        let mut now = start;
        let mut dispatcher = dispatcher();
        let (mut requests, mut largest) = (0, Vec::new());
        while now < start + Duration::from_secs(60) {
            if dispatcher.wants_batch(now) {
                dispatcher.offer(batch(500));
            }
            if let Some(OutgoingBatch { ticket, batch, .. }) = dispatcher.poll(now) {
                requests += 1;
                largest.push(batch.len());
                let refusal = Classification::SplitBatch(reason, "no".to_owned());
                dispatcher.handle_response(ticket, refusal, now);
            }
            now += Duration::from_millis(10);
        }
        assert!(requests <= 60, "{requests} requests in a minute");
        let full = largest.iter().filter(|events| **events == 500).count();
        assert!(full <= 2, "the size is remembered: {largest:?}");
    }
}

#[test]
fn a_size_that_the_server_refuses_is_not_sent_again() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    let (mut refusals, mut delivered) = (0, 0);
    for _ in 0..20 {
        dispatcher.offer(batch(100));
        while let Some(OutgoingBatch { ticket, batch, .. }) = dispatcher.poll(now) {
            let classification = if batch.bytes().len() > 100 {
                refusals += 1;
                Classification::SplitBatch(LossReason::TooLarge, "413".to_owned())
            } else {
                Classification::Delivered
            };
            for settled in dispatcher.handle_response(ticket, classification, now) {
                assert_eq!(settled.outcome, Outcome::Delivered);
                delivered += settled.batch.len();
            }
        }
    }
    assert_eq!(delivered, 2000);
    // Two at first, and one each time the limit is tentatively doubled.
    assert!(refusals <= 6, "{refusals}");
}

#[test]
fn a_server_that_refused_everything_soon_receives_large_requests_again() {
    let mut now = Instant::now();
    let mut dispatcher = dispatcher();
    dispatcher.offer(batch(500));
    while dispatcher.size_limit.bytes(now).is_none_or(|bytes| bytes > 8) {
        if let Some(ticket) = send(&mut dispatcher, now) {
            let refusal = Classification::SplitBatch(LossReason::TooLarge, "413".to_owned());
            dispatcher.handle_response(ticket, refusal, now);
        }
        now += Duration::from_millis(100);
    }
    now += POLICY.max;
    let (mut requests, mut delivered) = (0, 0);
    while delivered < 10_000 {
        if dispatcher.wants_batch(now) {
            dispatcher.offer(batch(500));
        }
        let ticket = send(&mut dispatcher, now).unwrap();
        requests += 1;
        let settled = dispatcher.handle_response(ticket, Classification::Delivered, now);
        delivered += settled.iter().map(|settled| settled.batch.len()).sum::<usize>();
    }
    assert!(requests < 200, "{requests} requests for {delivered} events");
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
            if dispatcher.sent(ticket).map(|sent| sent.events) == Some(7) {
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
    /// A caller begins to wait for this long.
    Wait(u64),
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (1_usize..6).prop_map(Action::Offer),
        6 => (0_usize..4, any_classification()).prop_map(|(which, classification)| Action::Respond(which, classification)),
        3 => (0_u64..40_000).prop_map(Action::AdvanceMillis),
        1 => Just(Action::RestartWorker),
        1 => (0_u64..10_000).prop_map(Action::Wait),
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
                    let mut batch = batch(events);
                    batch.opened_at = Some(now);
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
                Action::Wait(millis) => {
                    dispatcher.want_attempt(now);
                    dispatcher.wait_until(now + Duration::from_millis(millis), now);
                }
            }
            dispatcher.advance(None, now);
            let expired = dispatcher.expire(now);
            settle(&mut accounting, expired);
            while dispatcher.poll(now).is_some() {}
            let held: usize = dispatcher.queue.iter().map(Batch::len).sum::<usize>()
                + dispatcher.retrying.iter().map(Batch::len).sum::<usize>()
                + dispatcher.refused.iter().map(Batch::len).sum::<usize>()
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
