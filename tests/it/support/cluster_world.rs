//! What the cluster suites share: a real `redis-server`, and several iiif-menders in front of one testbed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use iiif_mender::app::App;
use testbed::{Client, Fetched, Page, Testbed};

use crate::support::program::{KilledOnDrop, Serving};
use crate::support::world::{folder_of, is_settled, metric, patiently, proxy};

/// Nothing but the seed's way, and time enough on a busy machine that no node thinks that Redis is gone.
pub(crate) const PATIENT: &str =
    "heal.ladder = visit,rebuild\nheal.ahead = 0\ncluster.command_timeout = 10s\ncluster.lease = 10s";

/// As shipped, but for what nobody asked for.
pub(crate) const AS_SHIPPED: &str = "heal.ladder = visit,rebuild\nheal.ahead = 0\ncluster.lease = 1s";

pub(crate) const TILE: &str = "0,0,512,512/512,/0/default.jpg";

/// A port that was free a moment ago, and that nobody else here was given. The kernel gives those above 32,768 to whoever
/// connects, so that one of them may be taken before a server has it. (A node of a Redis Cluster takes the one 10,000 above, too.)
pub(crate) fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    loop {
        let port = 12_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A program of Debian's that ends with the test.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) folder: tempfile::TempDir,
    program: &'static str,
    arguments: Vec<String>,
    child: KilledOnDrop,
}

impl Server {
    /// `redis-server` with these arguments besides.
    pub(crate) async fn redis(more: &[&str]) -> Self {
        let mut arguments = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"].to_vec();
        arguments.extend(more);
        Self::start("redis-server", free_port(), &arguments).await
    }

    pub(crate) async fn start(program: &'static str, port: u16, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let child = spawn(program, port, &folder, &arguments);
        let server = Self { port, folder, program, arguments, child };
        server.answers().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Waits until it answers; replicas that still load do not.
    async fn answers(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.try_ask(&["PING"]).await.is_err() {
            assert!(Instant::now() < deadline, "{} does not answer on port {}", self.program, self.port);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn try_ask(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        command.query_async(&mut connection).await
    }

    pub(crate) async fn ask(&self, words: &[&str]) -> redis::Value {
        self.try_ask(words).await.expect("an answer")
    }

    pub(crate) async fn text(&self, words: &[&str]) -> String {
        redis::from_redis_value(self.ask(words).await).expect("a text")
    }

    /// How often each command was run, from the server's own books.
    pub(crate) async fn commands(&self) -> Vec<(String, u64)> {
        let stats = self.text(&["INFO", "commandstats"]).await;
        let lines = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_"));
        let read = |line: &str| {
            let (name, rest) = line.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        lines.filter_map(read).collect()
    }

    pub(crate) fn signal(&self, name: &str) {
        self.child.gets(name);
    }

    pub(crate) fn dies(&mut self) {
        self.child.dies();
    }

    /// At the same port, and empty.
    pub(crate) async fn comes_back(&mut self) {
        self.child = spawn(self.program, self.port, &self.folder, &self.arguments);
        self.answers().await;
    }
}

fn spawn(program: &'static str, port: u16, folder: &tempfile::TempDir, arguments: &[String]) -> KilledOnDrop {
    let mut command = Command::new(program);
    // A Sentinel's file comes first; both write there.
    if program == "redis-sentinel" {
        command.args(arguments);
    } else {
        command.args(["--port", &port.to_string()]).args(arguments);
    }
    command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
    KilledOnDrop(command.spawn().unwrap_or_else(|error| {
        panic!("{program}: {error}; install it with `apt-get install redis-server redis-sentinel`")
    }))
}

/// One iiif-mender of several.
pub(crate) struct Node {
    pub(crate) app: App,
    pub(crate) folder: tempfile::TempDir,
}

/// Several iiif-menders in front of one testbed.
pub(crate) struct Fleet {
    pub(crate) bed: Testbed,
    pub(crate) nodes: Vec<Node>,
    pub(crate) client: Client,
}

impl Fleet {
    /// `redis`: the lines of `[cluster]` that say where it is.
    pub(crate) async fn start(bed: Testbed, nodes: usize, redis: &str, more: &str) -> Self {
        let mut fleet = Self { bed, nodes: Vec::new(), client: Client::default() };
        for _ in 0..nodes {
            fleet.adds(&format!("{redis}\n{more}")).await;
        }
        fleet.bed.service.image_server_url(format!("http://{}/iiif/2", fleet.nodes[0].app.addresses[0]));
        fleet
    }

    pub(crate) async fn adds(&mut self, more: &str) {
        let (app, folder) =
            proxy(&self.bed, &self.bed.images.origin(), &self.bed.service.origin(), more).await;
        self.nodes.push(Node { app, folder });
    }

    pub(crate) fn metric(&self, node: usize, series: &str) -> f64 {
        metric(&self.nodes[node].app, series)
    }

    pub(crate) fn event(&self, node: usize, kind: &str) -> f64 {
        self.metric(node, &format!(r#"iiif_mender_events_total{{kind="{kind}"}}"#))
    }

    /// Waits until every node is joined with the others, or knows that it is alone.
    pub(crate) async fn are_joined(&self, joined: bool) {
        let wanted = f64::from(u8::from(joined));
        patiently("all are joined, or none", || {
            (0..self.nodes.len()).all(|node| self.metric(node, "iiif_mender_cluster_connected") == wanted)
        })
        .await;
    }

    /// A viewer at this node.
    pub(crate) fn asks(&self, node: usize, path: &str) -> tokio::task::JoinHandle<Fetched> {
        let url = format!("http://{}{path}", self.nodes[node].app.addresses[0]);
        let client = self.client.clone();
        tokio::spawn(async move { client.get(&url, &[]).await.expect("an answer") })
    }

    /// One viewer for each page, at the nodes in turn.
    pub(crate) fn storm(&self, pages: &[Page]) -> Vec<(Page, tokio::task::JoinHandle<Fetched>)> {
        let at = |(number, page): (usize, &Page)| {
            (page.clone(), self.asks(number % self.nodes.len(), &page.image_path(TILE)))
        };
        pages.iter().enumerate().map(at).collect()
    }

    pub(crate) async fn settles(&self) {
        patiently("all gauges are back to zero", || self.nodes.iter().all(|node| is_settled(&node.app)))
            .await;
    }
}

/// Everybody got his own picture.
pub(crate) async fn all_served(storm: Vec<(Page, tokio::task::JoinHandle<Fetched>)>) {
    for (page, answer) in storm {
        let answer = answer.await.expect("it ends");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.body, page.picture(TILE));
    }
}

/// A book of so many pages, none of them registered.
pub(crate) async fn book(pages: u32) -> Testbed {
    let bed = Testbed::builder().book("obj/book", pages).page_size(600, 800).start().await;
    bed.expires_everything();
    bed
}

/// An iiif-mender in a process of its own, which can be killed.
pub(crate) struct Process {
    pub(crate) port: u16,
    admin: SocketAddr,
    child: KilledOnDrop,
    folder: tempfile::TempDir,
}

impl Process {
    /// `more`: further sections of its configuration.
    pub(crate) async fn start(bed: &Testbed, more: &str) -> Self {
        Self::spawned(bed, more, &[]).await
    }

    /// With a clock that is so much ahead ("+3600s") or behind.
    pub(crate) async fn start_at(bed: &Testbed, more: &str, offset: &str) -> Self {
        let folders = std::fs::read_dir("/usr/lib").expect("a folder");
        let mut libraries =
            folders.map(|folder| folder.expect("a folder").path().join("faketime/libfaketime.so.1"));
        let library = libraries.find(|library| library.exists());
        let library = library.expect("libfaketime; install it with `apt-get install libfaketime`");
        let library = library.to_string_lossy();
        let env = [("LD_PRELOAD", &*library), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        Self::spawned(bed, more, &env).await
    }

    async fn spawned(bed: &Testbed, more: &str, env: &[(&str, &str)]) -> Self {
        let folder = folder_of(bed);
        let text = format!(
            r#"
            [server]
            listen = "127.0.0.1:0"
            public_hosts = ["api.library.tamu.edu"]
            [admin]
            listen = "127.0.0.1:0"
            setup_check = "0s"
            {}
            [[index.sources]]
            path = "manifests"
            {more}
            "#,
            testbed::routes(&bed.images.origin(), &bed.service.origin())
        );
        std::fs::write(folder.path().join("config.toml"), text).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_iiif-mender"));
        command.args(["serve", "--config"]).arg(folder.path().join("config.toml"));
        command.envs(env.iter().copied()).env("IIIF_MENDER__CACHE__MEMORY", "0");
        let Serving { child, viewers, admin, .. } = Serving::of(command);
        let process = Self { port: viewers.port(), admin, child, folder };
        let images = bed.pages().len();
        process.says("iiif_mender_index_images", |count| count >= images as f64).await;
        process.says("iiif_mender_cluster_connected", |joined| joined == 1.0).await;
        process
    }

    /// Waits until its scrape says so.
    pub(crate) async fn says(&self, series: &str, is_so: impl Fn(f64) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let (client, url) = (Client::default(), format!("http://{}/metrics", self.admin));
        loop {
            if let Ok(scrape) = client.get(&url, &[]).await {
                let text = scrape.text();
                let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
                if value.is_some_and(|value| is_so(value.parse().expect("a number"))) {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "{series} in {}", self.folder.path().display());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn dies(&mut self) {
        self.child.dies();
    }
}
