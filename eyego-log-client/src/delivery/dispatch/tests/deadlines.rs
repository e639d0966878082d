//! Deadlines of callers and of events, and requests that hang.

use super::*;

/// Lets each attempt fail until `dispatcher` settles a batch. Returns when that
/// was and when the last attempt began.
fn fail_until_settled(dispatcher: &mut Dispatcher, start: Instant) -> (Instant, Instant) {
    let (mut now, mut last_attempt) = (start, start);
    loop {
        dispatcher.advance(None, now);
        let mut settled = dispatcher.expire(now);
        while let Some(ticket) = send(dispatcher, now) {
            last_attempt = now;
            settled.extend(dispatcher.handle_response(ticket, busy(None), now));
        }
        if let Some(SettledBatch { outcome, .. }) = settled.first() {
            assert_eq!(outcome, &Outcome::lost(LossReason::Expired, "busy"));
            return (now, last_attempt);
        }
        now = dispatcher.wake_at().unwrap().max(now + Duration::from_millis(1));
    }
}

#[test]
fn a_batch_that_keeps_failing_expires_at_the_delivery_timeout_after_a_last_attempt() {
    for seed in 0..50 {
        let start = Instant::now();
        let mut dispatcher = dispatcher();
        dispatcher.pace = Pace::new(POLICY, fastrand::Rng::with_seed(seed));
        let mut old = batch(2);
        old.opened_at = Some(start - Duration::from_secs(60));
        dispatcher.offer(old);
        let (expired, last_attempt) = fail_until_settled(&mut dispatcher, start);
        let took = expired - start;
        assert!(took >= Duration::from_secs(60), "the time in the queue counts: {took:?}");
        assert!(took <= Duration::from_millis(60_002), "{took:?}");
        let before = expired - last_attempt;
        assert!(before <= LAST_ATTEMPT + Duration::from_millis(2), "{before:?}");
    }
}

#[test]
fn a_request_takes_no_longer_than_the_delivery_timeout() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    let mut old = batch(1);
    old.opened_at = Some(now - Duration::from_secs(115));
    dispatcher.offer(old);
    assert_eq!(dispatcher.poll(now).unwrap().timeout, Duration::from_secs(5));
}

#[test]
fn a_waiting_caller_gets_an_attempt_during_a_pause() {
    let mut now = Instant::now();
    let mut dispatcher = dispatcher();
    dispatcher.offer(batch(1));
    while dispatcher.wake_at().is_none_or(|at| at < now + Duration::from_secs(5)) {
        let ticket = send(&mut dispatcher, now).unwrap();
        dispatcher.handle_response(ticket, busy(None), now);
        let due = dispatcher.wake_at().unwrap();
        if due < now + Duration::from_secs(5) {
            now = due;
        }
    }
    now += Duration::from_secs(2);
    assert!(send(&mut dispatcher, now).is_none());
    dispatcher.want_attempt(now);
    dispatcher.wait_until(now + Duration::from_secs(5), now);
    let ticket = send(&mut dispatcher, now).unwrap();
    dispatcher.handle_response(ticket, busy(None), now);
    now += Duration::from_millis(1001);
    dispatcher.advance(None, now);
    dispatcher.hurry(LAST_ATTEMPT, now);
    assert!(send(&mut dispatcher, now).is_some(), "further attempts follow each second");
}

/// Lets each attempt fail until `end`. Returns when they were made.
fn fail_until(dispatcher: &mut Dispatcher, start: Instant, end: Instant) -> Vec<Instant> {
    let (mut now, mut attempts) = (start, Vec::new());
    while now < end {
        dispatcher.advance(None, now);
        while let Some(ticket) = send(dispatcher, now) {
            dispatcher.handle_response(ticket, busy(None), now);
            attempts.push(now);
        }
        let wake = [dispatcher.wake_at(), dispatcher.planned_at()].into_iter().flatten().min();
        now = wake.unwrap().max(now + Duration::from_millis(1));
    }
    attempts
}

/// A caller waits for a short time during an outage that ends before its deadline.
#[test]
fn a_short_wait_ends_with_a_last_attempt() {
    for millis in [300, 500, 1000, 2000, 3000, 5000] {
        let timeout = Duration::from_millis(millis);
        let mut dispatcher = dispatcher();
        (0..2).for_each(|_| dispatcher.offer(batch(1)));
        let start = Instant::now();
        let begin = start + Duration::from_secs(5);
        fail_until(&mut dispatcher, start, begin);
        let deadline = begin + timeout;
        dispatcher.want_attempt(begin);
        dispatcher.wait_until(deadline, begin);
        let attempts = fail_until(&mut dispatcher, begin, deadline);
        let before = deadline - *attempts.last().unwrap();
        assert!(before <= LAST_ATTEMPT.min(timeout / 4), "{millis} ms: {before:?} before the end");
    }
}

/// The server fails after it has accepted something.
#[test]
fn a_caller_gets_an_attempt_each_second_in_an_outage() {
    let start = Instant::now();
    let mut dispatcher = dispatcher();
    (0..2).for_each(|_| dispatcher.offer(batch(1)));
    let ticket = send(&mut dispatcher, start).unwrap();
    dispatcher.handle_response(ticket, Classification::Delivered, start);
    let begin = start + Duration::from_secs(60);
    fail_until(&mut dispatcher, start, begin);
    let deadline = begin + Duration::from_secs(20);
    dispatcher.want_attempt(begin);
    dispatcher.wait_until(deadline, begin);
    let attempts = fail_until(&mut dispatcher, begin, deadline).len();
    assert!((18..=24).contains(&attempts), "{attempts} attempts in 20 s");
}

#[test]
fn an_attempt_for_a_caller_goes_on_without_compression() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    (0..3).for_each(|_| dispatcher.offer(batch(1000)));
    let failing: Vec<_> = std::iter::from_fn(|| send(&mut dispatcher, now)).collect();
    for ticket in failing {
        dispatcher.handle_response(ticket, busy(Some(60)), now);
    }
    let now = now + Duration::from_secs(2);
    dispatcher.want_attempt(now);
    dispatcher.wait_until(now + Duration::from_secs(4), now);
    let now = dispatcher.planned_at().unwrap();
    dispatcher.advance(None, now);
    let ticket = send(&mut dispatcher, now).unwrap();
    let refusal = Classification::DisableCompression("415".to_owned());
    dispatcher.handle_response(ticket, refusal, now);
    assert!(!dispatcher.poll(now).unwrap().is_compressed);
}

/// Sends four batches whose requests hang.
fn hanging(start: Instant) -> (Dispatcher, Vec<Ticket>) {
    let mut dispatcher = dispatcher();
    (0..4).for_each(|_| {
        let mut batch = batch(1);
        batch.opened_at = Some(start);
        dispatcher.offer(batch);
    });
    dispatcher.advance(None, start);
    let tickets: Vec<_> = std::iter::from_fn(|| send(&mut dispatcher, start)).collect();
    assert_eq!(tickets.len(), 4);
    (dispatcher, tickets)
}

#[test]
fn batches_whose_requests_hang_are_sent_again_before_a_deadline() {
    let start = Instant::now();
    let (mut dispatcher, first) = hanging(start);
    let now = start + Duration::from_secs(2);
    dispatcher.want_attempt(now);
    dispatcher.wait_until(now + Duration::from_secs(5), now);
    dispatcher.advance(None, now);
    assert!(send(&mut dispatcher, now).is_none(), "they may still get a response");
    let now = dispatcher.planned_at().unwrap();
    dispatcher.advance(None, now);
    let second: Vec<_> = std::iter::from_fn(|| send(&mut dispatcher, now)).collect();
    assert_eq!(second.len(), 4);

    let settle = |dispatcher: &mut Dispatcher, ticket, response| {
        dispatcher.handle_response(ticket, response, now).len()
    };
    assert_eq!(settle(&mut dispatcher, second[0], Classification::Delivered), 1);
    assert_eq!(settle(&mut dispatcher, first[0], Classification::Delivered), 0);
    assert_eq!(settle(&mut dispatcher, first[1], busy(None)), 0);
    assert_eq!(settle(&mut dispatcher, second[1], Classification::Delivered), 1);
    assert_eq!(settle(&mut dispatcher, second[2], busy(None)), 0);
    assert_eq!(settle(&mut dispatcher, first[2], Classification::Delivered), 1);
    assert_eq!(settle(&mut dispatcher, first[3], busy(None)), 0);
    dispatcher.wait_until(now + Duration::from_millis(100), now);
    let soon = now + Duration::from_millis(100);
    dispatcher.advance(None, soon);
    assert!(send(&mut dispatcher, soon).is_none(), "many callers cause no storm");
    assert_eq!(dispatcher.retrying.iter().count(), 0);
    assert_eq!(settle(&mut dispatcher, second[3], busy(None)), 0);
    assert_eq!(dispatcher.drain().len(), 1, "both requests of the last batch failed");
}

#[test]
fn a_batch_whose_request_hangs_is_sent_again_before_it_expires() {
    let start = Instant::now();
    let (mut dispatcher, _) = hanging(start);
    let (mut now, mut sent) = (start, 0);
    while sent == 0 {
        now = dispatcher.wake_at().unwrap();
        dispatcher.advance(None, now);
        sent = std::iter::from_fn(|| send(&mut dispatcher, now)).count();
    }
    assert_eq!((now - start, sent), (POLICY.delivery_timeout - LAST_ATTEMPT, 4));
    dispatcher.advance(None, now + Duration::from_millis(1));
    assert!(send(&mut dispatcher, now).is_none(), "a third request is not sent");
}
