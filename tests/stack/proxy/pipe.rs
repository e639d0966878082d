//! The two directions of one connection, each with its delay.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Conduct;

/// The largest read, in bytes.
const CHUNK: usize = 64 << 10;
/// The largest number of chunks in flight in one direction: 16 MiB on a delayed link.
const CHUNKS: usize = 256;

/// Forwards until both directions have ended or one has failed.
pub(super) async fn both_ways(near: TcpStream, far: TcpStream, conduct: watch::Receiver<Conduct>) {
    let _ = near.set_nodelay(true);
    let _ = far.set_nodelay(true);
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let forward = one_way(near_read, far_write, conduct.clone(), |conduct| conduct.forward);
    let backward = one_way(far_read, near_write, conduct, |conduct| conduct.backward);
    // An error ends both directions. A close is forwarded, and the other direction continues.
    let _ = tokio::try_join!(forward, backward);
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    conduct: watch::Receiver<Conduct>,
    delay: fn(&Conduct) -> Duration,
) -> std::io::Result<()> {
    // Reading continues while earlier chunks are delayed, so that latency does not cost throughput.
    let (due, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let watched = conduct.clone();
    let reading = async move {
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            let at = Instant::now() + delay(&watched.borrow());
            if due.send((at, buffer[..length].to_vec())).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async move {
        let mut conduct = conduct;
        while let Some((at, bytes)) = waiting.recv().await {
            tokio::time::sleep_until(at).await;
            stall_over(&mut conduct).await?;
            to.write_all(&bytes).await?;
        }
        stall_over(&mut conduct).await?;
        to.shutdown().await
    };
    tokio::try_join!(reading, writing).map(|((), ())| ())
}

/// Waits until no stall is active.
async fn stall_over(conduct: &mut watch::Receiver<Conduct>) -> std::io::Result<()> {
    let over = conduct.wait_for(|conduct| !conduct.is_stalled).await;
    over.map(drop).map_err(|_| std::io::ErrorKind::ConnectionAborted.into())
}
