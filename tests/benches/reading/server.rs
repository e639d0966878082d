//! Reading from a server process: the export, and ingest beside readers.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stack::load::{Load, single_requests};
use stack::server::Server;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::Selection;

/// How long ingest is measured, alone and beside scans.
const LOAD: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(3);

/// Exports everything as NDJSON, and compares with a raw cursor that writes to a socket.
pub(crate) async fn export(
    server: &Server,
    events: u64,
    raw: impl FnOnce(TcpStream) -> Result<()> + Send,
) -> Result<()> {
    let idle = server.rss_bytes()?;
    // From now on, the peak is that of the export.
    std::fs::write(format!("/proc/{}/clear_refs", server.pid()?), "5")?;
    let began = Instant::now();
    let url = format!("{}/api/v1/logs/export", server.base_url());
    let mut response = reqwest::get(url).await?.error_for_status()?;
    let (mut bytes, mut lines) = (0, 0);
    while let Some(chunk) = response.chunk().await? {
        bytes += chunk.len();
        lines += memchr::memchr_iter(b'\n', &chunk).count() as u64;
    }
    ensure!(lines == events, "{lines} of {events} events were exported");
    let ours = began.elapsed().as_secs_f64();
    let peak = peak_rss_bytes(server)?;

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let began = Instant::now();
    let reader = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept()?;
        let mut buffer = vec![0; 64 << 10];
        while socket.read(&mut buffer)? > 0 {}
        std::io::Result::Ok(())
    });
    tokio::task::block_in_place(|| raw(TcpStream::connect(address)?))?;
    reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    let limit = began.elapsed().as_secs_f64();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "export as NDJSON: {:.0} events/s, {:.0} MB/s; raw cursor to a socket: {:.0} events/s; \
         {:.0} % of it (goal 70 %)",
        events as f64 / ours,
        bytes as f64 / ours / 1e6,
        events as f64 / limit,
        limit / ours * 100.0,
    );
    println!(
        "  memory of the server: {:.1} MiB idle, at most {:.1} MiB (goal: 32 MiB more)",
        mib(idle),
        mib(peak)
    );
    Ok(())
}

fn peak_rss_bytes(server: &Server) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()?))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Compares ingest of single events while four clients scan, and while 100 tails follow a user each or
/// all events, with ingest alone.
///
/// Beside programs that compute at idle priority, ingest loses what any work costs it that leaves no CPU
/// idle: a thread that wakes finds no idle CPU, and caches are shared.
pub(crate) async fn ingest_beside_readers(selected: &Selection, server: &Server) -> Result<()> {
    warm_up(server, WARM_UP).await?;
    let load = || ingest(server, LOAD);
    let base = server.base_url();
    for (scanners, tails, of_user, name) in [
        (0, 0, true, "programs at idle priority"),
        (0, 100, true, "100 tails of a user each"),
        (0, 100, false, "100 tails of everything"),
        (4, 0, true, "4 scans"),
        (4, 100, true, "4 scans and 100 tails of a user each"),
        (4, 100, false, "4 scans and 100 tails of everything"),
    ] {
        if !selected.contains(if tails == 0 { "scans" } else { "tails" }) {
            continue;
        }
        let before = load().run().await?.rate();
        let idlers = if scanners + tails == 0 { idlers()? } else { Vec::new() };
        let mut readers = JoinSet::new();
        let scans = Arc::new(AtomicU64::new(0));
        for _ in 0..scanners {
            readers.spawn(scan(format!("{base}/api/v1/logs?metadata.n=-1"), Arc::clone(&scans)));
        }
        for n in 0..tails {
            let query = if of_user { format!("userId=user-{n}") } else { String::new() };
            let tail = reqwest::get(format!("{base}/api/v1/logs/tail?{query}")).await?;
            readers.spawn(drain(tail.error_for_status()?));
        }
        let beside = load().run().await?;
        readers.shutdown().await;
        drop(idlers);
        let after = load().run().await?.rate();
        let alone = f64::midpoint(before, after);
        println!(
            "ingest of single events: {alone:.0}/s alone, {:.0}/s beside {name}: {:.0} % (goal 80 %); \
             p99 {:.1?} and {} finished scans beside them",
            beside.rate(),
            beside.rate() / alone * 100.0,
            beside.percentile(0.99),
            scans.load(Ordering::Relaxed),
        );
    }
    Ok(())
}

/// Ingests single events for a while.
pub(crate) async fn warm_up(server: &Server, duration: Duration) -> Result<()> {
    server.wait_ready(Duration::from_secs(30)).await?;
    ingest(server, duration).run().await?;
    Ok(())
}

fn ingest(server: &Server, duration: Duration) -> Load {
    Load {
        address: server.address(),
        connections: 64,
        duration,
        request: single_requests(),
        rate: None,
    }
}

/// Starts a program for each CPU that computes whenever the CPU would be idle, until dropped.
fn idlers() -> Result<Vec<Child>> {
    let start = |_| {
        Command::new("chrt")
            .args(["--idle", "0", "sh", "-c", "while :; do :; done"])
            .kill_on_drop(true)
            .spawn()
            .context("chrt of util-linux")
    };
    (0..std::thread::available_parallelism()?.get()).map(start).collect()
}

/// Scans again and again. A scan that exceeds its time limit is followed by the next one.
async fn scan(url: String, finished: Arc<AtomicU64>) {
    while let Ok(response) = reqwest::get(&url).await {
        if response.status().is_success() && response.bytes().await.is_ok() {
            finished.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Reads until the response ends.
async fn drain(mut response: reqwest::Response) {
    while let Ok(Some(_)) = response.chunk().await {}
}
