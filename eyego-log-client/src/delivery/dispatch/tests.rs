//! The dispatcher alone, with made-up time and answers.

use proptest::prelude::*;

use super::*;
use crate::ledger::Ledger;

const POLICY: RetryPolicy = RetryPolicy {
    base: Duration::from_millis(100),
    max: Duration::from_secs(30),
    delivery_timeout: Duration::from_secs(120),
};

fn dispatcher() -> Dispatcher {
    Dispatcher::new(POLICY, 4, true, 7)
}

fn batch(events: usize) -> Batch {
    let mut batch = Batch::new();
    (0..events).for_each(|n| batch.push(format!("{n}\n").as_bytes(), None));
    batch
}

fn send(dispatcher: &mut Dispatcher, now: Instant) -> Option<Ticket> {
    dispatcher.poll(now).map(|sending| sending.ticket)
}

fn busy(seconds: Option<u64>) -> Verdict {
    let retry_after = seconds.map(Duration::from_secs);
    Verdict::Retry { retry_after, message: "busy".to_owned() }
}

#[test]
fn several_requests_are_under_way_until_one_fails() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    (0..6).for_each(|_| dispatcher.offer(batch(1)));
    let tickets: Vec<_> = std::iter::from_fn(|| send(&mut dispatcher, now)).collect();
    assert_eq!(tickets.len(), 4);
    assert!(dispatcher.answer(tickets[0], busy(None), now).is_empty());
    let later = now + Duration::from_secs(60);
    assert!(send(&mut dispatcher, later).is_none(), "three are still under way");
    for ticket in &tickets[1..3] {
        dispatcher.answer(*ticket, busy(None), now);
    }
    dispatcher.answer(tickets[3], Verdict::Delivered, now);
    let later = dispatcher.wake_at().unwrap();
    assert!(send(&mut dispatcher, later).is_some());
}

#[test]
fn a_server_in_trouble_sees_one_probe_at_a_time() {
    let mut now = Instant::now();
    let mut dispatcher = dispatcher();
    (0..10).for_each(|_| dispatcher.offer(batch(1)));
    let end = now + Duration::from_secs(60);
    let mut probes = 0;
    while now < end {
        if let Some(ticket) = send(&mut dispatcher, now) {
            assert!(probes == 0 || send(&mut dispatcher, now).is_none());
            dispatcher.answer(ticket, busy(None), now);
            probes += 1;
        }
        now = dispatcher.wake_at().unwrap().max(now + Duration::from_millis(1));
    }
    assert!((5..40).contains(&probes), "{probes} probes in a minute");
}

#[test]
fn retry_after_pauses_everything_and_costs_no_event() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    dispatcher.offer(batch(1));
    dispatcher.offer(batch(1));
    let ticket = send(&mut dispatcher, now).unwrap();
    assert!(dispatcher.answer(ticket, busy(Some(300)), now).is_empty());
    assert!(send(&mut dispatcher, now + Duration::from_secs(299)).is_none());
    assert!(!dispatcher.wants_batch(now + Duration::from_secs(299)));
    let later = now + Duration::from_secs(300);
    assert!(dispatcher.wake_at().unwrap() >= later);
    let resumed = dispatcher.wake_at().unwrap();
    assert!(send(&mut dispatcher, resumed).is_some());
}

#[test]
fn what_goes_on_failing_is_given_up_after_the_delivery_timeout() {
    let start = Instant::now();
    let mut now = start;
    let mut dispatcher = dispatcher();
    dispatcher.offer(batch(2));
    loop {
        let ticket = send(&mut dispatcher, now).unwrap();
        let settled = dispatcher.answer(ticket, busy(None), now);
        if let [Settled { batch, fate, .. }] = &settled[..] {
            assert_eq!((batch.len(), *fate), (2, Fate::Lost(LossReason::Expired)));
            break;
        }
        now = dispatcher.wake_at().unwrap();
    }
    let took = now - start;
    assert!(took > Duration::from_secs(60) && took <= Duration::from_secs(150), "{took:?}");
}

#[test]
fn a_batch_that_always_fails_does_not_stop_the_others() {
    let mut now = Instant::now();
    let mut dispatcher = dispatcher();
    dispatcher.offer(batch(7));
    (0..50).for_each(|_| dispatcher.offer(batch(1)));
    let mut delivered = 0;
    let end = now + Duration::from_secs(30);
    while now < end && delivered < 50 {
        while let Some(ticket) = send(&mut dispatcher, now) {
            if dispatcher.events_of(ticket) == Some(7) {
                dispatcher.answer(ticket, busy(None), now);
            } else {
                delivered += dispatcher.answer(ticket, Verdict::Delivered, now).len();
            }
        }
        now += Duration::from_millis(10);
    }
    assert_eq!(delivered, 50);
}

#[test]
fn too_large_is_halved_down_to_the_culprit() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    dispatcher.offer(batch(8));
    let (mut delivered, mut lost) = (0, Vec::new());
    while let Some(Sending { ticket, batch, .. }) = dispatcher.poll(now) {
        let verdict = if batch.bytes().contains(&b'5') {
            Verdict::Halve(LossReason::TooLarge, "413".to_owned())
        } else {
            Verdict::Delivered
        };
        for settled in dispatcher.answer(ticket, verdict, now) {
            match settled.fate {
                Fate::Delivered => delivered += settled.batch.len(),
                Fate::Lost(reason) => lost.push((reason, settled.batch.bytes().to_vec())),
            }
        }
    }
    assert_eq!(delivered, 7);
    assert_eq!(lost, [(LossReason::TooLarge, b"5\n".to_vec())]);
}

#[test]
fn an_encoding_that_is_refused_is_given_up_for_good() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    dispatcher.offer(batch(1000));
    let ticket = send(&mut dispatcher, now).unwrap();
    assert!(dispatcher.answer(ticket, Verdict::Unencoded("415".to_owned()), now).is_empty());
    let Sending { ticket, is_compressed, .. } = dispatcher.poll(now).unwrap();
    assert!(!is_compressed);
    let settled = dispatcher.answer(ticket, Verdict::Unencoded("415".to_owned()), now);
    assert_eq!(settled[0].fate, Fate::Lost(LossReason::Refused));
}

/// What a made-up server may say.
fn any_verdict() -> impl Strategy<Value = Verdict> {
    let item = (0_usize..6, prop::option::of(Just(LossReason::Invalid)));
    let message = String::new;
    prop_oneof![
        4 => Just(Verdict::Delivered),
        2 => prop::collection::vec(item, 1..4).prop_map(move |mut items| {
            items.sort_by_key(|(index, _)| *index);
            items.dedup_by_key(|(index, _)| *index);
            let rejected = items.into_iter().map(|(index, reason)| Rejected { index, reason, message: message() });
            Verdict::PerItem { rejected: rejected.collect(), retry_after: None }
        }),
        2 => prop::option::of(0_u64..20).prop_map(busy),
        1 => Just(Verdict::Nonsense(message())),
        1 => Just(Verdict::Halve(LossReason::TooLarge, message())),
        1 => Just(Verdict::Unencoded(message())),
        1 => Just(Verdict::Lost(LossReason::Unauthorized, message())),
    ]
}

#[derive(Debug, Clone)]
enum Action {
    Offer(usize),
    Answer(usize, Verdict),
    Pass(u64),
    Die,
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (1_usize..6).prop_map(Action::Offer),
        6 => (0_usize..4, any_verdict()).prop_map(|(which, verdict)| Action::Answer(which, verdict)),
        3 => (0_u64..40_000).prop_map(Action::Pass),
        1 => Just(Action::Die),
    ]
}

proptest! {
    /// The law: whatever the server says, accepted is delivered, pending or lost.
    #[test]
    fn no_event_is_lost_without_a_reason(actions in prop::collection::vec(any_action(), 0..80)) {
        let mut now = Instant::now();
        let mut dispatcher = dispatcher();
        let mut ledger = Ledger::default();
        let settle = |ledger: &mut Ledger, settled: Vec<Settled>| {
            for Settled { batch, fate, .. } in settled {
                ledger.settle(0, batch.len() as u64, batch.cost(), fate);
            }
        };
        for action in actions {
            match action {
                Action::Offer(events) => {
                    let batch = batch(events);
                    batch.lines().iter().for_each(|line| ledger.accept(0, Batch::cost_of(line.len())));
                    dispatcher.offer(batch);
                }
                Action::Answer(which, verdict) => {
                    let ticket = dispatcher.in_flight.get(which).map(|sent| sent.ticket);
                    if let Some(ticket) = ticket {
                        let settled = dispatcher.answer(ticket, verdict, now);
                        settle(&mut ledger, settled);
                    }
                }
                Action::Pass(millis) => now += Duration::from_millis(millis),
                Action::Die => dispatcher.abandon_in_flight(),
            }
            while dispatcher.poll(now).is_some() {}
            let held: usize = dispatcher.queue.iter().map(Batch::len).sum::<usize>()
                + dispatcher.retrying.iter().map(|(_, batch)| batch.len()).sum::<usize>()
                + dispatcher.in_flight.iter().map(|sent| sent.batch.len()).sum::<usize>();
            prop_assert_eq!(ledger.stats.pending, held as u64);
            prop_assert!(ledger.stats.is_balanced());
            // Nothing waits for ever: something is under way, or a time is known.
            prop_assert!(held == 0 || !dispatcher.in_flight.is_empty() || dispatcher.wake_at().is_some());
        }
        let rest = dispatcher.drain();
        for batch in rest {
            ledger.settle(0, batch.len() as u64, batch.cost(), Fate::Lost(LossReason::Shutdown));
        }
        prop_assert_eq!((ledger.stats.pending, ledger.stats.pending_bytes), (0, 0));
        prop_assert!(ledger.stats.is_balanced());
    }
}
