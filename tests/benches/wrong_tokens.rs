//! Measures what 10,000 wrong tokens per second do to callers with a right one, and how many lines they
//! cause in the log.
//!
//! `cargo bench -p eyego-log-tests --bench wrong_tokens`

#![expect(clippy::print_stdout, reason = "prints figures")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use stack::keys::KeysFile;
use stack::load::{Load, Outcome, RequestFn, single_requests, with_token};
use stack::server::Server;

const WARM_UP: Duration = Duration::from_secs(5);
const SECONDS: Duration = Duration::from_secs(20);
/// Requests per second with the right token.
const RIGHT: u64 = 2_000;
/// Requests per second with a wrong token.
const WRONG: u64 = 10_000;
const CONNECTIONS: usize = 64;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<()> {
    let keys = KeysFile::new()?;
    let token = keys.add("right", &["ingest"])?;
    let server = Server::builder().env("EYEGO_KEYS_FILE", keys.path()).start().await?;
    let address = server.address();
    let right = with_token(single_requests(), &token);
    load(address, &right, RIGHT, WARM_UP).await?;
    let alone = load(address, &right, RIGHT, SECONDS).await?;
    report("right tokens alone", &alone);
    let lines = server.log().lines().count();
    let wrong = wrong_requests(&token);
    let (beside, refused) =
        tokio::join!(load(address, &right, RIGHT, SECONDS), load(address, &wrong, WRONG, SECONDS));
    let (beside, refused) = (beside?, refused?);
    report("right tokens beside the wrong ones", &beside);
    report("wrong tokens", &refused);
    let lines = server.log().lines().count() - lines;
    println!("{} requests with a wrong token caused {lines} lines in the log", refused.others);
    for outcome in [&alone, &beside] {
        ensure!(outcome.unavailable + outcome.others + outcome.broken == 0, "{outcome:?}");
    }
    ensure!(refused.accepted + refused.unavailable + refused.broken == 0, "{refused:?}");
    Ok(())
}

async fn load(
    address: SocketAddr,
    request: &Arc<RequestFn>,
    rate: u64,
    duration: Duration,
) -> Result<Outcome> {
    let (request, rate) = (Arc::clone(request), Some(rate));
    Load { address, connections: CONNECTIONS, duration, request, rate }.run().await
}

/// Makes requests with tokens that differ from one another: of the right key with another secret, and
/// of keys that do not exist.
fn wrong_requests(token: &str) -> Arc<RequestFn> {
    let secret = token.len() - 43;
    let variants: Vec<Arc<RequestFn>> = (0..64)
        .map(|n| {
            let id = if n % 2 == 0 { &token[..secret] } else { "eyego_unknown_" };
            with_token(single_requests(), &format!("{id}{n:043}"))
        })
        .collect();
    Arc::new(move |n| variants[usize::try_from(n).unwrap_or(0) % variants.len()](n))
}

fn report(name: &str, outcome: &Outcome) {
    println!(
        "{name}: {} of 2xx, {} of 503, {} others; p50 {:?}, p99 {:?}, p99.9 {:?}",
        outcome.accepted,
        outcome.unavailable,
        outcome.others,
        outcome.percentile(0.5),
        outcome.percentile(0.99),
        outcome.percentile(0.999)
    );
}
