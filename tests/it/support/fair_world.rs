//! The shipped configuration before one host, in a process of its own, and clients who behave well while others do not.
#![allow(clippy::print_stdout, reason = "figures, for those who ask with --nocapture")]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use testbed::{Client, Gateway, Page, Testbed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::sync::{Mutex, MutexGuard};

use crate::support::attackers::{Attack, Attacker};
use crate::support::process::{Process, Usage};
use crate::support::world::{asks_until, folder_of};

/// One attack at a time, so that each is measured alone.
static TURN: Mutex<()> = Mutex::const_new(());
const TILE: &str = "0,0,256,256/64,/0/default.jpg";
/// Nobody who behaves well waits longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// The 99th percentile, with a debug build and on a machine that has other things to do; an eighth of it for a release build.
const P99: Duration = Duration::from_secs(2);
/// Memory for bodies by default, in KiB; a client may have a quarter.
pub(crate) const BUDGET: u64 = 256 << 10;
/// What connections, streams and their buffers may cost besides.
const BESIDES: u64 = 96 << 10;
const HONEST: usize = 512 << 10;

/// Whom a request is from.
#[derive(Debug, Clone)]
struct Honest {
    client: Client,
    fields: Vec<(&'static str, String)>,
}

/// iiif-mender, and all that it stands before.
pub(crate) struct Fair {
    pub(crate) bed: Testbed,
    pub(crate) gateway: Gateway,
    pub(crate) process: Process,
    pages: Vec<Page>,
    /// Pages that are lost again and again.
    lost: Vec<Page>,
    at_rest: Usage,
    trusts: bool,
    _folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Fair {
    /// As shipped.
    pub(crate) async fn start() -> Self {
        Self::with("", "").await
    }

    /// With lines of `[server]`, and with further tables.
    pub(crate) async fn with(server: &str, tables: &str) -> Self {
        let books = Testbed::builder().page_size(600, 800).book("obj/book", 5).book("obj/lost", 12);
        Self::over(books.book("obj/thick", 150).start().await, server, tables).await
    }

    /// Before a testbed of one's own, with `obj/book` and `obj/lost` in it.
    pub(crate) async fn over(bed: Testbed, server: &str, tables: &str) -> Self {
        let gateway = Gateway::start(&bed);
        let folder = folder_of(&bed);
        let origin = gateway.origin();
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\npublic_hosts = [\"api.library.tamu.edu\"]\n{server}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\nsetup_check = \"0s\"\n[log]\nformat = \"json\"\nfilter = \"info,iiif_mender::proxy=warn\"\n\
             [[index.sources]]\npath = \"manifests\"\n{tables}\n\
             [[routes]]\nprefix = \"/iiif/2/\"\nupstream = \"{origin}/iiif/2/\"\nkind = \"image\"\nhealth = \"/iiif/2\"\n\
             [[routes]]\nprefix = \"/iiif-service/\"\nupstream = \"{origin}/iiif-service/\"\nkind = \"presentation\"\n\
             [[routes]]\nprefix = \"/\"\nupstream = \"{origin}/\"\nkind = \"plain\"\n\
             [upstream.health]\ninterval = \"500ms\"\n"
        );
        std::fs::write(folder.path().join("config.toml"), text).expect("a file");
        let turn = TURN.lock().await;
        let process = Process::start(folder.path());
        // The echo comes back through us.
        bed.service.image_server_url(format!("http://{}/iiif/2", process.viewers));
        let images = bed.pages().len() as f64;
        let indexed = async || process.metric("iiif_mender_index_images").await;
        asks_until("the index is built", indexed, |indexed| *indexed >= images).await;
        let (pages, lost) = (bed.pages_of("obj/book"), bed.pages_of("obj/lost"));
        let at_rest = process.usage();
        let trusts = server.contains("trusted_proxies");
        Self { bed, gateway, process, pages, lost, at_rest, trusts, _folder: folder, _turn: turn }
    }

    pub(crate) fn proxy(&self) -> SocketAddr {
        self.process.viewers
    }

    pub(crate) fn attacker(&self, number: usize) -> Attacker {
        Attacker::number(number, self.proxy())
    }

    /// The nth client: at an address of its own, or behind the trusted proxy under one.
    fn honest(&self, n: u8) -> Honest {
        if self.trusts {
            let forwarded = ("x-forwarded-for", format!("2001:db8:9:{n}::1"));
            return Honest { client: Client::at([127, 0, 0, 1].into()), fields: vec![forwarded] };
        }
        Honest { client: Client::at([127, 9, 0, n].into()), fields: Vec::new() }
    }

    /// While this attack is under way, everybody else is served: tiles, info.json, manifests, canvases and plain ones, heals
    /// with their echoes, health checks, a slow reader and a slow upload that move. `quarters`: how many of the memory for
    /// bodies the attackers may have.
    pub(crate) async fn others_are_served(&self, what: &str, attack: Attack, quarters: u64) {
        self.others_are_served_and_healed(what, attack, quarters, PATIENCE).await;
    }

    /// The same where heals have to queue at the canvas service, behind those of many other viewers.
    pub(crate) async fn others_are_served_and_healed(
        &self,
        what: &str,
        attack: Attack,
        quarters: u64,
        patience: Duration,
    ) {
        let healed = self.process.metric("iiif_mender_heals_total").await;
        let everybody = join_all((1..9).map(|n| self.asks(self.honest(n), usize::from(n))));
        let (answers, heals, slow, upload, ()) = tokio::join!(
            everybody,
            self.heals(patience),
            self.reads_slowly(),
            self.sends_slowly(),
            self.is_checked()
        );
        let (mut times, mut wrong) = (Vec::new(), Vec::new());
        for (took, ended) in answers.into_iter().flatten() {
            times.push(took);
            wrong.extend(ended.err());
        }
        times.sort_unstable();
        let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
        let usage = self.process.usage();
        println!(
            "{what}: {} others' requests, p50 {:.0?}, p99 {:.0?}, slowest {:.0?}, {} wrong; 6 heals, slowest {heals:.0?}; \
             slow reader {slow:.1?}, slow upload {upload:.1?}; peak {} KiB above {}, {usage}",
            times.len(),
            at(50),
            at(99),
            at(100),
            wrong.len(),
            usage.peak_kib - self.at_rest.resident_kib,
            self.at_rest.resident_kib,
        );
        assert!(wrong.is_empty(), "{what}: {wrong:#?}");
        let p99 = if std::env::var_os("IIIF_MENDER_TEST_BINARY").is_some() { P99 / 8 } else { P99 };
        assert!(at(99) <= p99, "{what}: p99 {:?}", at(99));
        assert_eq!(times.len(), 8 * 25);
        let (slowest_heal, slow, upload) =
            (heals.expect("heals"), slow.expect("a slow reader"), upload.expect("an upload"));
        assert!(slowest_heal < patience && slow < 3 * PATIENCE && upload < 3 * PATIENCE);
        assert!(self.process.metric("iiif_mender_heals_total").await >= healed + 6.0, "{what}: heals");
        let most = BUDGET / 4 * quarters + BESIDES;
        assert!(usage.peak_kib - self.at_rest.resident_kib < most, "{what}: {usage}");
        drop(attack);
        self.rests(what).await;
    }

    /// All places and all memory come back when the attackers leave.
    async fn rests(&self, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        for gauge in
            ["iiif_mender_upstream_in_flight", "iiif_mender_held_bytes", "iiif_mender_waiting_viewers"]
        {
            while self.process.metric(gauge).await != 0.0 {
                assert!(Instant::now() < deadline, "{what}: {gauge} never came back to zero");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Requests of one client, one after the other. The first that goes wrong is the last.
    async fn asks(&self, honest: Honest, client: usize) -> Vec<(Duration, Result<(), String>)> {
        let mut every = tokio::time::interval(Duration::from_millis(25));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen = Vec::new();
        for turn in 0..25 {
            every.tick().await;
            let page = &self.pages[(client + turn) % self.pages.len()];
            let (path, body) = match turn % 5 {
                0 | 1 => (page.image_path(TILE), Some(page.picture(TILE))),
                2 => (page.info_path(), None),
                3 if turn % 2 == 0 => (page.presentation_path.clone(), None),
                3 => (page.canvas_path.clone(), None),
                _ => (format!("/plain/{client}/{turn}"), Some(Bytes::from_static(b"here"))),
            };
            let began = Instant::now();
            let ended = self.asks_once(&honest, &path, body, PATIENCE).await;
            let failed = ended.is_err();
            seen.push((began.elapsed(), ended));
            if failed {
                break;
            }
        }
        seen
    }

    async fn asks_once(
        &self,
        honest: &Honest,
        path: &str,
        body: Option<Bytes>,
        patience: Duration,
    ) -> Result<(), String> {
        let fields: Vec<_> = honest.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let url = self.process.url(path);
        match tokio::time::timeout(patience, honest.client.get(&url, &fields)).await {
            Err(_) => Err(format!("{path}: no answer in {patience:?}")),
            Ok(Err(error)) => Err(format!("{path}: {error}")),
            Ok(Ok(answer)) if answer.status != 200 => {
                Err(format!("{path}: {} {}", answer.status, answer.text()))
            }
            Ok(Ok(answer)) if body.is_some_and(|body| body != answer.body) => {
                Err(format!("{path}: wrong bytes"))
            }
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// Six pages are lost and healed, one after the other; how long the slowest took.
    async fn heals(&self, patience: Duration) -> Result<Duration, String> {
        let (honest, mut slowest) = (self.honest(100), Duration::ZERO);
        for page in self.lost.iter().step_by(2) {
            self.bed.expires(&page.identifier);
            let began = Instant::now();
            self.asks_once(&honest, &page.image_path(TILE), Some(page.picture(TILE)), patience).await?;
            slowest = slowest.max(began.elapsed());
        }
        Ok(slowest)
    }

    /// Somebody far away reads half a megabyte piece by piece, and gets all of it.
    async fn reads_slowly(&self) -> Result<Duration, String> {
        let began = Instant::now();
        let head = format!("GET /plain/sized-{HONEST} HTTP/1.1\r\nConnection: close\r\n");
        let mut stream = self.says(101, &head).await.map_err(|error| error.to_string())?;
        let (mut seen, mut piece) = (Vec::new(), vec![0; 32 << 10]);
        loop {
            tokio::time::sleep(Duration::from_millis(40)).await;
            match tokio::time::timeout(PATIENCE, stream.read(&mut piece)).await {
                Ok(Ok(0)) => break,
                Ok(Ok(count)) => seen.extend_from_slice(&piece[..count]),
                ended => return Err(format!("slow reader: {ended:?} after {}", seen.len())),
            }
        }
        let whole = seen.ends_with(&vec![b'x'; HONEST]) && seen.starts_with(b"HTTP/1.1 200");
        whole.then(|| began.elapsed()).ok_or(format!("slow reader: {} bytes", seen.len()))
    }

    /// The same upwards.
    async fn sends_slowly(&self) -> Result<Duration, String> {
        let began = Instant::now();
        let head =
            format!("POST /plain/upload HTTP/1.1\r\nConnection: close\r\nContent-Length: {HONEST}\r\n");
        let mut stream = self.says(102, &head).await.map_err(|error| error.to_string())?;
        for _ in 0..16 {
            tokio::time::sleep(Duration::from_millis(40)).await;
            let sent = stream.write_all(&vec![b'x'; HONEST / 16]).await;
            sent.map_err(|error| format!("slow upload: {error}"))?;
        }
        let mut answer = String::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
        let whole =
            read.is_ok() && answer.starts_with("HTTP/1.1 200") && answer.ends_with(&HONEST.to_string());
        whole.then(|| began.elapsed()).ok_or(format!("slow upload: {answer}"))
    }

    #[allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]
    async fn says(&self, n: u8, head: &str) -> std::io::Result<tokio::net::TcpStream> {
        let (honest, socket) = (self.honest(n), TcpSocket::new_v4()?);
        let from: IpAddr = if self.trusts { [127, 0, 0, 1].into() } else { [127, 9, 0, n].into() };
        socket.set_recv_buffer_size(64 << 10)?;
        socket.bind(SocketAddr::new(from, 0))?;
        let mut stream = socket.connect(self.proxy()).await?;
        let fields = honest.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let text = format!("{head}Host: h\r\n{}\r\n", fields.collect::<String>());
        stream.write_all(text.as_bytes()).await?;
        Ok(stream)
    }

    /// Health checks pass all the while: the server is never out.
    async fn is_checked(&self) {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            assert_eq!(
                self.process.metric("iiif_mender_upstream_server_up").await,
                1.0,
                "health checks starve"
            );
        }
    }
}
