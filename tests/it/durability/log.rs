//! The index's log stays short beside other processes that read.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use iiif_mender::iiif::identifier::uuid_of_file_url;
use iiif_mender::iiif::manifest::{Canvas, Document};
use iiif_mender::index::history::{HealRecord, Retention, record};
use iiif_mender::index::learn::DocumentLearner;
use iiif_mender::index::{Index, IndexError};

use super::{Library, is_known};
use crate::support::program::KilledOnDrop;

/// The most that the log may ever be.
const BOUND: u64 = 16 << 20;

/// Tells the process that holds a snapshot of which index it is.
const HELD: &str = "IIIF_MENDER_TEST_HELD_INDEX";

fn log_size(index: &Path) -> u64 {
    let file = fs::canonicalize(index).unwrap();
    fs::metadata(format!("{}-wal", file.display())).map_or(0, |found| found.len())
}

/// Learns one document of 40 canvases, as each time another one.
fn learns(index: &Index, number: usize) -> Result<(), IndexError> {
    let canvases: Vec<Canvas> = (0..40)
        .map(|at| Canvas {
            id: format!("https://images.test/canvas/{number}/{at}"),
            label: Some("x".repeat(200)),
            images: vec![format!("{number}-{at}")],
        })
        .collect();
    DocumentLearner::new(index)
        .document(&Document::default(), &canvases, &format!("https://images.test/{number}"))
        .map(drop)
}

/// What a sweep writes: heals, and where the files are.
fn heals(index: &Index, number: usize) -> Result<(), IndexError> {
    let url = format!("https://files.test/{number}.tif");
    index.learn_file_url(uuid_of_file_url(&url), &url)?;
    let heal =
        HealRecord { at: i64::MAX, identifier: url, verdict: "healed".to_owned(), ..HealRecord::default() };
    record(index, &vec![heal; 40], Retention { age: Duration::from_hours(1), rows: 100_000 })
}

#[test]
fn an_export_that_nobody_reads_on_keeps_no_log() {
    let library = Library::new();
    let index = library.open();
    (0..100).for_each(|number| learns(&index, number).unwrap());
    let mut export = library.mender(&["index", "export"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = export.stdout.take().unwrap();
    let export = KilledOnDrop(export);
    // Who looked once and rests, as another command does, keeps no log either.
    let resting = library.open();
    assert!(is_known(&resting, "0-1"));
    // From here on it stands still: there is more to tell than a pipe holds.
    out.read_exact(&mut [0]).unwrap();
    let mut longest = 0;
    for number in 100..900 {
        learns(&index, number).unwrap();
        heals(&index, number).unwrap();
        longest = longest.max(log_size(&library.path()));
    }
    assert!(fs::metadata(fs::canonicalize(library.path()).unwrap()).unwrap().len() > BOUND / 2, "too little");
    assert!(longest <= BOUND, "{longest}");
    // It goes on as if nothing had been.
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(rest.lines().count() >= 100 * 40 - 1, "{}", rest.lines().count());
    drop(export);
}

/// What the next test starts as a process of its own: it reads once, and keeps its snapshot until its input ends.
#[test]
fn holds_a_snapshot() {
    let Some(path) = std::env::var_os(HELD) else { return };
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.execute_batch("BEGIN").unwrap();
    let known: i64 = conn.query_row("SELECT count(*) FROM manifests", [], |row| row.get(0)).unwrap();
    writeln!(std::io::stdout(), "holds {known}").unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn beside_a_process_that_holds_a_snapshot_the_log_is_bounded_and_writing_goes_on_behind_it() {
    let library = Library::new();
    let index = library.open();
    (0..20).for_each(|number| learns(&index, number).unwrap());
    let mut holder = Command::new(std::env::current_exe().unwrap());
    holder.args(["--exact", "durability::log::holds_a_snapshot", "--nocapture"]);
    holder.env(HELD, fs::canonicalize(library.path()).unwrap());
    let mut holder = KilledOnDrop(holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let said = BufReader::new(holder.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.into_iter().any(|line| line.contains("holds 20")), "the other process reads");
    let (mut longest, mut refused, mut written) = (0, 0, 20);
    for number in 20..900 {
        for done in [learns(&index, number), heals(&index, number)] {
            match done {
                Ok(()) => written = number,
                Err(IndexError::LogFull { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        longest = longest.max(log_size(&library.path()));
        assert!(is_known(&index, &format!("{}-7", number % 20)), "look-ups go on");
    }
    assert!(longest <= BOUND, "{longest}");
    assert!(refused > 0 && written < 899, "too little was written to show anything");
    drop(holder.0.stdin.take());
    holder.0.wait().unwrap();
    for number in 900..1000 {
        learns(&index, number).unwrap();
        assert!(is_known(&index, &format!("{number}-7")));
    }
    assert!(log_size(&library.path()) <= BOUND / 2, "{}", log_size(&library.path()));
}
