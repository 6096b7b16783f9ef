//! Everything at once, for a while: mixed traffic, lost images, faults, reloads, hostile bytes, viewers who leave. Nothing
//! may be wrong, hang, or stay behind. Twenty seconds here; `tests/faults/*.sh SECONDS RATE` for longer. Attackers are among
//! them, one kind after the other, unless `IIIF_MENDER_SOAK_ATTACKERS=0` says no.
#![allow(clippy::print_stdout, reason = "figures, for those who ask with --nocapture")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use testbed::{Client, Gateway, Page, Testbed};
use tokio::task::JoinSet;

use crate::support::attackers;
use crate::support::edge::Viewer;
use crate::support::process::{Process, Usage};
use crate::support::toxiproxy::Toxiproxy;

/// Longer than any request may take with the deadlines below.
const DEADLINE: Duration = Duration::from_secs(20);
const TILES: [&str; 3] =
    ["0,0,256,256/64,/0/default.jpg", "0,0,512,512/256,/0/default.jpg", "full/90,/0/default.jpg"];
/// How often one worker asks. There are so many of them that faults slow down few: the rate holds.
const PACE: Duration = Duration::from_secs(2);
/// What is zero when nobody asks any more, and is shown over time.
const GAUGES: [&str; 5] =
    ["flights", "waiting_viewers", "canvas_in_flight", "upstream_in_flight", "held_bytes"];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// `config.toml` for a process before this testbed, with short deadlines; the image server is reached at `images`, and what
/// attackers want at `others`.
fn configure(folder: &Path, bed: &Testbed, images: &str, others: &str) {
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\npublic_hosts = [\"api.library.tamu.edu\"]\n\
         max_connections_per_address = 0\n\
         [admin]\nlisten = \"127.0.0.1:0\"\nsetup_check = \"0s\"\n[log]\nformat = \"json\"\nfilter = \"info,iiif_mender::proxy=warn\"\n\
         [upstream]\nfirst_byte_timeout = \"2s\"\nbody_timeout = \"2s\"\n\
         [heal]\nwait = \"3s\"\nwait_info = \"3s\"\ncooldown = \"200ms\"\nbackoff_max = \"400ms\"\n\
         breaker_open = \"200ms\"\ntimeout = \"3s\"\n{}\
         [[routes]]\nprefix = \"/\"\nupstream = \"{others}/\"\nkind = \"plain\"\n\
         [[index.sources]]\npath = \"manifests\"\n",
        testbed::routes(images, &bed.service.origin())
    );
    std::fs::write(folder.join("config.toml"), text).expect("a file");
    std::fs::create_dir(folder.join("manifests")).expect("a directory");
    bed.write_manifests(&folder.join("manifests")).expect("manifests");
}

/// Changes a value to and fro, and has the file read anew: all rooms are built again.
fn reloads(folder: &Path, process: &Process) {
    let (one, other) = ("body_timeout = \"2s\"", "body_timeout = \"2500ms\"");
    let file = folder.join("config.toml");
    let text = std::fs::read_to_string(&file).expect("a file");
    let changed = if text.contains(one) { text.replace(one, other) } else { text.replace(other, one) };
    assert_ne!(changed, text);
    std::fs::write(&file, changed).expect("a file");
    process.gets("-HUP");
}

/// What all workers share.
struct Ground {
    process: Process,
    pages: Vec<(Page, Vec<Bytes>)>,
    client: Client,
    stops: AtomicBool,
    answers: Mutex<BTreeMap<String, u64>>,
    requests: AtomicU64,
    slowest: AtomicU64,
}

impl Ground {
    fn before(bed: &Testbed, process: Process) -> Self {
        let pages = bed.pages().into_iter().map(|page| {
            let pictures = TILES.iter().map(|tile| page.picture(tile)).collect();
            (page, pictures)
        });
        Self {
            process,
            pages: pages.collect(),
            client: Client::default(),
            stops: AtomicBool::new(false),
            answers: Mutex::default(),
            requests: AtomicU64::new(0),
            slowest: AtomicU64::new(0),
        }
    }

    /// Every page is there again, byte for byte.
    async fn is_well(&self) {
        for (page, pictures) in &self.pages {
            let url = self.process.url(&page.image_path(TILES[0]));
            let deadline = Instant::now() + DEADLINE;
            loop {
                let answer = self.client.get(&url, &[]).await.expect("an answer");
                if answer.status == 200 {
                    assert!(answer.body == pictures[0], "wrong bytes");
                    break;
                }
                assert!(Instant::now() < deadline, "{url}: {}", answer.text());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    fn counts(&self, what: impl Into<String>) {
        *self.answers.lock().expect("a lock").entry(what.into()).or_default() += 1;
    }

    /// One worker: a request of some kind at each turn; the turns of all are spread over time.
    async fn works(self: Arc<Self>) {
        let first = tokio::time::Instant::now() + PACE.mul_f64(fastrand::f64());
        let mut every = tokio::time::interval_at(first, PACE);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        while !self.stops.load(Ordering::Relaxed) {
            every.tick().await;
            let began = Instant::now();
            let asked = tokio::time::timeout(DEADLINE, self.asks()).await;
            assert!(asked.is_ok(), "a request hung past {DEADLINE:?}");
            self.requests.fetch_add(1, Ordering::Relaxed);
            let took = u64::try_from(began.elapsed().as_millis()).expect("short");
            self.slowest.fetch_max(took, Ordering::Relaxed);
        }
    }

    async fn asks(&self) {
        let at = fastrand::usize(..self.pages.len());
        let tile = fastrand::usize(..TILES.len());
        let (page, pictures) = &self.pages[at];
        let path = page.image_path(TILES[tile]);
        match fastrand::u32(..100) {
            0..70 => match self.client.get(&self.process.url(&path), &[]).await {
                Ok(answer) if answer.status == 200 => {
                    assert!(answer.body == pictures[tile], "wrong bytes: {path}");
                    self.counts("200");
                }
                Ok(answer) => self.counts(answer.status.to_string()),
                Err(_) => self.counts("aborted"),
            },
            70..82 => match self.client.get(&self.process.url(&page.info_path()), &[]).await {
                Ok(answer) => {
                    let own = answer.status != 200 || answer.text().contains(&page.identifier);
                    assert!(own, "not its info.json: {}", answer.text());
                    self.counts(format!("info {}", answer.status));
                }
                Err(_) => self.counts("info aborted"),
            },
            82..87 => {
                let answer = self.client.get(&self.process.url(&page.presentation_path), &[]).await;
                self.counts(
                    answer.map_or("manifest aborted".to_owned(), |a| format!("manifest {}", a.status)),
                );
            }
            87..92 => {
                // Few, so that the bounded memory of the index is full soon.
                let unknown =
                    format!("/iiif/2/{:08x}-0000-3000-8000-000000000000/info.json", fastrand::u32(..500));
                let answer = self.client.get(&self.process.url(&unknown), &[]).await;
                assert!(answer.as_ref().map_or(true, |answer| answer.status != 200), "{unknown}");
                self.counts("unknown");
            }
            92..96 => {
                let mut viewer = Viewer::to(self.process.viewers).await;
                let _closed =
                    viewer.tries(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await;
                tokio::time::sleep(Duration::from_millis(fastrand::u64(..20))).await;
                viewer.leaves();
                self.counts("left");
            }
            _ => {
                let mut viewer = Viewer::to(self.process.viewers).await;
                let bytes = b"POST /iiif/2/x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\
                              Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
                let _closed = viewer.tries(bytes).await;
                let rest = viewer.rest().await.text;
                assert!(!rest.starts_with("HTTP/1.1 2"), "{rest}");
                assert_eq!(rest.matches("HTTP/1.1 ").count(), usize::from(!rest.is_empty()), "{rest}");
                self.counts("hostile");
            }
        }
    }

    /// How long until this page is right again.
    async fn recovers(&self) -> Duration {
        let began = Instant::now();
        let (page, pictures) = &self.pages[0];
        let url = self.process.url(&page.image_path(TILES[0]));
        loop {
            if let Ok(answer) = self.client.get(&url, &[]).await
                && answer.status == 200
            {
                assert!(answer.body == pictures[0]);
                return began.elapsed();
            }
            assert!(began.elapsed() < DEADLINE, "it does not recover");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// How many faults the stand-ins have.
const OWN_FAULTS: usize = 9;

/// Where the faults come from.
struct Trouble<'a> {
    bed: &'a Testbed,
    network: Option<Toxiproxy>,
}

impl Trouble<'_> {
    /// How many kinds there are.
    fn kinds(&self) -> usize {
        OWN_FAULTS + self.network.as_ref().map_or(0, |_| Toxiproxy::FAULTS)
    }

    /// One fault after the other; each lasts for `period`.
    async fn breaks(&self, fault: usize, period: Duration) -> &'static str {
        let fault = fault % self.kinds();
        let what = match &self.network {
            Some(network) if fault >= OWN_FAULTS => network.breaks(fault - OWN_FAULTS).await,
            _ => return breaks(self.bed, fault, period).await,
        };
        tokio::time::sleep(period).await;
        what
    }

    /// All is well again.
    async fn ends(&self) {
        if let Some(network) = &self.network {
            network.recovers().await;
        }
        mends(self.bed);
    }
}

/// A fault of the stand-ins.
async fn breaks(bed: &Testbed, fault: usize, period: Duration) -> &'static str {
    let what = match fault {
        0 => "everything expired",
        1 => {
            bed.images.image_delay(Duration::from_millis(150));
            "latency"
        }
        2 => {
            bed.images.resets();
            "resets"
        }
        3 => {
            bed.images.cuts_body_after(10);
            "half bodies"
        }
        4 => {
            bed.images.goes_down().await;
            "image server down"
        }
        5 => {
            // Half of the time it refuses.
            for _ in 0..5 {
                bed.images.goes_down().await;
                tokio::time::sleep(period / 10).await;
                bed.images.comes_up();
                tokio::time::sleep(period / 10).await;
            }
            return "half refused";
        }
        6 => {
            bed.service.fails_canvas(503);
            "canvas service fails"
        }
        7 => {
            bed.service.goes_down().await;
            "canvas service down"
        }
        _ => {
            bed.images.hangs();
            "hangs"
        }
    };
    if matches!(fault, 0 | 6 | 7) {
        bed.expires_everything();
    }
    tokio::time::sleep(period).await;
    what
}

fn mends(bed: &Testbed) {
    bed.images.recovers();
    bed.service.recovers();
    bed.images.comes_up();
    bed.service.comes_up();
    // Only so that the log of the stand-ins does not grow for half an hour.
    bed.ledger.clear();
}

async fn rests(process: &Process) {
    let began = Instant::now();
    for gauge in GAUGES {
        while process.metric(&format!("iiif_mender_{gauge}")).await != 0.0 {
            assert!(began.elapsed() < Duration::from_mins(1), "{gauge} never came back to zero");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn shows(process: &Process) -> String {
    let mut text = String::new();
    for gauge in GAUGES {
        let _written = write!(text, " {gauge} {}", process.metric(&format!("iiif_mender_{gauge}")).await);
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_at_once_for_a_while_leaves_nothing_wrong_and_nothing_behind() {
    let (seconds, rate) = (number("IIIF_MENDER_SOAK_SECONDS", 20), number("IIIF_MENDER_SOAK_RATE", 60));
    let bed = Testbed::builder().book("obj/book", 12).page_size(600, 800).pdf("obj/report", 3).start().await;
    let network = Toxiproxy::before(&bed.images.origin()).await;
    let folder = tempfile::tempdir().expect("a directory");
    let images = network.as_ref().map_or_else(|| bed.images.origin(), |network| network.origin.clone());
    let gateway = Gateway::start(&bed);
    configure(folder.path(), &bed, &images, &gateway.origin());
    let process = Process::start(folder.path());
    bed.service.image_server_url(format!("http://{}/iiif/2", process.viewers));
    let ground = Arc::new(Ground::before(&bed, process));
    let trouble = Trouble { bed: &bed, network };
    let mut workers = JoinSet::new();
    for _ in 0..rate * PACE.as_secs() {
        workers.spawn(Arc::clone(&ground).works());
    }
    let began = Instant::now();
    let period = Duration::from_millis((seconds * 1000 / 20).min(5000));
    let (mut usages, mut slowest) = (Vec::new(), Duration::ZERO);
    // Painted once, now: 300 readers who ask for it at the same time would have it painted 300 times, in this process.
    let _painted = bed.page().picture("full/full/0/default.jpg");
    let full = bed.page().image_path("full/full/0/default.jpg?{n}");
    let paths = ["/sized-65536-{n}", &full, "/iiif-service/upload/{n}"];
    let attacks = number("IIIF_MENDER_SOAK_ATTACKERS", 1) > 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        // They go on while the fault ends and all recover.
        let attack = attacks.then(|| attackers::nth(usages.len(), ground.process.viewers, paths));
        let what = trouble.breaks(usages.len(), period).await;
        trouble.ends().await;
        let took = ground.recovers().await;
        slowest = slowest.max(took);
        let usage = ground.process.usage();
        let gauges = shows(&ground.process).await;
        let beside = attack.as_ref().map_or("", |(name, _)| name);
        println!("{:6.0?} {what:22} {beside:20} recovered in {took:8.1?} {usage}{gauges}", began.elapsed());
        drop(attack);
        usages.push(usage);
        reloads(folder.path(), &ground.process);
        tokio::time::sleep(period / 4).await;
        while let Some(ended) = workers.try_join_next() {
            ended.expect("a worker saw nothing wrong");
        }
    }
    ground.stops.store(true, Ordering::Relaxed);
    while let Some(ended) = workers.join_next().await {
        ended.expect("a worker saw nothing wrong");
    }
    rests(&ground.process).await;
    println!(
        "{} requests, slowest {} ms, slowest recovery {slowest:?}, {} reloads, {:?}\nend {}",
        ground.requests.load(Ordering::Relaxed),
        ground.slowest.load(Ordering::Relaxed),
        usages.len(),
        ground.answers.lock().expect("a lock"),
        ground.process.usage()
    );
    stays_flat(&usages, seconds);
    ground.is_well().await;
}

/// Once all bounded stores are full, nothing grows: the last third of the time takes what the second took.
fn stays_flat(usages: &[Usage], seconds: u64) {
    let third = usages.len() / 3;
    let median = |of: &[Usage]| {
        let mut kib: Vec<_> = of.iter().map(|usage| usage.anonymous_kib).collect();
        kib.sort_unstable();
        kib[kib.len() / 2]
    };
    let (before, after) = (&usages[third..2 * third], &usages[2 * third..]);
    // What the allocator keeps grows a little while it finds no better place (glibc's 10 % in half an hour, with less than
    // 6 MiB in use all the time); twenty seconds are too short for more than the coarsest look.
    let slack = if seconds >= 600 { median(before) / 8 } else { 32 * 1024 };
    assert!(median(after) <= median(before) + slack, "memory grows: {before:?} {after:?}");
    let most = |of: &[Usage]| of.iter().map(|usage| (usage.descriptors, usage.threads)).max();
    let (before, after) = (most(before).expect("some"), most(after).expect("some"));
    // Not every third has the same attackers, and each kind has up to 300 connections here and as many upstream.
    assert!(after.0 <= before.0 + 1024 && after.1 <= before.1 + 8, "{before:?} {after:?}");
}
