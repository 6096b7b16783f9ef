//! The real program as a process of its own, so that its memory, descriptors and threads are its own too.
#![allow(
    clippy::disallowed_methods,
    reason = "the admin pages are asked by hand; the rule is for the product"
)]

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::program::{KilledOnDrop, Serving};

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
        let mut command = Command::new(program);
        // As in the other worlds: a test counts what is sent on.
        command.arg("serve").current_dir(folder).env("IIIF_MENDER__CACHE__MEMORY", "0");
        let Serving { child, viewers, admin, .. } = Serving::of(command);
        Self { child, viewers, admin }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.viewers)
    }

    pub(crate) fn gets(&self, signal: &str) {
        self.child.gets(signal);
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
