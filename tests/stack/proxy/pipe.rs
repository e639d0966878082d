//! The two directions of one connection, each with its delay.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Conduct;

/// Read at once at most.
const CHUNK: usize = 64 << 10;
/// Chunks under way in a direction at most: what a delayed link holds, 16 MiB.
const CHUNKS: usize = 256;

/// Forwards until both directions have ended, or one of them broke.
pub(super) async fn both_ways(near: TcpStream, far: TcpStream, conduct: watch::Receiver<Conduct>) {
    let _ = near.set_nodelay(true);
    let _ = far.set_nodelay(true);
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let forth = one_way(near_read, far_write, conduct.clone(), |conduct| conduct.forth);
    let back = one_way(far_read, near_write, conduct, |conduct| conduct.back);
    // An error of one ends both; a close is passed on, and the other direction goes on.
    let _ = tokio::try_join!(forth, back);
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    conduct: watch::Receiver<Conduct>,
    delay: fn(&Conduct) -> Duration,
) -> std::io::Result<()> {
    // Reading goes on while earlier chunks wait for their time: latency must not cost throughput.
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
            forwarding(&mut conduct).await?;
            to.write_all(&bytes).await?;
        }
        forwarding(&mut conduct).await?;
        to.shutdown().await
    };
    tokio::try_join!(reading, writing).map(|((), ())| ())
}

/// Waits out a stall.
async fn forwarding(conduct: &mut watch::Receiver<Conduct>) -> std::io::Result<()> {
    let over = conduct.wait_for(|conduct| !conduct.is_stalled).await;
    over.map(drop).map_err(|_| std::io::ErrorKind::ConnectionAborted.into())
}
