//! A server of raw sockets, which misbehaves until it is told to behave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};

/// What a server does with each connection while it misbehaves. An error, such as
/// a connection that the client has closed, ends the connection.
pub(crate) type Misbehavior = fn(&mut Connection) -> std::io::Result<()>;

pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    behaves: AtomicBool,
    requests: AtomicUsize,
}

/// A request that was received as a whole.
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) events: usize,
}

impl Connection {
    /// Receives a request.
    pub(crate) fn receive(&mut self) -> std::io::Result<Received> {
        let mut reader = BufReader::new(&self.stream);
        let (mut path, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            match line.split_once(": ") {
                _ if line.is_empty() => break,
                Some(("content-length", value)) => length = value.parse().unwrap(),
                None => path = line.split(' ').nth(1).unwrap().to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        self.shared.requests.fetch_add(1, Ordering::SeqCst);
        let events = body.iter().filter(|byte| **byte == b'\n').count();
        Ok(Received { path, events })
    }

    pub(crate) fn write(&mut self, text: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(text.as_ref())
    }

    /// Receives one request after the other, and responds to each until the server
    /// behaves.
    pub(crate) fn respond<T: AsRef<[u8]>>(
        &mut self,
        response: impl Fn(&Received) -> T,
    ) -> std::io::Result<()> {
        loop {
            let received = self.receive()?;
            if self.shared.behaves.load(Ordering::SeqCst) {
                self.write(accepted(&received))?;
            } else {
                self.write(response(&received))?;
            }
        }
    }

    /// Writes the same text again and again, with a pause after each.
    pub(crate) fn repeat(&mut self, text: &[u8], pause: Duration) -> std::io::Result<()> {
        loop {
            self.write(text)?;
            std::thread::sleep(pause);
        }
    }

    /// Keeps the connection open until the client closes it.
    pub(crate) fn hold(&mut self) -> std::io::Result<()> {
        while self.stream.read(&mut [0; 1024])? > 0 {}
        Ok(())
    }
}

/// Formats a response.
pub(crate) fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// The response of an eyego-log server that accepts all events.
pub(crate) fn accepted(received: &Received) -> String {
    let body = format!(r#"{{"status":"success","accepted":{},"rejected":[]}}"#, received.events);
    response("202 Accepted", "content-type: application/json\r\n", &body)
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    /// A socket that does not listen, so that connections are refused and nobody else gets the port.
    refusing: Mutex<Option<OwnedFd>>,
}

impl Server {
    /// Starts a server. Without a misbehavior, it refuses connections.
    pub(crate) fn start(misbehavior: Option<Misbehavior>) -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
        let server = Self { address, shared: Arc::default(), refusing: Mutex::default() };
        match misbehavior {
            Some(misbehavior) => server.accept(socket, misbehavior),
            None => *server.refusing.lock().unwrap() = Some(socket),
        }
        server
    }

    fn accept(&self, socket: OwnedFd, misbehavior: Misbehavior) {
        rustix::net::listen(&socket, 128).unwrap();
        let listener = TcpListener::from(socket);
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut connection =
                    Connection { stream: stream.unwrap(), shared: Arc::clone(&shared) };
                std::thread::spawn(move || {
                    // Ends a connection that was opened while the server misbehaved.
                    let timeout = Some(Duration::from_secs(30));
                    connection.stream.set_read_timeout(timeout).unwrap();
                    connection.stream.set_write_timeout(timeout).unwrap();
                    if connection.shared.behaves.load(Ordering::SeqCst) {
                        connection.respond(accepted)
                    } else {
                        misbehavior(&mut connection)
                    }
                });
            }
        });
    }

    /// Returns the number of requests that were received as a whole.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Accepts all events from now on, except on connections that hang.
    pub(crate) fn behave(&self) {
        self.shared.behaves.store(true, Ordering::SeqCst);
        if let Some(socket) = self.refusing.lock().unwrap().take() {
            self.accept(socket, |connection| connection.respond(accepted));
        }
    }
}
