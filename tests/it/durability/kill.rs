//! kill -9 at random moments: the index is the old one or the new one, and what was reported is there.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use iiif_mender::iiif::identifier::uuid_of_file_url;
use iiif_mender::index::Index;
use iiif_mender::index::history::{HealRecord, HistoryFilter, HistoryPage, Retention, record};

use super::{Library, PAGES, is_known, key};

const MANIFESTS: usize = 60;

/// A library that is being written to while processes that read it are killed.
struct Victim {
    library: Library,
    /// A process that goes on, as `serve` does: it writes too, and what it was told is written must stay.
    witness: Index,
    reported: usize,
    /// The round that each manifest in the index is of.
    rounds: Vec<usize>,
    round: usize,
    /// How long the work takes when nobody is killed, as far as we know: other tests make it vary.
    usual: Duration,
    killed: usize,
}

impl Victim {
    fn new(work: &str) -> Self {
        let library = Library::new();
        library.write(MANIFESTS, 0);
        library.run(&["index", "build"]).succeeds();
        library.write(MANIFESTS, 1);
        let started = Instant::now();
        library.run(&["index", work]).succeeds();
        let usual = started.elapsed();
        let witness = library.open();
        Self { library, witness, reported: 0, rounds: vec![1; MANIFESTS], round: 1, usual, killed: 0 }
    }

    /// Starts the work on manifests that all changed.
    fn begins(&mut self, work: &str) -> Child {
        self.round += 1;
        self.library.write(MANIFESTS, self.round);
        let mut command = self.library.mender(&["index", work]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Writes a file URL and a heal, which are reported as written when this returns.
    fn reports(&mut self) {
        let url = file_url(self.reported);
        self.witness.learn_file_url(uuid_of_file_url(&url), &url).unwrap();
        let heal = HealRecord {
            at: i64::MAX,
            identifier: url,
            verdict: "healed".to_owned(),
            ..HealRecord::default()
        };
        record(&self.witness, &[heal], Retention { age: Duration::from_hours(1), rows: 1000 }).unwrap();
        self.reported += 1;
    }

    /// Kills it, and looks at what is left. `whole`: all manifests change at once or none does.
    fn ends(&mut self, mut child: Child, whole: bool) {
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let is_killed = status.signal() == Some(9);
        self.killed += usize::from(is_killed);
        self.usual = self.usual.mul_f64(if is_killed { 1.1 } else { 0.7 });
        let index = self.library.open();
        let fresh: Vec<bool> = (0..MANIFESTS).map(|number| self.is_fresh(&index, number)).collect();
        if status.success() {
            assert!(fresh.iter().all(|fresh| *fresh), "it said that all was read");
        }
        if whole {
            assert!(fresh.iter().all(|one| *one == fresh[0]), "neither the old index nor the new one");
        }
        for (round, fresh) in self.rounds.iter_mut().zip(fresh) {
            *round = if fresh { self.round } else { *round };
        }
        self.keeps_what_was_reported(&index);
    }

    /// Whether this manifest is the one of this round; else it is the one before, whole.
    fn is_fresh(&self, index: &Index, number: usize) -> bool {
        let found = |round| (0..PAGES).filter(|page| is_known(index, &key(number, round, *page))).count();
        let (old, new) = (found(self.rounds[number]), found(self.round));
        assert!(
            matches!((old, new), (PAGES, 0) | (0, PAGES)),
            "manifest {number}: {old} old, {new} new pages"
        );
        new == PAGES
    }

    fn keeps_what_was_reported(&self, index: &Index) {
        for number in 0..self.reported {
            let url = file_url(number);
            assert_eq!(index.file_url(uuid_of_file_url(&url)).unwrap().as_deref(), Some(&*url));
        }
        let all = HistoryPage { limit: 1000, ..HistoryPage::default() };
        assert_eq!(index.history(&HistoryFilter::default(), all).unwrap().len(), self.reported);
    }

    /// After all of it: the work succeeds, and the killed left nothing behind.
    fn recovers(mut self, least: usize) {
        self.round += 1;
        self.library.write(MANIFESTS, self.round);
        self.library.run(&["index", "build"]).succeeds();
        let index = self.library.open();
        assert!((0..MANIFESTS).all(|number| self.is_fresh(&index, number)));
        self.keeps_what_was_reported(&index);
        assert!(self.killed >= least, "only {} were still at work when they were killed", self.killed);
        let current = fs::read_link(self.library.path()).unwrap();
        let current = current.to_str().unwrap();
        for entry in fs::read_dir(self.library.folder.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let is_known =
                ["config.toml", "manifests", "index.sqlite3", "index.sqlite3.lock"].contains(&&*name);
            assert!(is_known || name.starts_with(current), "{name} was left behind");
        }
    }
}

fn file_url(number: usize) -> String {
    format!("https://api.library.tamu.edu/fcrepo/rest/{number}/files/1.tif")
}

fn random(below: Duration) -> Duration {
    below.mul_f64(fastrand::f64())
}

#[test]
fn a_build_killed_at_any_moment_leaves_the_old_index_or_the_new_one() {
    let mut victim = Victim::new("build");
    for _ in 0..20 {
        let child = victim.begins("build");
        std::thread::sleep(random(victim.usual.mul_f64(0.5)));
        victim.reports();
        std::thread::sleep(random(victim.usual.mul_f64(0.5)));
        victim.ends(child, true);
    }
    victim.recovers(5);
}

#[test]
fn a_refresh_killed_at_any_moment_leaves_each_manifest_old_or_new() {
    let mut victim = Victim::new("refresh");
    for _ in 0..15 {
        let child = victim.begins("refresh");
        std::thread::sleep(random(victim.usual.mul_f64(0.5)));
        victim.reports();
        std::thread::sleep(random(victim.usual.mul_f64(0.5)));
        victim.ends(child, false);
    }
    victim.recovers(5);
}

#[test]
fn a_build_killed_while_it_swaps_leaves_the_old_index_or_the_new_one() {
    let mut victim = Victim::new("build");
    for _ in 0..15 {
        let before = fs::read_link(victim.library.path()).unwrap();
        let mut child = victim.begins("build");
        let link = PathBuf::from(format!("{}.link", victim.library.path().display()));
        // The new link is there, or stands in its place already: that is the swap.
        while fs::symlink_metadata(&link).is_err()
            && fs::read_link(victim.library.path()).is_ok_and(|now| now == before)
            && child.try_wait().unwrap().is_none()
        {
            std::hint::spin_loop();
        }
        let moment = Instant::now() + random(Duration::from_micros(800));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        victim.ends(child, true);
        victim.reports();
    }
    victim.recovers(5);
}
