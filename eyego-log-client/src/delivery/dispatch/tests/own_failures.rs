//! Batches that fail because of an event in them, while the server accepts others.

use std::collections::BTreeSet;

use super::*;

/// How often the simulated program logs events, and how many at once.
const INTERVAL: Duration = Duration::from_millis(20);
const EVENTS: usize = 20;

/// The simulated time that a request takes.
const LATENCY: Duration = Duration::from_millis(5);

/// A program that logs numbered events, and a server that decides about each batch.
struct Simulation {
    dispatcher: Dispatcher,
    start: Instant,
    now: Instant,
    logged: usize,
    /// Returns the line of an event.
    event: fn(usize) -> String,
    delivered: BTreeSet<usize>,
    lost: BTreeSet<usize>,
    requests: usize,
    responses: Vec<(Instant, Ticket, Classification)>,
}

impl Simulation {
    fn new() -> Self {
        let (start, dispatcher) = (Instant::now(), dispatcher());
        Self {
            dispatcher,
            start,
            now: start,
            logged: 0,
            event: |n| format!("{n}\n"),
            delivered: BTreeSet::new(),
            lost: BTreeSet::new(),
            requests: 0,
            responses: Vec::new(),
        }
    }

    /// Runs for some simulated time. `respond` gets the numbers of the events of each
    /// request, and returns how long it takes and its outcome.
    fn run(
        &mut self,
        time: Duration,
        interval: Duration,
        mut respond: impl FnMut(&[usize]) -> (Duration, Classification),
    ) {
        let end = self.now + time;
        let mut next_batch = self.now;
        // Batches that the dispatcher has not asked for yet.
        let mut waiting = VecDeque::new();
        while self.now < end {
            if self.now >= next_batch {
                next_batch += interval;
                let mut batch = Batch::new(1 << 20);
                for n in self.logged..self.logged + EVENTS {
                    batch.push((self.event)(n).as_bytes(), None);
                }
                batch.opened_at = Some(self.now);
                self.logged += EVENTS;
                waiting.push_back(batch);
            }
            for (_, ticket, response) in
                self.responses.extract_if(.., |(at, ..)| *at <= self.now).collect::<Vec<_>>()
            {
                let settled = self.dispatcher.handle_response(ticket, response, self.now);
                self.settle(settled);
            }
            self.dispatcher.advance(None, self.now);
            let expired = self.dispatcher.expire(self.now);
            self.settle(expired);
            loop {
                if self.dispatcher.wants_batch(self.now)
                    && let Some(batch) = waiting.pop_front()
                {
                    self.dispatcher.offer(batch);
                }
                let Some(OutgoingBatch { ticket, batch, timeout, .. }) =
                    self.dispatcher.poll(self.now)
                else {
                    break;
                };
                self.requests += 1;
                let (took, response) = respond(&numbers(batch));
                let response = if took < timeout { response } else { busy(None) };
                self.responses.push((self.now + took.min(timeout), ticket, response));
            }
            let response_at = self.responses.iter().map(|(at, ..)| *at).min();
            let times = [response_at, self.dispatcher.wake_at(), Some(next_batch)];
            let next = times.into_iter().flatten().min().unwrap();
            assert!(next > self.now, "the worker never sleeps");
            self.now = next;
        }
    }

    fn settle(&mut self, settled: Vec<SettledBatch>) {
        for SettledBatch { batch, outcome } in settled {
            let is_delivered = outcome == Outcome::Delivered;
            let numbers = numbers(&batch);
            if is_delivered { &mut self.delivered } else { &mut self.lost }.extend(numbers);
        }
    }

    /// Returns how many of the events that were logged until `before` now are neither
    /// delivered nor lost.
    fn pending(&self, before: Duration) -> usize {
        let logged = (self.now - before - self.start).as_millis() / INTERVAL.as_millis();
        let logged = usize::try_from(logged).unwrap() * EVENTS;
        let settled = self.delivered.range(..logged).chain(self.lost.range(..logged));
        logged - settled.count()
    }
}

fn numbers(batch: &Batch) -> Vec<usize> {
    let text = std::str::from_utf8(batch.bytes()).unwrap();
    text.lines().map(|line| line.trim().parse().unwrap()).collect()
}

/// Responds like a server that fails for each request with a number that `is_fatal`.
fn fail_for(is_fatal: impl Fn(usize) -> bool) -> impl Fn(&[usize]) -> (Duration, Classification) {
    move |numbers| {
        let fails = numbers.iter().any(|n| is_fatal(*n));
        (LATENCY, if fails { busy(None) } else { Classification::Delivered })
    }
}

#[test]
fn they_delay_no_others_and_only_the_event_that_is_the_reason_is_lost() {
    for period in [100, 5000] {
        let is_fatal = |n: usize| n % period == 37;
        let mut simulation = Simulation::new();
        simulation.run(Duration::from_secs(150), INTERVAL, fail_for(is_fatal));
        // New batches are sent at once, and the others of a failing one soon.
        let fatal = (0..simulation.logged).filter(|n| is_fatal(*n)).count();
        let pending = simulation.pending(Duration::from_secs(20));
        assert!(pending <= fatal, "{period}: {pending} events wait, {fatal} fail");
        assert!(simulation.lost.iter().all(|n| is_fatal(*n)), "{:?}", simulation.lost);
        assert!(!simulation.lost.is_empty(), "they expire");
        let most = simulation.logged / EVENTS + 50 * fatal;
        assert!(simulation.requests < most, "{period}: {} requests", simulation.requests);
    }
}

#[test]
fn they_do_not_block_the_others_from_the_beginning_on() {
    for (max_in_flight, count) in [(4, 3), (4, 4), (1, 2)] {
        let mut simulation = Simulation::new();
        simulation.dispatcher.options.max_in_flight = max_in_flight;
        let is_fatal = move |n| n < count * EVENTS && n % 20 == 7;
        simulation.run(Duration::from_secs(60), INTERVAL, fail_for(is_fatal));
        let pending = simulation.pending(Duration::from_secs(20));
        assert!(pending <= count, "{pending} events wait after {count} batches");
    }
}

#[test]
fn many_in_a_row_do_not_block_the_others() {
    for count in [5, 8] {
        let mut simulation = Simulation::new();
        let is_fatal = |n: usize| (10_000..10_000 + count * EVENTS).contains(&n) && n % 20 == 7;
        simulation.run(Duration::from_secs(150), INTERVAL, fail_for(is_fatal));
        let pending = simulation.pending(Duration::from_secs(20));
        assert!(pending <= count, "{pending} events wait after {count} batches");
        assert!(simulation.lost.iter().all(|n| is_fatal(*n)), "{:?}", simulation.lost);
    }
}

/// A tenth of the batches fails, and a request takes long.
#[test]
fn only_the_event_that_is_the_reason_is_lost_if_requests_take_long() {
    let mut simulation = Simulation::new();
    let is_fatal = |n: usize| n % 200 == 37;
    simulation.run(Duration::from_secs(150), Duration::from_millis(100), |numbers| {
        let (_, response) = fail_for(is_fatal)(numbers);
        (Duration::from_millis(200), response)
    });
    let innocent = simulation.lost.iter().filter(|n| !is_fatal(**n)).count();
    assert_eq!(innocent, 0, "of {} lost events", simulation.lost.len());
}

#[test]
fn they_do_not_block_the_others_when_their_requests_hang() {
    let mut simulation = Simulation::new();
    simulation.run(Duration::from_secs(100), INTERVAL, |numbers| {
        let hangs = numbers.iter().any(|n| n % 3000 == 37);
        (if hangs { Duration::from_secs(60) } else { LATENCY }, Classification::Delivered)
    });
    let batches = simulation.pending(Duration::from_secs(20)) / EVENTS;
    let hanging = simulation.logged / 3000;
    assert!(batches <= hanging, "{batches} batches wait, {hanging} of them hang");
}

/// A server that fails at random is overloaded rather than unable to process some events.
#[test]
fn a_failing_server_does_not_receive_more_requests_because_batches_are_split() {
    for percent in [30, 60, 90, 100] {
        let mut rng = fastrand::Rng::with_seed(percent);
        let mut simulation = Simulation::new();
        simulation.run(Duration::from_secs(60), INTERVAL, |_| {
            let fails = rng.u64(..100) < percent;
            (LATENCY, if fails { busy(None) } else { Classification::Delivered })
        });
        let batches = simulation.logged / EVENTS;
        assert!(simulation.requests < 2 * batches, "{percent}: {}", simulation.requests);
    }
}

#[test]
fn a_program_that_logs_rarely_is_not_delayed_for_long() {
    let mut simulation = Simulation::new();
    let is_fatal = |n: usize| n % 200 == 7;
    simulation.run(Duration::from_secs(600), Duration::from_secs(5), fail_for(is_fatal));
    let fatal = (0..simulation.logged).filter(|n| is_fatal(*n)).count();
    let settled = simulation.delivered.len() + simulation.lost.len();
    assert!(simulation.logged - settled <= fatal + EVENTS, "{settled} of {}", simulation.logged);
    assert!(simulation.lost.iter().all(|n| is_fatal(*n)), "{:?}", simulation.lost);
}

/// The server or a proxy limits requests to 100 bytes, and some events are larger.
#[test]
fn events_that_are_too_large_do_not_delay_the_others() {
    let too_large = || Classification::SplitBatch(LossReason::TooLarge, "413".to_owned());
    let unexpected = || Classification::UnexpectedResponse("413".to_owned());
    for single in [too_large, unexpected] {
        let mut simulation = Simulation::new();
        simulation.event = |n| format!("{n:>width$}\n", width = if n % 40 == 7 { 200 } else { 6 });
        simulation.run(Duration::from_secs(30), INTERVAL, |numbers| {
            let large = numbers.iter().filter(|n| *n % 40 == 7).count();
            let bytes = numbers.len() * 7 + large * 200;
            let response = match numbers.len() {
                _ if bytes <= 100 => Classification::Delivered,
                1 => single(),
                _ => too_large(),
            };
            (LATENCY, response)
        });
        let large = simulation.logged / 40;
        let pending = simulation.pending(Duration::from_secs(5));
        assert!(pending <= large, "{pending} events wait, {large} are too large");
        assert!(simulation.lost.iter().all(|n| n % 40 == 7), "{:?}", simulation.lost);
    }
}

#[test]
fn they_occupy_only_a_part_of_the_buffer() {
    let mut simulation = Simulation::new();
    simulation.dispatcher.options.max_refused_bytes = 20_000;
    let is_fatal = |n: usize| n % 100 == 37;
    simulation.run(Duration::from_secs(115), INTERVAL, fail_for(is_fatal));
    let held = simulation.dispatcher.retrying.iter().map(Batch::cost);
    assert!(held.sum::<usize>() <= 20_000);
    // Those that fail most often are lost first.
    let lost = simulation.lost.len();
    let fatal = simulation.lost.iter().filter(|n| is_fatal(**n)).count();
    assert!(lost > 100 && fatal * 10 > lost * 9, "{fatal} of {lost}");
}

/// The server is repaired, and a caller waits for all events.
#[test]
fn all_are_delivered_soon_after_one_is() {
    let mut simulation = Simulation::new();
    let is_fatal = |n: usize| n % 400 == 37;
    simulation.run(Duration::from_secs(60), INTERVAL, fail_for(is_fatal));
    assert!(simulation.pending(Duration::from_secs(20)) > 50);
    simulation.dispatcher.want_attempt(simulation.now);
    simulation.dispatcher.wait_until(simulation.now + Duration::from_secs(5), simulation.now);
    simulation.run(Duration::from_secs(5), INTERVAL, fail_for(|_| false));
    assert_eq!(simulation.pending(Duration::from_secs(1)), 0);
}

#[test]
fn callers_cause_few_requests_for_them() {
    let mut simulation = Simulation::new();
    let is_fatal = |n: usize| n % 400 == 37;
    simulation.run(Duration::from_secs(60), INTERVAL, fail_for(is_fatal));
    let before = simulation.requests;
    for _ in 0..100 {
        simulation.dispatcher.want_attempt(simulation.now);
        let deadline = simulation.now + Duration::from_millis(500);
        simulation.dispatcher.wait_until(deadline, simulation.now);
        simulation.run(Duration::from_millis(100), INTERVAL, fail_for(is_fatal));
    }
    // 50 new batches per second, and the events that are alone.
    let requests = simulation.requests - before;
    assert!(requests < 10 * (50 + 120), "{requests} requests in 10 s");
}

#[test]
fn a_failure_is_a_batchs_own_only_with_proof() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    (0..6).for_each(|_| dispatcher.offer(batch(2)));
    let tickets: Vec<_> = std::iter::from_fn(|| send(&mut dispatcher, now)).collect();
    dispatcher.handle_response(tickets[0], Classification::Delivered, now);
    dispatcher.handle_response(tickets[1], Classification::Delivered, now);
    dispatcher.handle_response(tickets[2], busy(None), now);
    assert!(!dispatcher.is_own_failure(), "an outage may have begun");
    dispatcher.handle_response(tickets[3], busy(None), now);
    assert!(dispatcher.is_own_failure(), "it was sent before the server accepted something");
    let ticket = send(&mut dispatcher, now).unwrap();
    dispatcher.handle_response(ticket, busy(None), now);
    assert!(!dispatcher.is_own_failure(), "nothing was accepted since");
}
