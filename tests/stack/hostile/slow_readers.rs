//! Clients that ask for large responses, and then read a few bytes per second or nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Half of them ask for exports: as many as may run at once.
const READERS: usize = 8;
/// Small, so that the response does not fit in the buffers of the kernel.
const BUFFER: u32 = 4096;
const PAUSE: Duration = Duration::from_millis(200);

/// Reads slowly for this long. A connection that the server closes stays closed.
pub async fn read_slowly(address: SocketAddr, token: &str, duration: Duration) {
    let mut readers = JoinSet::new();
    for n in 0..READERS {
        let path = if n % 2 == 0 { "/api/v1/logs/export" } else { "/api/v1/logs?limit=1000" };
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        let is_silent = n % 4 < 2;
        readers.spawn(timeout(duration, async move {
            let Ok(mut stream) = connect(address, &request).await else { return };
            let mut byte = [0];
            while is_silent || matches!(stream.read(&mut byte).await, Ok(1)) {
                sleep(PAUSE).await;
            }
        }));
    }
    readers.join_all().await;
}

async fn connect(address: SocketAddr, request: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER)?;
    let mut stream = socket.connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}
