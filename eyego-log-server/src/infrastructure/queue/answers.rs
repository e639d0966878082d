//! Brings answers from an engine's thread to the tasks that wait for them, or
//! tells those that none came in time.
//!
//! Waking a task from outside its runtime costs a lock and often a system
//! call. An engine settles many requests at once: it wakes one task of ours in
//! each runtime, which wakes the others from within. That task also knows who
//! waits for too long, so that no request needs a timer.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::runtime::{Handle, Id};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

/// How exactly a timeout is kept.
const TICK: Duration = Duration::from_millis(250);

/// Whom answers go to.
#[derive(Debug)]
pub(super) struct Answers<T> {
    /// In ticks.
    timeout: u64,
    desks: RwLock<HashMap<Id, Desk<T>>>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// None came in time.
    Late,
    /// Who should answer is gone.
    Gone,
}

/// For the engine: answers one who waits.
#[derive(Debug)]
pub(super) struct Reply<T> {
    number: u64,
    settled: mpsc::UnboundedSender<Settled<T>>,
    is_sent: bool,
}

type Settled<T> = (u64, Result<T, NoAnswer>);

type Expected<T> = (Reply<T>, oneshot::Receiver<Result<T, NoAnswer>>);

/// Those who wait in one runtime.
#[derive(Debug)]
struct Desk<T> {
    waiting: Arc<Mutex<Waiting<T>>>,
    settled: mpsc::UnboundedSender<Settled<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    /// The number of the first.
    first: u64,
    /// In the order in which they came; empty where one is answered. The first
    /// of them never is.
    line: VecDeque<Option<Place<T>>>,
    tick: u64,
}

#[derive(Debug)]
struct Place<T> {
    since: u64,
    waiting: oneshot::Sender<Result<T, NoAnswer>>,
}

impl<T: Send + 'static> Answers<T> {
    /// Whoever waits for longer than this is told so.
    pub(super) fn within(timeout: Duration) -> Self {
        let ticks = timeout.as_millis().div_ceil(TICK.as_millis());
        Self { timeout: u64::try_from(ticks).unwrap_or(u64::MAX), desks: RwLock::default() }
    }

    /// What the engine answers with, and what it answers to the calling task.
    /// To be called within a runtime.
    pub(super) fn expect(&self) -> (Reply<T>, impl Future<Output = Result<T, NoAnswer>> + use<T>) {
        let here = Handle::current().id();
        let known = self.desks.read().get(&here).and_then(Desk::expect);
        let (reply, answer) = known.unwrap_or_else(|| self.open_desk(here));
        (reply, async { answer.await.unwrap_or(Err(NoAnswer::Gone)) })
    }

    fn open_desk(&self, here: Id) -> Expected<T> {
        let mut desks = self.desks.write();
        loop {
            if let Some(expected) = desks.get(&here).and_then(Desk::expect) {
                return expected;
            }
            desks.insert(here, Desk::open(self.timeout));
        }
    }
}

impl<T: Send + 'static> Desk<T> {
    fn open(timeout: u64) -> Self {
        const AT_ONCE: usize = 256;

        let waiting = Arc::new(Mutex::new(Waiting { first: 0, line: VecDeque::new(), tick: 0 }));
        let (settled, mut answered) = mpsc::unbounded_channel();
        let desk = Self { waiting: Arc::clone(&waiting), settled };
        tokio::spawn(async move {
            let mut answers = Vec::with_capacity(AT_ONCE);
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    // However busy the engine is, time passes.
                    biased;
                    _ = ticks.tick() => waiting.lock().tick(timeout),
                    number = answered.recv_many(&mut answers, AT_ONCE) => {
                        if number == 0 {
                            return;
                        }
                        let mut waiting = waiting.lock();
                        for (number, answer) in answers.drain(..) {
                            waiting.settle(number, answer);
                        }
                    }
                }
            }
        });
        desk
    }

    /// `None`: closed, with its runtime; an id is given again.
    fn expect(&self) -> Option<Expected<T>> {
        if self.settled.is_closed() {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        let number = waiting.first + waiting.line.len() as u64;
        let since = waiting.tick;
        waiting.line.push_back(Some(Place { since, waiting: sender }));
        Some((Reply { number, settled: self.settled.clone(), is_sent: false }, answer))
    }
}

impl<T> Waiting<T> {
    fn settle(&mut self, number: u64, answer: Result<T, NoAnswer>) {
        // Who was told already that it is late has left the line.
        let Some(place) = number.checked_sub(self.first) else { return };
        let place = usize::try_from(place).ok().and_then(|place| self.line.get_mut(place));
        if let Some(place) = place.and_then(Option::take) {
            // The caller may have hung up.
            let _ = place.waiting.send(answer);
        }
        self.close_up();
    }

    fn tick(&mut self, timeout: u64) {
        self.tick += 1;
        let tick = self.tick;
        let is_late = |place: &Place<T>| tick - place.since > timeout;
        while self.line.front().and_then(Option::as_ref).is_some_and(is_late) {
            if let Some(late) = self.line.pop_front().flatten() {
                let _ = late.waiting.send(Err(NoAnswer::Late));
            }
            self.first += 1;
            self.close_up();
        }
    }

    fn close_up(&mut self) {
        while self.line.front().is_some_and(Option::is_none) {
            self.line.pop_front();
            self.first += 1;
        }
    }
}

impl<T> Reply<T> {
    pub(super) fn send(mut self, answer: T) {
        self.is_sent = true;
        // Fails only when the runtime is gone, and with it who waits.
        let _ = self.settled.send((self.number, Ok(answer)));
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if !self.is_sent {
            let _ = self.settled.send((self.number, Err(NoAnswer::Gone)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_gets_its_own_answer_whatever_the_order() {
        let answers = Answers::within(Duration::from_secs(5));
        let mut expected: Vec<_> = (0..100).map(|_| answers.expect()).collect();
        let (mut replies, mut waiting) = (Vec::new(), Vec::new());
        for (number, (reply, answer)) in expected.drain(..).enumerate() {
            replies.push((number, reply));
            waiting.push(answer);
        }
        replies.sort_by_key(|(number, _)| number * 37 % 100);
        std::thread::spawn(move || {
            for (number, reply) in replies {
                reply.send(number);
            }
        });
        for (number, answer) in waiting.into_iter().enumerate() {
            assert_eq!(answer.await, Ok(number));
        }
    }

    #[tokio::test]
    async fn who_waits_for_too_long_is_told_and_holds_up_nobody() {
        let answers = Answers::within(2 * TICK);
        let started = std::time::Instant::now();
        let (late, first) = answers.expect();
        tokio::time::sleep(TICK).await;
        let (reply, second) = answers.expect();
        assert_eq!(first.await, Err(NoAnswer::Late));
        assert!(started.elapsed() >= 2 * TICK);
        late.send(1);
        reply.send(2);
        assert_eq!(second.await, Ok(2));
    }

    #[tokio::test]
    async fn an_engine_that_goes_is_no_answer() {
        let answers = Answers::<()>::within(Duration::from_secs(5));
        let (reply, answer) = answers.expect();
        drop(reply);
        assert_eq!(answer.await, Err(NoAnswer::Gone));
    }

    #[test]
    fn each_runtime_has_a_desk_of_its_own() {
        let answers = Arc::new(Answers::within(Duration::from_secs(5)));
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let answers = Arc::clone(&answers);
                std::thread::spawn(move || {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        for _ in 0..100 {
                            let (reply, answer) = answers.expect();
                            std::thread::spawn(move || reply.send(number));
                            assert_eq!(answer.await, Ok(number));
                        }
                    });
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
