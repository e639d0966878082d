//! Attacks on a server, each repeated until a deadline. The program `attacks` runs all of them at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Mutator, Request, exchange, read_slowly, worst_inputs};

/// Slow senders, and the time that each holds its connection.
const SLOW_SENDERS: u64 = 16;
const SLOW_TIME: Duration = Duration::from_secs(30);
/// Connections that are opened at once and then do nothing.
const FLOOD: usize = 400;

/// Statuses of the responses to one attack and how often each occurred. 0: no response.
pub type Statuses = BTreeMap<u16, u64>;

/// The target of the attacks.
#[derive(Debug, Clone)]
pub struct Victim {
    /// The address.
    pub address: SocketAddr,
    /// A token with every scope that the attackers have.
    pub token: String,
    /// When the attacks end.
    pub deadline: Instant,
}

impl Victim {
    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    async fn send(&self, request: Request, statuses: &mut Statuses) {
        self.send_as(&self.token, request, statuses).await;
    }

    async fn send_as(&self, token: &str, mut request: Request, statuses: &mut Statuses) {
        request.headers.retain(|(name, _)| name != "authorization");
        let authorization = format!("Bearer {token}").into_bytes();
        request.headers.push(("authorization".to_owned(), authorization));
        let response = exchange(self.address, &request.to_bytes()).await;
        *statuses.entry(response.map_or(0, |response| response.status)).or_default() += 1;
    }
}

/// Runs all attacks until the deadline. Returns the statuses of the responses by attack.
///
/// # Panics
/// Panics if an attack does.
pub async fn run_all(victim: &Victim, seed: u64) -> BTreeMap<&'static str, Statuses> {
    let mut attacks: JoinSet<(&str, Statuses)> = JoinSet::new();
    for n in 0..SLOW_SENDERS {
        attacks.spawn(slow_sender(victim.clone(), n));
    }
    attacks.spawn(slow_readers(victim.clone()));
    attacks.spawn(hostile_bodies(victim.clone()));
    attacks.spawn(bombs(victim.clone()));
    for n in 0..4 {
        attacks.spawn(large_pages(victim.clone(), n));
        attacks.spawn(scans(victim.clone(), n));
    }
    for _ in 0..2 {
        attacks.spawn(wrong_tokens(victim.clone()));
    }
    attacks.spawn(connection_flood(victim.clone()));
    for n in 0..2 {
        attacks.spawn(random_requests(victim.clone(), seed.wrapping_add(n)));
    }
    let mut all = BTreeMap::<&str, Statuses>::new();
    for (name, statuses) in attacks.join_all().await {
        let sum = all.entry(name).or_default();
        for (status, count) in statuses {
            *sum.entry(status).or_default() += count;
        }
    }
    all
}

/// Sends the beginning of a large batch, and then a byte per second; or only a part of a head.
async fn slow_sender(victim: Victim, n: u64) -> (&'static str, Statuses) {
    let head = format!(
        "POST /api/v1/logs/batch HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-type: application/x-ndjson\r\n",
        victim.token
    );
    let mut bytes = head.into_bytes();
    if !n.is_multiple_of(4) {
        bytes.extend_from_slice(b"content-length: 16777216\r\n\r\n");
        let size = usize::try_from(n % 4).unwrap_or_default() << 22;
        bytes.resize(bytes.len() + size, b'\n');
    }
    let mut statuses = Statuses::new();
    while !victim.is_over() {
        let began = Instant::now();
        if let Ok(mut stream) = TcpStream::connect(victim.address).await {
            let trickle = async {
                stream.write_all(&bytes).await?;
                while began.elapsed() < SLOW_TIME && !victim.is_over() {
                    stream.write_all(b"\n").await?;
                    sleep(Duration::from_secs(1)).await;
                }
                std::io::Result::Ok(())
            };
            let _ = tokio::time::timeout(SLOW_TIME * 2, trickle).await;
        }
        *statuses.entry(0).or_default() += 1;
        sleep(Duration::from_millis(200)).await;
    }
    ("slow senders", statuses)
}

async fn slow_readers(victim: Victim) -> (&'static str, Statuses) {
    let mut statuses = Statuses::new();
    while !victim.is_over() {
        let left = victim.deadline.saturating_duration_since(Instant::now());
        read_slowly(victim.address, &victim.token, left.min(SLOW_TIME)).await;
        *statuses.entry(0).or_default() += 8;
    }
    ("slow readers", statuses)
}

async fn hostile_bodies(victim: Victim) -> (&'static str, Statuses) {
    let mut statuses = Statuses::new();
    let inputs: Vec<_> = worst_inputs().into_iter().map(|input| input.request).collect();
    for request in inputs.into_iter().cycle() {
        if victim.is_over() {
            break;
        }
        victim.send(request, &mut statuses).await;
    }
    ("hostile bodies and queries", statuses)
}

async fn bombs(victim: Victim) -> (&'static str, Statuses) {
    let mut statuses = Statuses::new();
    let bombs = worst_inputs().into_iter().filter(|input| input.name.starts_with("bomb"));
    let bombs: Vec<_> = bombs.map(|input| input.request).collect();
    for request in bombs.into_iter().cycle() {
        if victim.is_over() {
            break;
        }
        victim.send(request, &mut statuses).await;
    }
    ("compressed bombs", statuses)
}

async fn large_pages(victim: Victim, n: u64) -> (&'static str, Statuses) {
    let paths = ["/api/v1/logs?limit=1000&action=LARGE", "/api/v1/logs/export?action=LARGE"];
    let path = paths[usize::from(n % 2 == 1)];
    let mut statuses = Statuses::new();
    while !victim.is_over() {
        victim.send(Request::get(path), &mut statuses).await;
    }
    ("large pages and exports", statuses)
}

async fn scans(victim: Victim, n: u64) -> (&'static str, Statuses) {
    let path = match n % 2 {
        0 => "/api/v1/logs?metadata.nothing.of.this=exists",
        _ => {
            "/api/v1/stats?from=2020-01-01T00:00:00Z&to=2030-01-01T00:00:00Z&by=metadata.n&top=100"
        }
    };
    let mut statuses = Statuses::new();
    while !victim.is_over() {
        victim.send(Request::get(path), &mut statuses).await;
    }
    ("scans and statistics", statuses)
}

async fn wrong_tokens(victim: Victim) -> (&'static str, Statuses) {
    let mut statuses = Statuses::new();
    while !victim.is_over() {
        let request = Request::get("/api/v1/logs");
        let token = format!("eyego_x_{}", "A".repeat(43));
        victim.send_as(&token, request, &mut statuses).await;
    }
    ("wrong tokens", statuses)
}

async fn connection_flood(victim: Victim) -> (&'static str, Statuses) {
    let mut statuses = Statuses::new();
    while !victim.is_over() {
        let mut open = Vec::new();
        for _ in 0..FLOOD {
            open.extend(TcpStream::connect(victim.address).await);
        }
        *statuses.entry(0).or_default() += open.len() as u64;
        sleep(Duration::from_secs(1)).await;
    }
    ("connection flood", statuses)
}

async fn random_requests(victim: Victim, seed: u64) -> (&'static str, Statuses) {
    let mut mutator = Mutator::new(seed);
    let mut statuses = Statuses::new();
    while !victim.is_over() {
        victim.send(mutator.request(), &mut statuses).await;
    }
    ("random requests", statuses)
}
