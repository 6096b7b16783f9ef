//! Everything at once, for a while: mixed traffic, lost images, faults, hostile bytes, viewers who leave. Nothing may
//! be wrong, hang, or stay behind. Twenty seconds here; `tests/faults/soak.sh SECONDS RATE` for longer.
#![allow(clippy::print_stdout, reason = "figures, for those who ask with --nocapture")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use testbed::{Client, Page, Testbed};
use tokio::task::JoinSet;

use crate::edge::Viewer;
use crate::process::{Process, Usage};

/// Longer than any request may take with the deadlines below.
const DEADLINE: Duration = Duration::from_secs(20);
const TILES: [&str; 3] =
    ["0,0,256,256/64,/0/default.jpg", "0,0,512,512/256,/0/default.jpg", "full/90,/0/default.jpg"];
const WORKERS: u64 = 24;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// `config.toml` for a process before this testbed, with short deadlines.
pub(crate) fn configure(folder: &std::path::Path, bed: &Testbed, more: &str) {
    let (images, service) = (bed.images.origin(), bed.service.origin());
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\npublic_hosts = [\"api.library.tamu.edu\"]\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\nfilter = \"info,iiif_mender::proxy=warn\"\n\
         [upstream]\nfirst_byte_timeout = \"2s\"\nbody_timeout = \"2s\"\n\
         [heal]\nwait = \"3s\"\nwait_info = \"3s\"\ncooldown = \"500ms\"\nbackoff_max = \"1s\"\n\
         breaker_open = \"500ms\"\ntimeout = \"3s\"\n{more}\n\
         [[routes]]\nprefix = \"/iiif/2/\"\nupstream = \"{images}/iiif/2/\"\nkind = \"image\"\n\
         [[routes]]\nprefix = \"/iiif-service/\"\nupstream = \"{service}/iiif-service/\"\nkind = \"presentation\"\n\
         [[routes]]\nprefix = \"/\"\nupstream = \"{images}/\"\n\
         [[index.sources]]\npath = \"manifests\"\n"
    );
    std::fs::write(folder.join("config.toml"), text).expect("a file");
    std::fs::create_dir(folder.join("manifests")).expect("a directory");
    bed.write_manifests(&folder.join("manifests")).expect("manifests");
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

    /// One worker: a request of some kind, then a pause that keeps the rate.
    async fn works(self: Arc<Self>, rate: u64) {
        let pace = Duration::from_secs_f64(WORKERS as f64 / rate as f64);
        let mut every = tokio::time::interval(pace);
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
                let unknown =
                    format!("/iiif/2/{:08x}-0000-3000-8000-000000000000/info.json", fastrand::u32(..));
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

/// One fault after the other; each is mended after `period`.
async fn breaks(bed: &Testbed, fault: usize, period: Duration) -> &'static str {
    let what = match fault % 9 {
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
    if matches!(fault % 9, 0 | 6 | 7) {
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
    for gauge in ["flights", "waiting_viewers", "canvas_in_flight", "upstream_in_flight"] {
        while process.metric(&format!("iiif_mender_{gauge}")).await != 0.0 {
            assert!(began.elapsed() < Duration::from_mins(1), "{gauge} never came back to zero");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_at_once_for_a_while_leaves_nothing_wrong_and_nothing_behind() {
    let (seconds, rate) = (number("IIIF_MENDER_SOAK_SECONDS", 20), number("IIIF_MENDER_SOAK_RATE", 60));
    let hups = std::env::var_os("IIIF_MENDER_SOAK_HUP").is_some();
    let bed = Testbed::builder().book("obj/book", 12).page_size(600, 800).pdf("obj/report", 3).start().await;
    let folder = tempfile::tempdir().expect("a directory");
    configure(folder.path(), &bed, "");
    let process = Process::start(folder.path());
    bed.service.image_server_url(format!("http://{}/iiif/2", process.viewers));
    let ground = Arc::new(Ground::before(&bed, process));
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(Arc::clone(&ground).works(rate));
    }
    let began = Instant::now();
    let period = Duration::from_millis((seconds * 1000 / 20).min(5000));
    let (mut warm, mut slowest): (Option<Usage>, Duration) = (None, Duration::ZERO);
    let mut fault = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        let what = breaks(&bed, fault, period).await;
        mends(&bed);
        let took = ground.recovers().await;
        slowest = slowest.max(took);
        let usage = ground.process.usage();
        println!("{:6.0?} {what:22} recovered in {took:8.1?} {usage:?}", began.elapsed());
        if hups {
            ground.process.gets("-HUP");
        }
        fault += 1;
        if fault == 9 {
            warm = Some(usage);
        }
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
    let end = ground.process.usage();
    println!(
        "{} requests, slowest {} ms, slowest recovery {slowest:?}, {:?}\nwarm {warm:?}\nend  {end:?}",
        ground.requests.load(Ordering::Relaxed),
        ground.slowest.load(Ordering::Relaxed),
        ground.answers.lock().expect("a lock")
    );
    stays_flat(warm.unwrap_or(end), end);
    ground.is_well().await;
}

fn stays_flat(warm: Usage, end: Usage) {
    assert!(end.descriptors <= warm.descriptors + 64, "descriptors leak: {warm:?} {end:?}");
    assert!(end.threads <= warm.threads + 8, "threads leak: {warm:?} {end:?}");
    assert!(
        end.resident_kib <= warm.resident_kib + warm.resident_kib / 4 + 32 * 1024,
        "memory grows: {warm:?} {end:?}"
    );
}
