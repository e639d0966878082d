//! Waiting for something to become true, with a deadline. Every wait of the tests goes through here.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// The first pause between two attempts. Each pause is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Calls `probe` until it succeeds, and returns its value.
///
/// `what` completes the sentence "timed out waiting for …". An error of the probe means "not yet",
/// and should show the value that it found. A panic in the probe ends the wait at once.
///
/// # Errors
/// Returns an error that holds `what` and the probe's last error if `timeout` passes first. An
/// attempt that is still running then is cancelled.
pub async fn eventually<T, Probe, Attempt>(
    what: &str,
    timeout: Duration,
    mut probe: Probe,
) -> Result<T>
where
    Probe: FnMut() -> Attempt,
    Attempt: Future<Output = Result<T>>,
{
    let deadline = tokio::time::Instant::now() + timeout;
    let (mut last, mut pause) = (None, FIRST_PAUSE);
    loop {
        match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = Some(error),
            Err(_) => return Err(timed_out(what, timeout, last)),
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(timed_out(what, timeout, last));
        }
        tokio::time::sleep_until(deadline.min(tokio::time::Instant::now() + pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The same as [`eventually`] for a probe that blocks, on a thread that may block.
///
/// # Errors
/// As [`eventually`], except that a running attempt is not cancelled.
pub fn eventually_blocking<T>(
    what: &str,
    timeout: Duration,
    mut probe: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match probe() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(timed_out(what, timeout, Some(error)));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn timed_out(what: &str, timeout: Duration, last: Option<anyhow::Error>) -> anyhow::Error {
    match last {
        Some(last) => last.context(format!("timed out after {timeout:?} waiting for {what}")),
        None => anyhow!("timed out after {timeout:?} waiting for {what}: no attempt finished"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::ensure;

    const SHORT: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn first_success_is_returned() {
        let mut attempts = 0;
        let value = eventually("the third attempt", Duration::from_secs(10), || {
            attempts += 1;
            std::future::ready(if attempts < 3 { Err(anyhow!("{attempts}")) } else { Ok(attempts) })
        });
        assert_eq!(value.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn error_says_what_was_awaited_and_what_was_seen_last() {
        let never = eventually("the impossible", SHORT, async || {
            ensure!(1 == 2, "one is one");
            Ok(())
        });
        let error = format!("{:#}", never.await.unwrap_err());
        assert!(error.contains("the impossible") && error.contains("one is one"), "{error}");
        let error = eventually_blocking("it", SHORT, || -> Result<()> { Err(anyhow!("no")) });
        assert!(format!("{:#}", error.unwrap_err()).ends_with("waiting for it: no"));
    }

    #[tokio::test]
    async fn an_attempt_that_hangs_is_cancelled() {
        let hanging = eventually("a reply", SHORT, std::future::pending::<Result<()>>);
        assert!(hanging.await.unwrap_err().to_string().contains("no attempt finished"));
    }
}
