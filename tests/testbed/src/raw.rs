//! TCP peer that follows its script, byte by byte: for the edge of the proxy.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Step of a script.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads until the empty line that ends a request head; the bytes are recorded.
    ReadHead,
    /// Reads so many bytes; they are recorded.
    Read(usize),
    /// Writes these bytes.
    Write(Bytes),
    /// Writes these bytes one by one, with a pause before each.
    Dribble(Bytes, Duration),
    /// Waits.
    Pause(Duration),
    /// Stays connected and silent until [`Peer::releases`], or for ever.
    Stall,
    /// Ends with RST.
    Reset,
    /// Ends the sending side only.
    HalfClose,
    /// Ends with FIN. (So does the end of a script.)
    Close,
}

/// Reads a head, then writes an answer: the usual start of a script.
pub fn answers(bytes: impl Into<Bytes>) -> Vec<Step> {
    vec![Step::ReadHead, Step::Write(bytes.into())]
}

/// A whole answer with `Content-Length`.
pub fn ok(body: &str) -> Bytes {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
}

/// A head that promises `promised` bytes, and only this much of the body.
pub fn half_body(promised: usize, body: &str) -> Bytes {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {promised}\r\n\r\n{body}").into()
}

#[derive(Debug, Default)]
struct Record {
    heads: Mutex<Vec<Bytes>>,
    arrived: watch::Sender<usize>,
    connections: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

/// A listener on port 0 of 127.0.0.1. Each connection plays a script; the last script is played again for further ones.
#[derive(Debug)]
pub struct Peer {
    address: SocketAddr,
    record: Arc<Record>,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// Plays one script on every connection.
    pub async fn start(script: Vec<Step>) -> Self {
        Self::scripted(vec![script]).await
    }

    /// Plays the first script on the first connection, and so on; the last one for all that follow.
    pub async fn scripted(scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("a bound address");
        let record = Arc::new(Record::default());
        let kept = Arc::clone(&record);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            for turn in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                record.connections.send_modify(|count| *count += 1);
                let script = scripts.get(turn).or(scripts.last()).cloned().unwrap_or_default();
                let record = Arc::clone(&record);
                connections.spawn(async move { play(stream, script, &record).await.unwrap_or_default() });
            }
        });
        Self { address, record: kept, task }
    }

    /// Listening address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:{port}`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes that [`Step::ReadHead`] and [`Step::Read`] got, in order.
    pub fn heads(&self) -> Vec<Bytes> {
        self.record.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for so many recorded heads, and gives them as text.
    pub async fn heads_at_least(&self, count: usize) -> Vec<String> {
        self.reached(&self.record.arrived, count).await;
        self.heads().iter().map(|head| String::from_utf8_lossy(head).into_owned()).collect()
    }

    /// Waits for so many connections.
    pub async fn connections_at_least(&self, count: usize) {
        self.reached(&self.record.connections, count).await;
    }

    async fn reached(&self, counter: &watch::Sender<usize>, count: usize) {
        let mut counter = counter.subscribe();
        let waited = Duration::from_secs(20);
        let reached = tokio::time::timeout(waited, counter.wait_for(|now| *now >= count)).await;
        assert!(reached.is_ok(), "the raw peer never got {count}; heads so far: {:?}", self.heads());
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        *self.record.connections.borrow()
    }

    /// Ends every [`Step::Stall`], now and later.
    pub fn releases(&self) {
        self.record.released.send_replace(true);
    }
}

async fn play(mut stream: TcpStream, script: Vec<Step>, record: &Record) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    for step in script {
        match step {
            Step::ReadHead => note(record, read_head(&mut stream).await?),
            Step::Read(count) => {
                let mut bytes = vec![0; count];
                stream.read_exact(&mut bytes).await?;
                note(record, bytes);
            }
            Step::Write(bytes) => stream.write_all(&bytes).await?,
            Step::Dribble(bytes, pause) => {
                for byte in bytes {
                    tokio::time::sleep(pause).await;
                    stream.write_all(&[byte]).await?;
                }
            }
            Step::Pause(pause) => tokio::time::sleep(pause).await,
            Step::Stall => {
                let mut released = record.released.subscribe();
                let _released = released.wait_for(|released| *released).await;
            }
            Step::Reset => {
                stream.set_zero_linger()?;
                return Ok(());
            }
            Step::HalfClose => stream.shutdown().await?,
            Step::Close => return Ok(()),
        }
    }
    Ok(())
}

fn note(record: &Record, bytes: Vec<u8>) {
    record.heads.lock().unwrap_or_else(PoisonError::into_inner).push(bytes.into());
    record.arrived.send_modify(|count| *count += 1);
}

/// Reads up to and including the empty line. Byte by byte: later bytes belong to the next step.
async fn read_head(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}
