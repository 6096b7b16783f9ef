//! Clients that take what others need: readers that do not read, uploads that do not move, requests that are taken back. Each
//! comes from an address of its own (any of 127.0.0.0/8 is ours), and comes back when it is cut.
#![allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Streams that an attacker opens on one HTTP/2 connection; for more it opens more connections.
const STREAMS: usize = 100;
/// How long an attacker that was cut stays away.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);
/// How long an HTTP/1.1 connection that reads nothing is held before it is replaced: it cannot see that it was cut.
const HOLD: Duration = Duration::from_secs(5);

/// How fast an attacker takes what it asked for, or says what it announced.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Not at all.
    Never,
    /// So many bytes each time.
    Each(usize, Duration),
}

/// One byte a second.
pub(crate) const BYTE: Pace = Pace::Each(1, Duration::from_secs(1));

/// How a body is announced.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Length {
    /// By Content-Length.
    Told(usize),
    /// Not at all: HTTP/1.1 sends chunks.
    Untold,
}

/// All that attackers have begun; it ends when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Attack {
    tasks: JoinSet<()>,
    progress: Arc<Progress>,
}

/// How far an attack is; comebacks count again.
#[derive(Debug, Default)]
struct Progress {
    /// Requests that were sent.
    asked: AtomicUsize,
    /// Answers that have begun, and bodies that were sent in part.
    begun: AtomicUsize,
}

impl Attack {
    /// Waits until so many requests were sent, and some have got as far as they ever will.
    pub(crate) async fn has_begun(&self, count: usize) {
        let far = |counter: &AtomicUsize, count| counter.load(Ordering::Relaxed) >= count;
        let both = || far(&self.progress.asked, count) && far(&self.progress.begun, count.min(40));
        crate::support::world::patiently("the attack is under way", both).await;
    }

    /// The same, and waits until no more begin, for five seconds at most: so many at once are work by themselves.
    pub(crate) async fn has_settled(&self, count: usize) {
        self.has_begun(count).await;
        let mut before = 0;
        for _ in 0..25 {
            let now = self.progress.begun.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Both end together.
    pub(crate) fn takes_in(&mut self, mut other: Self) {
        let others = std::mem::take(&mut other.tasks);
        self.tasks.spawn(async move {
            let _end_with_us = others.join_all().await;
        });
    }
}

/// One client with bad manners.
#[derive(Debug, Clone)]
pub(crate) struct Attacker {
    proxy: SocketAddr,
    from: IpAddr,
    /// What it says besides.
    pub(crate) fields: Vec<(&'static str, String)>,
}

/// What one attacker wants, many times.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) attacker: Attacker,
    /// `{n}` stands for the number of the request.
    path: String,
    pub(crate) pace: Pace,
    progress: Arc<Progress>,
}

impl Attacker {
    /// At this address.
    pub(crate) fn at(from: impl Into<IpAddr>, proxy: SocketAddr) -> Self {
        Self { proxy, from: from.into(), fields: Vec::new() }
    }

    /// The nth of many, each at an address of its own.
    pub(crate) fn number(n: usize, proxy: SocketAddr) -> Self {
        let n = u16::try_from(n).expect("few attackers").to_be_bytes();
        Self::at([127, 66, n[0], n[1]], proxy)
    }

    /// Behind a trusted proxy at 127.0.0.1, which says that this is the client.
    pub(crate) fn behind_proxy(client: &str, proxy: SocketAddr) -> Self {
        Self::at([127, 0, 0, 1], proxy).saying("x-forwarded-for", client)
    }

    /// With one more field.
    pub(crate) fn saying(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    fn wish(&self, attack: &Attack, path: &str, pace: Pace) -> Wish {
        let progress = Arc::clone(&attack.progress);
        Wish { attacker: self.clone(), path: path.to_owned(), pace, progress }
    }

    /// HTTP/2: so many GETs, a window of so many bytes for each answer, and a pace at which it is opened again.
    pub(crate) fn reads_http2(&self, attack: &mut Attack, path: &str, count: usize, window: u32, pace: Pace) {
        for first in (0..count).step_by(STREAMS) {
            let wish = self.wish(attack, path, pace);
            attack.tasks.spawn(wish.shares(first..count.min(first + STREAMS), window, None));
        }
    }

    /// HTTP/1.1: the same on a connection for each, whose receive buffer is small.
    pub(crate) fn reads_http1(&self, attack: &mut Attack, path: &str, count: usize, pace: Pace) {
        for number in 0..count {
            attack.tasks.spawn(self.wish(attack, path, pace).reads(number));
        }
    }

    /// HTTP/2: so many POSTs that begin with one byte and go on at this pace.
    pub(crate) fn sends_http2(
        &self,
        attack: &mut Attack,
        path: &str,
        count: usize,
        length: Length,
        pace: Pace,
    ) {
        for first in (0..count).step_by(STREAMS) {
            let wish = self.wish(attack, path, pace);
            attack.tasks.spawn(wish.shares(first..count.min(first + STREAMS), 65_535, Some(length)));
        }
    }

    /// HTTP/1.1: the same on a connection for each.
    pub(crate) fn sends_http1(
        &self,
        attack: &mut Attack,
        path: &str,
        count: usize,
        length: Length,
        pace: Pace,
    ) {
        for number in 0..count {
            attack.tasks.spawn(self.wish(attack, path, pace).sends(number, length));
        }
    }

    /// So many connections that say this and nothing more.
    pub(crate) fn stays(&self, attack: &mut Attack, count: usize, first: &str) {
        for _ in 0..count {
            attack.tasks.spawn(self.wish(attack, first, Pace::Never).stays());
        }
    }

    /// HTTP/2: requests that are taken back after `stay`, without end; a connection ends before the proxy would end it.
    pub(crate) fn resets(&self, attack: &mut Attack, path: &str, stay: Duration) {
        attack.tasks.spawn(self.wish(attack, path, Pace::Never).takes_back(stay));
    }

    /// HTTP/1.1: so many at once ask, and leave with RST after `stay`, without end.
    pub(crate) fn leaves(&self, attack: &mut Attack, path: &str, count: usize, stay: Duration) {
        for number in 0..count {
            attack.tasks.spawn(self.wish(attack, path, Pace::Never).leaves(number, stay));
        }
    }

    /// A connection as of somebody far away: small segments, so that the kernel does not take a megabyte at once.
    pub(crate) async fn connects(&self) -> io::Result<TcpStream> {
        let domain = if self.from.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_mss(1400)?;
        socket.set_recv_buffer_size(4096)?;
        socket.set_tcp_nodelay(true)?;
        let socket = TcpSocket::from_std_stream(socket.into());
        socket.bind(SocketAddr::new(self.from, 0))?;
        socket.connect(self.proxy).await
    }
}

impl Wish {
    pub(crate) fn asks(&self) {
        self.progress.asked.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn begins(&self) {
        self.progress.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn path(&self, number: usize) -> String {
        self.path.replace("{n}", &format!("{number}-{}", fastrand::u32(..)))
    }

    fn head(&self, method: &Method, number: usize) -> String {
        let fields = self.attacker.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let fields = fields.collect::<String>();
        format!("{method} {} HTTP/1.1\r\nHost: h\r\n{fields}", self.path(number))
    }

    /// Until the next byte is due.
    pub(crate) async fn waits(&self) {
        match self.pace {
            Pace::Never => std::future::pending().await,
            Pace::Each(_, every) => sleep(every).await,
        }
    }

    async fn reads(self, number: usize) {
        loop {
            let _cut = self.reads_once(number).await;
            sleep(PAUSE).await;
        }
    }

    async fn reads_once(&self, number: usize) -> io::Result<()> {
        let mut stream = self.attacker.connects().await?;
        stream.write_all(format!("{}\r\n", self.head(&Method::GET, number)).as_bytes()).await?;
        self.asks();
        stream.readable().await?;
        self.begins();
        let Pace::Each(count, every) = self.pace else {
            sleep(HOLD).await;
            return stream.set_zero_linger();
        };
        let mut taken = vec![0; count];
        loop {
            sleep(every).await;
            if stream.read(&mut taken).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn sends(self, number: usize, length: Length) {
        loop {
            let _cut = self.sends_once(number, length).await;
            sleep(PAUSE).await;
        }
    }

    async fn sends_once(&self, number: usize, length: Length) -> io::Result<()> {
        let mut stream = self.attacker.connects().await?;
        let (field, byte) = match length {
            Length::Told(length) => (format!("Content-Length: {length}"), "x"),
            Length::Untold => ("Transfer-Encoding: chunked".to_owned(), "1\r\nx\r\n"),
        };
        let head = format!("{}{field}\r\n\r\n{byte}", self.head(&Method::POST, number));
        stream.write_all(head.as_bytes()).await?;
        self.asks();
        self.begins();
        loop {
            tokio::select! {
                _answered = stream.readable() => return Ok(()),
                () = self.waits() => stream.write_all(byte.as_bytes()).await?,
            }
        }
    }

    async fn stays(self) {
        loop {
            let _cut = self.stays_once().await;
            sleep(PAUSE).await;
        }
    }

    async fn stays_once(&self) -> io::Result<()> {
        let mut stream = self.attacker.connects().await?;
        stream.write_all(self.path.as_bytes()).await?;
        self.asks();
        self.begins();
        while stream.read(&mut [0; 1024]).await? > 0 {}
        Ok(())
    }

    async fn leaves(self, number: usize, stay: Duration) {
        loop {
            if let Ok(mut stream) = self.attacker.connects().await {
                let head = format!("{}\r\n", self.head(&Method::GET, number));
                let _gone = stream.write_all(head.as_bytes()).await;
                self.asks();
                self.begins();
                sleep(stay).await;
                let _gone = stream.set_zero_linger();
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// How many kinds [`nth`] has.
pub(crate) const KINDS: usize = 8;

/// An attack of one kind by one client, and its name: for traffic that has attackers among it. The paths are of answers that
/// fit `upstream.buffer`, of answers that may not, and of what takes POSTs.
pub(crate) fn nth(
    kind: usize,
    proxy: SocketAddr,
    [small, large, upload]: [&str; 3],
) -> (&'static str, Attack) {
    let (mut attack, attacker) = (Attack::default(), Attacker::number(kind, proxy));
    let attacks = &mut attack;
    let name = match kind % KINDS {
        0 => {
            attacker.reads_http2(attacks, small, 300, 0, Pace::Never);
            "no window"
        }
        1 => {
            attacker.reads_http2(attacks, large, 300, 1, BYTE);
            "a window of one byte"
        }
        2 => {
            attacker.sends_http2(attacks, upload, 300, Length::Told(5000), Pace::Never);
            "stuck uploads"
        }
        3 => {
            attacker.sends_http1(attacks, upload, 300, Length::Untold, BYTE);
            "slow uploads"
        }
        4 => {
            attacker.reads_http1(attacks, large, 300, Pace::Never);
            "stuck readers"
        }
        5 => {
            attacker.reads_http1(attacks, small, 300, BYTE);
            "slow readers"
        }
        6 => {
            attacker.resets(attacks, small, Duration::from_millis(1));
            "resets"
        }
        _ => {
            attacker.leaves(attacks, small, 20, Duration::from_millis(1));
            "who leaves"
        }
    };
    (name, attack)
}
