//! What the index costs: `cargo bench --bench index -- --images 1000000`
//!
//! With `--made` the manifests are made while they are read, and deleted behind the reader, so that the disk need only hold the
//! index: `cargo bench --bench index -- --images 100000000 --made`
//!
//! Each phase runs in a process of its own (this program, started again), so that its memory is its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a bench prints its figures, and ends where it cannot go on"
)]

mod made;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use iiif_mender::config::settings::SourceSettings;
use iiif_mender::iiif::manifest;
use iiif_mender::index::Index;
use iiif_mender::index::sources::RefreshOptions;
use iiif_mender::index::sources::build::Build;
use iiif_mender::index::sources::refresh::Refresh;
use made::{Maker, PAGES, generate, identifier, long, many};
use testbed::Testbed;

/// Lookups that are timed.
const LOOKUPS: u64 = 200_000;

/// Look-ups between two questions whether the scheduler took the processor away.
const GROUP: u64 = 20;

/// Size of the large manifests.
const LARGE: u64 = 200_000_000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).cloned()
    };
    if let Some(phase) = value("--phase") {
        let folder = PathBuf::from(value("--folder").expect("a folder"));
        return run_phase(&phase, &folder, number(value("--images")));
    }
    // `cargo test --benches` only wants to see that it works.
    let is_bench = words.iter().any(|word| word == "--bench");
    let images =
        value("--images").map_or(if is_bench { 1_000_000 } else { 2_000 }, |text| number(Some(text)));
    let large = if is_bench { LARGE } else { LARGE / 100 };
    let base = value("--folder").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(base).expect("a temporary directory");
    report(folder.path(), images, large, words.iter().any(|word| word == "--made"));
}

fn number(text: Option<String>) -> u64 {
    text.expect("a number").replace('_', "").parse().expect("a number")
}

fn report(folder: &Path, images: u64, large: u64, made: bool) {
    let manifests = folder.join("manifests");
    fs::create_dir(&manifests).unwrap();
    let started = Instant::now();
    let bytes = if made {
        fs::write(folder.join("made"), "").unwrap();
        Maker::prepare(&manifests, images)
    } else {
        generate(&manifests, images)
    };
    line("images", &format!("{images} in {} manifests of {} MB", images.div_ceil(PAGES), bytes / 1_000_000));
    eprintln!("generated in {:.1} s", started.elapsed().as_secs_f64());

    let phase = |name: &str| started_again(name, folder, images);
    let built = phase("build");
    line(
        "build",
        &format!(
            "{:.0} images/s ({:.1} s, {:.0} MB/s of JSON)",
            images as f64 / built["s"],
            built["s"],
            bytes as f64 / 1e6 / built["s"]
        ),
    );
    line(
        "  processor time",
        &format!("{:.1} s, {:.0} images in a second of it", built["cpu_s"], images as f64 / built["cpu_s"]),
    );
    line("  peak memory", &format!("{:.0} MiB", built["peak"]));
    line(
        "  file",
        &format!("{:.0} MB, {:.0} bytes an image", built["file"] / 1e6, built["file"] / images as f64),
    );

    let opened = phase("open");
    line("open and first lookup", &format!("{:.1} ms", opened["ms"]));
    line("stats", &format!("{:.1} ms", opened["stats_ms"]));
    report_lookups(&phase("lookup"));

    let served = phase("serve");
    line("serve, to first healed answer", &format!("{:.0} ms", served["ms"]));
    line("  of it the heal itself", &format!("{:.0} ms", served["heal_ms"]));
    line("  resident then", &format!("{:.0} MiB", served["resident"]));
    line(
        "  after a look at all sources",
        &format!("{:.0} MiB (peak {:.0})", served["resident_later"], served["peak"]),
    );
    report_walks(folder, large);
}

fn report_lookups(looked: &BTreeMap<String, f64>) {
    for kind in ["known", "known, warm", "unknown"] {
        let figure = |name: &str| looked[&*format!("{kind}_{name}")];
        line(
            &format!("lookup, {kind}"),
            &format!(
                "p50 {:.1} µs, p99 {:.1} µs, most {:.0} µs",
                figure("p50"),
                figure("p99"),
                figure("most")
            ),
        );
        line(
            "  left on the processor",
            &format!("p99 {:.1} µs ({:.2} % were not)", figure("left_p99"), figure("taken")),
        );
    }
    line(
        "lookup, in memory",
        &format!("p50 {:.2} µs, p99 {:.2} µs", looked["memory_p50"], looked["memory_p99"]),
    );
    line("  resident", &format!("{:.0} MiB", looked["resident"]));
}

fn report_walks(folder: &Path, large: u64) {
    for (name, write) in [("many canvases", many as fn(&Path, u64)), ("one long text", long)] {
        let file = folder.join("large.json");
        write(&file, large);
        let walked = started_again("walk", folder, 0);
        line(
            &format!("walk {} MB, {name}", large / 1_000_000),
            &format!("{:.0} MB/s, peak {:.0} MiB", walked["mb_s"], walked["peak"]),
        );
    }
}

fn line(name: &str, text: &str) {
    println!("{name:<32} {text}");
}

/// Runs one phase in a process of its own; answers the figures it prints.
fn started_again(phase: &str, folder: &Path, images: u64) -> BTreeMap<String, f64> {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--phase", phase, "--images", &images.to_string(), "--folder"]).arg(folder);
    let output = again.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{phase} failed");
    let text = String::from_utf8(output.stdout).unwrap();
    let figure = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(figure).collect()
}

fn run_phase(phase: &str, folder: &Path, images: u64) {
    let path = folder.join("index.sqlite3");
    match phase {
        "build" => build(folder, &path, images),
        "open" => open(&path, images),
        "lookup" => lookup(&path, images),
        "serve" => serve(folder, &path),
        "walk" => walk(&folder.join("large.json")),
        other => panic!("no phase {other}"),
    }
}

fn build(folder: &Path, path: &Path, images: u64) {
    let started = Instant::now();
    let index = Index::open(path, 0).unwrap();
    let manifests = folder.join("manifests");
    let sources = [SourceSettings::path(manifests.clone())];
    let mut maker = folder.join("made").exists().then(|| Maker::begin(&manifests, images));
    // The reader is a hundred documents ahead at most, and waits while more are made.
    let mut making = (0.0, 0.0);
    let report = Build::new(&index, &RefreshOptions::default()).run(&sources, &mut |report, _| {
        let Some(maker) = maker.as_mut().filter(|maker| maker.is_due(report.files)) else { return };
        let (began, used) = (Instant::now(), processor_seconds());
        maker.go_on();
        making.0 += began.elapsed().as_secs_f64();
        making.1 += processor_seconds() - used;
    });
    let report = report.unwrap();
    assert_eq!((report.problems, report.images), (Vec::new(), images));
    println!("s {}", started.elapsed().as_secs_f64() - making.0);
    println!("cpu_s {}", processor_seconds() - making.1);
    println!("peak {}", memory("self", "VmHWM"));
    println!("file {}", index.stats().unwrap().bytes);
}

fn open(path: &Path, images: u64) {
    let mut times: Vec<f64> = (0..21)
        .map(|at| {
            let started = Instant::now();
            let index = Index::open(path, 100_000).unwrap();
            assert!(!index.owners(&identifier(at * 7919 % images)).unwrap().is_empty());
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    println!("ms {}", quantile(&mut times, 0.5));
    let index = Index::open(path, 0).unwrap();
    let mut times: Vec<f64> = (0..5)
        .map(|_| {
            let started = Instant::now();
            assert_eq!(index.stats().unwrap().images, images);
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    println!("stats_ms {}", quantile(&mut times, 0.5));
}

fn lookup(path: &Path, images: u64) {
    let index = Index::open(path, 0).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let time = |index: &Index, name: &str, mut key: Box<dyn FnMut() -> String + '_>, is_known: bool| {
        // On a busy machine the scheduler gives the processor to others in the middle of one in a hundred. Whether it did is
        // asked once for a group, because the answer costs as much as a look-up.
        let (mut times, mut left) = (Vec::new(), Vec::new());
        for _ in 0..LOOKUPS / GROUP {
            let (before, first) = (taken_away(), times.len());
            for _ in 0..GROUP {
                let key = key();
                let started = Instant::now();
                let owners = index.owners(&key).unwrap();
                times.push(started.elapsed().as_secs_f64() * 1e6);
                assert_eq!(!owners.is_empty(), is_known, "{key}");
            }
            if taken_away() == before {
                left.extend_from_slice(&times[first..]);
            }
        }
        println!("{name}_p50 {}", quantile(&mut times, 0.5));
        println!("{name}_p99 {}", quantile(&mut times, 0.99));
        println!("{name}_most {}", quantile(&mut times, 1.0));
        println!("{name}_left_p99 {}", quantile(&mut left, 0.99));
        println!("{name}_taken {}", 100.0 * (1.0 - left.len() as f64 / times.len() as f64));
    };
    for name in ["known", "known, warm"] {
        let mut random = fastrand::Rng::with_seed(1);
        time(&index, name, Box::new(move || identifier(random.u64(..images))), true);
        // Warm: all of the file is in the kernel's cache, if it fits there.
        io::copy(&mut File::open(path).unwrap(), &mut io::sink()).unwrap();
    }
    time(&index, "unknown", Box::new(|| identifier(images + random.u64(..u64::MAX / 2))), false);
    drop(index);
    let index = Index::open(path, 100_000).unwrap();
    for number in 0..images.min(10_000) {
        index.owners(&identifier(number)).unwrap();
    }
    time(&index, "memory", Box::new(|| identifier(random.u64(..images.min(10_000)))), true);
    println!("resident {}", memory("self", "VmRSS"));
}

/// The real program, from its start to the first picture that it had to heal.
fn serve(folder: &Path, path: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bed = Testbed::builder().book("obj/book", 3).page_size(64, 64).start().await;
        let manifests = folder.join("bed");
        fs::create_dir(&manifests).unwrap();
        bed.write_manifests(&manifests).unwrap();
        let index = Index::open(path, 0).unwrap();
        Refresh::new(&index, &RefreshOptions::default())
            .run(&[SourceSettings::path(manifests.clone())], &mut |_, _| {})
            .unwrap();
        drop(index);
        let config = configure(folder, path, &bed);
        let page = bed.page();
        bed.expires_everything();
        let address = free_address();
        let started = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_iiif-mender"))
            .arg("--config")
            .arg(config)
            .arg("serve")
            .env("IIIF_MENDER__SERVER__LISTEN", &address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let url = format!("http://{address}{}", page.image_path("0,0,64,64/64,/0/default.jpg"));
        let client = testbed::Client::default();
        let tile = loop {
            match client.get(&url, &[]).await {
                Ok(tile) => break tile,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
            assert!(started.elapsed() < Duration::from_secs(20), "it does not start");
        };
        let took = started.elapsed().as_secs_f64() * 1e3;
        let status = tile.header("heal-status").to_owned();
        let process = child.id().to_string();
        println!("resident {}", memory(&process, "VmRSS"));
        // The look at the sources goes on behind; it is over when the process is idle.
        idle(&process).await;
        println!("resident_later {}", memory(&process, "VmRSS"));
        println!("peak {}", memory(&process, "VmHWM"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(status.starts_with("healed"), "{} {status}", tile.status);
        println!("ms {took}");
        println!("heal_ms {}", status.rsplit_once("dur=").unwrap().1);
    });
}

fn configure(folder: &Path, index: &Path, bed: &Testbed) -> PathBuf {
    let text = format!(
        r#"
        server.public_hosts = ["api.library.tamu.edu"]
        admin.listen = "off"
        {}
        [index]
        path = "{}"
        [[index.sources]]
        path = "manifests"
        enabled = {}
        [[index.sources]]
        path = "bed"
        "#,
        testbed::routes(&bed.images.origin(), &bed.service.origin()),
        index.display(),
        // Those that were made are gone.
        !folder.join("made").exists(),
    );
    let config = folder.join("config.toml");
    fs::write(&config, text).unwrap();
    config
}

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Waits until a process has used no processor time for half a second.
async fn idle(process: &str) {
    let mut last = String::new();
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        // Time in user and in system mode are its fields 14 and 15.
        let now = stat.split(' ').skip(13).take(2).collect::<Vec<_>>().join(" ");
        if now == last {
            return;
        }
        last = now;
    }
}

fn walk(file: &Path) {
    let size = fs::metadata(file).unwrap().len();
    let mut times: Vec<f64> = (0..3)
        .map(|_| {
            let started = Instant::now();
            let mut canvases = 0_u64;
            manifest::walk(File::open(file).unwrap(), &mut |_| canvases += 1).unwrap();
            assert!(canvases > 0);
            started.elapsed().as_secs_f64()
        })
        .collect();
    println!("mb_s {}", size as f64 / 1e6 / quantile(&mut times, 0.5));
    println!("peak {}", memory("self", "VmHWM"));
}

/// Processor time of this process, user and system; the clock of the kernel's report has 100 ticks a second.
fn processor_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let ticks = stat.rsplit(')').next().unwrap().split(' ').skip(12).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// How often the scheduler took the processor away from this thread, which had not given it up.
fn taken_away() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// MiB out of a process's status.
fn memory(process: &str, what: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
fn quantile(times: &mut [f64], at: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * at) as usize]
}
