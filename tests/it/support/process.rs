//! The real program as a process of its own, so that its memory, descriptors and threads are its own too.
#![allow(
    clippy::disallowed_methods,
    reason = "the admin pages are asked by hand; the rule is for the product"
)]

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::program::KilledOnDrop;

/// A running `serve`.
pub(crate) struct Process {
    child: KilledOnDrop,
    pub(crate) viewers: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// What it takes from the machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) resident_kib: u64,
    /// The most that was ever resident.
    pub(crate) peak_kib: u64,
    /// Heap and stacks, without what is mapped from files.
    pub(crate) anonymous_kib: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: u64,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resident_kib, anonymous_kib, descriptors, threads, .. } = self;
        write!(f, "{resident_kib} KiB ({anonymous_kib} anonymous), {descriptors} fds, {threads} threads")
    }
}

impl Process {
    /// Starts it in a folder that holds `config.toml`, and waits for its addresses.
    pub(crate) fn start(folder: &Path) -> Self {
        // A release build may be named, for figures.
        let program = std::env::var_os("IIIF_MENDER_TEST_BINARY")
            .unwrap_or_else(|| assert_cmd::cargo::cargo_bin!("iiif-mender").into());
        let child = Command::new(program)
            .arg("serve")
            .current_dir(folder)
            // As in the other worlds: a test counts what is sent on.
            .env("IIIF_MENDER__CACHE__MEMORY", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut process = Self { child: KilledOnDrop(child), viewers: nowhere, admin: nowhere };
        let (told, lines) = mpsc::channel();
        let stderr = BufReader::new(process.child.0.stderr.take().expect("a pipe"));
        // Read to the end, so that it never waits for us; only the first lines are looked at.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _nobody_listens_any_more = told.send(line);
            }
        });
        let address = |message: &str| loop {
            let line = lines.recv_timeout(Duration::from_secs(30));
            let line = line.unwrap_or_else(|error| panic!("never said {message:?}: {error}"));
            let line: serde_json::Value = serde_json::from_str(&line)
                .unwrap_or_else(|_| panic!("it said {line:?} {:?}", lines.try_iter().collect::<Vec<_>>()));
            if line["message"].as_str().is_some_and(|said| said.starts_with(message)) {
                return line["address"].as_str().and_then(|at| at.parse().ok()).expect("an address");
            }
        };
        process.viewers = address("serving");
        process.admin = address("admin pages");
        process
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.viewers)
    }

    /// Sends it a signal (`-HUP`).
    pub(crate) fn gets(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.0.id().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    pub(crate) fn usage(&self) -> Usage {
        let about = format!("/proc/{}", self.child.0.id());
        let status = std::fs::read_to_string(format!("{about}/status")).expect("it runs");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of status");
            let digits = line.trim_start_matches(':').split_whitespace().next();
            digits.and_then(|digits| digits.parse().ok()).expect("a number")
        };
        let descriptors = std::fs::read_dir(format!("{about}/fd")).expect("it runs").count();
        Usage {
            resident_kib: number("VmRSS"),
            peak_kib: number("VmHWM"),
            anonymous_kib: number("RssAnon"),
            descriptors,
            threads: number("Threads"),
        }
    }

    /// The sum of all series of a metric whose line begins with this.
    pub(crate) async fn metric(&self, begin: &str) -> f64 {
        let scrape = testbed::get(&format!("http://{}/metrics", self.admin)).await.text();
        let values = scrape.lines().filter(|line| line.starts_with(begin)).filter_map(|line| {
            let value = line.split(" # ").next().and_then(|line| line.rsplit(' ').next());
            value.and_then(|value| value.parse::<f64>().ok())
        });
        values.sum()
    }
}
