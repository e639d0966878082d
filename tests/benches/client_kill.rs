//! Eight threads log with the SDK while the server is killed: each event must be stored once or counted as
//! lost, and the memory of the program must stay within its buffer and 30 MiB.
//!
//! `cargo bench -p eyego-log-tests --bench client_kill [-- EVENTS] [block|drop-newest|drop-oldest]`

#![expect(clippy::print_stdout, reason = "prints figures")]

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use stack::client_kill::{Policy, Run, log_and_report, run};
use stack::server::Server;

const EVENTS: u32 = 10_000_000;
const BUFFER_MIB: u64 = 256;
const TIMEOUT: Duration = Duration::from_secs(900);

fn main() -> Result<()> {
    if log_and_report()? {
        return Ok(());
    }
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let events = wanted.iter().find_map(|arg| arg.parse().ok()).unwrap_or(EVENTS);
    let policies = [
        ("block", Policy::Block),
        ("drop-newest", Policy::DropNewest),
        ("drop-oldest", Policy::DropOldest),
    ];
    let is_named = |name: &str| wanted.iter().any(|wanted| wanted == name);
    let all = !policies.iter().any(|(name, _)| is_named(name));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (name, policy) in policies {
        if !all && !is_named(name) {
            continue;
        }
        let begin = Instant::now();
        let outcome = runtime.block_on(async {
            let server = Server::builder().start().await?;
            let program = Command::new(std::env::current_exe()?);
            run(&server, program, Run { policy, events, buffer_mib: BUFFER_MIB, timeout: TIMEOUT })
                .await
        })?;
        let counted = outcome.counted;
        println!(
            "{name}: {} events = {} delivered + {} lost; {} stored, each once; {} failed requests; peak memory \
             {} MiB with a buffer of {BUFFER_MIB} MiB; {:.0?}",
            counted.accepted,
            counted.delivered,
            counted.lost,
            outcome.stored,
            counted.failed_requests,
            counted.peak_kib / 1024,
            begin.elapsed(),
        );
    }
    Ok(())
}
