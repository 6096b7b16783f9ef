//! How fast is `heal`, and how much does it ask? The release binary against a canvas service that takes its time,
//! beside the old loop (`benches/loop.py`).
//!
//! ```text
//! cargo bench --bench batch                 500 canvases × 20 ms: all expired, all healthy, and the loop
//! cargo bench --bench batch -- 100000       1 % broken of 100,000 images at 2 ms a probe
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench fails by panicking and prints what it measured"
)]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A canvas service and an image server in one.
#[derive(Debug, Default)]
struct Upstream {
    alive: Mutex<HashSet<usize>>,
    canvas: AtomicUsize,
    probes: AtomicUsize,
    canvas_takes: Duration,
    probe_takes: Duration,
}

fn uuid(number: usize) -> String {
    format!("00000000-0000-3000-8000-{number:012}")
}

impl Upstream {
    async fn answer(&self, target: &str) -> (u16, String) {
        let name = target.rsplit('/').next().unwrap_or_default();
        if target.contains("/resources/") {
            self.probes.fetch_add(1, Ordering::Relaxed);
            if !self.probe_takes.is_zero() {
                tokio::time::sleep(self.probe_takes).await;
            }
            let number: usize = name[24..].parse().expect("a number");
            let is_alive = self.alive.lock().expect("alive").contains(&number);
            return if is_alive {
                (200, format!("http://files/{number}"))
            } else {
                (404, format!("Resource with id {name} not found!"))
            };
        }
        if !target.contains("/canvas/") {
            return (404, String::new());
        }
        self.canvas.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.canvas_takes).await;
        let number: usize = name.parse().expect("a number");
        self.alive.lock().expect("alive").insert(number);
        (200, canvas(number))
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        loop {
            let mut target = String::new();
            if stream.read_line(&mut target).await? == 0 {
                return Ok(());
            }
            let mut line = String::new();
            while stream.read_line(&mut line).await? > 2 {
                line.clear();
            }
            let (status, body) = self.answer(target.split(' ').nth(1).unwrap_or_default()).await;
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.get_mut().write_all(answer.as_bytes()).await?;
        }
    }
}

fn canvas(number: usize) -> String {
    let image = format!("https://api.library.tamu.edu/iiif/2/{}", uuid(number));
    format!(
        r#"{{"@id":"https://api.library.tamu.edu/iiif-service/fedora/canvas/{number}","@type":"sc:Canvas","label":"Page {number}","images":[{{"@type":"oa:Annotation","resource":{{"@id":"{image}/full/full/0/default.jpg","service":{{"@id":"{image}"}}}}}}]}}"#
    )
}

fn write_books(folder: &Path, canvases: usize) {
    for (book, first) in (0..canvases).step_by(500).enumerate() {
        let mut list = String::new();
        for number in first..canvases.min(first + 500) {
            let comma = if number == first { "" } else { "," };
            write!(list, "{comma}{}", canvas(number)).expect("text");
        }
        let text = format!(
            r#"{{"@id":"https://api.library.tamu.edu/iiif-service/fedora/presentation/{book}","@type":"sc:Manifest","label":"Book {book}","sequences":[{{"canvases":[{list}]}}]}}"#
        );
        std::fs::write(folder.join(format!("{book:04}.json")), text).expect("a file");
    }
}

/// Runs the command; wall and CPU seconds, the most memory in KiB, and what it printed last.
fn measured(program: &str, args: &[&str], folder: &Path) -> (f64, f64, u64, String) {
    let started = Instant::now();
    let mut timed = Command::new("bash");
    timed.args(["-c", r#"TIMEFORMAT="%U %S"; time "$@" 2>/dev/null"#, "-", program]).args(args);
    let child =
        timed.current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("bash");
    let (shell, mut most) = (child.id(), 0);
    let ended = std::thread::spawn(move || child.wait_with_output().expect("it ends"));
    while !ended.is_finished() {
        std::thread::sleep(Duration::from_millis(5));
        let children =
            std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap_or_default();
        let Some(pid) = children.split_whitespace().next() else { continue };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().split(' ').next()?.parse().ok());
        most = most.max(peak.unwrap_or(0));
    }
    let wall = started.elapsed().as_secs_f64();
    let ended = ended.join().expect("a thread");
    let figures = String::from_utf8_lossy(&ended.stderr).into_owned();
    let cpu = figures.split_whitespace().filter_map(|text| text.parse::<f64>().ok()).sum();
    let told = String::from_utf8_lossy(&ended.stdout).lines().last().unwrap_or_default().to_owned();
    (wall, cpu, most, told)
}

fn main() {
    let canvases = std::env::args().filter_map(|arg| arg.parse().ok()).next_back().unwrap_or(500);
    let is_large = canvases > 5_000;
    let millis = if is_large { 2 } else { 0 };
    let upstream = Arc::new(Upstream {
        canvas_takes: Duration::from_millis(20),
        probe_takes: Duration::from_millis(millis),
        ..Upstream::default()
    });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let serving = Arc::clone(&upstream);
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(Arc::clone(&serving).serve(stream));
        }
    });
    let folder = tempfile::tempdir().expect("a folder");
    let books = folder.path().join("manifests");
    std::fs::create_dir(&books).expect("a folder");
    write_books(&books, canvases);
    let config = format!(
        "[server]\npublic_hosts = [\"api.library.tamu.edu\"]\n\
         [[routes]]\nprefix = \"/iiif/2/\"\nupstream = \"{base}/iiif/2/\"\nkind = \"image\"\n\
         [[routes]]\nprefix = \"/iiif-service/\"\nupstream = \"{base}/iiif-service/\"\nkind = \"presentation\"\n"
    );
    std::fs::write(folder.path().join("config.toml"), config).expect("a file");
    let ours = env!("CARGO_BIN_EXE_iiif-mender");
    let heal = |name: &str, args: &[&str]| {
        upstream.canvas.store(0, Ordering::Relaxed);
        upstream.probes.store(0, Ordering::Relaxed);
        let (wall, cpu, most, told) = measured(ours, args, folder.path());
        println!(
            "{name}: wall={wall:.2}s cpu={cpu:.2}s peak={most}KiB canvas={} probes={}  | {told}",
            upstream.canvas.load(Ordering::Relaxed),
            upstream.probes.load(Ordering::Relaxed),
        );
    };
    if is_large {
        *upstream.alive.lock().expect("alive") = (0..canvases).filter(|number| number % 100 != 0).collect();
        heal("1 % broken", &["heal", "manifests", "--concurrency", "32", "--probes", "64"]);
        heal("healthy", &["check", "manifests", "--probes", "64"]);
        return;
    }
    for _ in 0..3 {
        upstream.alive.lock().expect("alive").clear();
        heal("all expired", &["heal", "manifests", "--concurrency", "32"]);
    }
    heal("all healthy", &["heal", "manifests", "--concurrency", "32"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/loop.py");
    for threads in ["32", "1"] {
        let (_, _, _, told) = measured("python3", &[script, "manifests", &base, threads], folder.path());
        println!("{told}");
    }
}
