//! The history of heals.

use super::super::history::writer::HistoryWriter;
use super::super::history::{HealRecord, HistoryFilter, HistoryPage, Retention, prune_history, record};
use super::*;
use crate::index::sources::build::Build;
use crate::observe::{Metrics, now_ms};

const BOUNDS: Retention = Retention { age: Duration::from_hours(24), rows: 10 };

fn heal(identifier: &str, at: i64) -> HealRecord {
    HealRecord {
        at,
        identifier: identifier.to_owned(),
        canvas: Some(canvas_url("a.json", 1)),
        manifest: Some(manifest_uri("a.json")),
        rung: Some("visit".to_owned()),
        verdict: "healed".to_owned(),
        lane: "viewer".to_owned(),
        duration_ms: 812,
        waiting: 3,
        request: None,
        reason: None,
    }
}

/// The identifiers of all heals, newest first.
fn told(index: &Index) -> Vec<String> {
    let all = index.history(&HistoryFilter::default(), HistoryPage::default()).unwrap();
    all.into_iter().map(|entry| entry.heal.identifier).collect()
}

#[test]
fn heals_are_told_newest_first_page_by_page_and_by_what_is_asked_for() {
    let bench = IndexBench::new();
    let index = bench.open();
    assert!(told(&index).is_empty());
    let now = now_ms();
    let failed = HealRecord { verdict: "failed".to_owned(), rung: None, ..heal("two", now - 1_000) };
    record(&index, &[heal("one", now - 2_000), failed, heal("three", now)], BOUNDS).unwrap();
    assert_eq!(told(&index), ["three", "two", "one"]);
    let first = index.history(&HistoryFilter::default(), HistoryPage { before: None, limit: 2 }).unwrap();
    assert_eq!((first.len(), &first[0].heal), (2, &heal("three", now)));
    let rest = index
        .history(&HistoryFilter::default(), HistoryPage { before: Some(first[1].id), limit: 2 })
        .unwrap();
    assert_eq!(rest.len(), 1);
    let count = |filter| index.history(&filter, HistoryPage::default()).unwrap().len();
    assert_eq!(count(HistoryFilter { since: Some(now - 1_500), ..HistoryFilter::default() }), 2);
    assert_eq!(count(HistoryFilter { until: Some(now), ..HistoryFilter::default() }), 2);
    assert_eq!(count(HistoryFilter { identifier: Some("one".to_owned()), ..HistoryFilter::default() }), 1);
    assert_eq!(count(HistoryFilter { canvas: Some(canvas_url("a.json", 1)), ..HistoryFilter::default() }), 3);
    assert_eq!(count(HistoryFilter { verdict: Some("failed".to_owned()), ..HistoryFilter::default() }), 1);
}

#[test]
fn the_history_is_bounded_by_age_and_by_rows() {
    let bench = IndexBench::new();
    let index = bench.open();
    let now = now_ms();
    for round in 0..5 {
        let heals: Vec<HealRecord> = (0..7).map(|i| heal(&format!("{round}-{i}"), now)).collect();
        record(&index, &heals, BOUNDS).unwrap();
    }
    let all = told(&index);
    assert_eq!((all.len(), &*all[0], &*all[9]), (10, "4-6", "3-4"));
    record(&index, &[heal("old", now - 25 * 60 * 60 * 1000)], Retention { rows: 100, ..BOUNDS }).unwrap();
    assert!(!told(&index).contains(&"old".to_owned()));
    prune_history(&index, Retention { rows: 2, ..BOUNDS }).unwrap();
    assert!(told(&index).len() <= 2);
    let late = Retention { age: Duration::ZERO, rows: 2 };
    std::thread::sleep(Duration::from_millis(2));
    prune_history(&index, late).unwrap();
    assert!(told(&index).is_empty());
}

#[test]
fn the_history_is_carried_to_the_next_generation_under_the_same_numbers() {
    let bench = IndexBench::new();
    bench.write("a.json", &["one"]);
    let (index, elsewhere) = (bench.open(), bench.open());
    record(&index, &[heal("one", now_ms()), heal("two", now_ms())], BOUNDS).unwrap();
    let before = index.history(&HistoryFilter::default(), HistoryPage::default()).unwrap();
    for round in 0..3 {
        // Between building and swapping: heals that end in the meantime are carried over as well.
        let mut first = true;
        Build::new(&index, &RefreshOptions::default())
            .run(&bench.sources(), &mut |_, _| {
                if std::mem::take(&mut first) {
                    record(&elsewhere, &[heal(&format!("late-{round}"), now_ms())], BOUNDS).unwrap();
                }
            })
            .unwrap();
    }
    assert_eq!(told(&bench.open()), ["late-2", "late-1", "late-0", "two", "one"]);
    let after = index.history(&HistoryFilter::default(), HistoryPage::default()).unwrap();
    assert_eq!(after[3..], before);
}

#[test]
fn a_file_of_the_first_version_gets_a_history() {
    let bench = IndexBench::new();
    bench.write("a.json", &["one"]);
    let index = bench.open();
    bench.refresh(&index);
    drop(index);
    let first = "DROP TABLE heals; DROP TABLE marks; PRAGMA user_version = 1;";
    Connection::open(bench.path()).unwrap().execute_batch(first).unwrap();
    let index = bench.open();
    assert!(told(&index).is_empty());
    record(&index, &[heal("one", now_ms())], BOUNDS).unwrap();
    assert_eq!(told(&index), ["one"]);
    assert_eq!(canvases_of(&index, "one"), [canvas_url("a.json", 1)]);
}

#[test]
fn a_reason_is_kept_over_a_build_and_a_file_of_before_gets_reasons() {
    let bench = IndexBench::new();
    bench.write("a.json", &["one"]);
    let index = bench.open();
    bench.refresh(&index);
    record(&index, &[heal("old", now_ms())], BOUNDS).unwrap();
    drop(index);
    let before = "ALTER TABLE heals DROP COLUMN reason; PRAGMA user_version = 4;";
    Connection::open(bench.path()).unwrap().execute_batch(before).unwrap();
    let index = bench.open();
    let why = Some("the canvas service answered 500".to_owned());
    record(&index, &[HealRecord { reason: why.clone(), ..heal("new", now_ms()) }], BOUNDS).unwrap();
    bench.build(&index);
    let all = index.history(&HistoryFilter::default(), HistoryPage::default()).unwrap();
    let told: Vec<_> = all.iter().map(|entry| (&*entry.heal.identifier, entry.heal.reason.clone())).collect();
    assert_eq!(told, [("new", why), ("old", None)]);
}

#[tokio::test]
async fn a_heal_never_waits_for_the_disk_and_what_is_dropped_is_counted() {
    const HEALS: usize = 10_000;
    let bench = IndexBench::new();
    let (index, metrics) = (Arc::new(bench.open()), Arc::new(Metrics::new()));
    let bounds = Retention { rows: 10_000, ..BOUNDS };
    let recorder = HistoryWriter::start(Arc::clone(&index), bounds, Arc::clone(&metrics));
    let other = Connection::open(bench.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let started = Instant::now();
    for number in 0..HEALS {
        recorder.note(heal(&number.to_string(), 0));
    }
    assert!(started.elapsed() < Duration::from_secs(1));
    other.execute_batch("ROLLBACK").unwrap();
    drop(recorder);
    let dropped = || {
        let scrape = metrics.scrape();
        let line = scrape.lines().find(|line| line.contains("history_dropped")).unwrap_or("0 0").to_owned();
        line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()
    };
    let all = HistoryPage { before: None, limit: 10_000 };
    let written = || index.history(&HistoryFilter::default(), all).unwrap().len();
    for _ in 0..1000 {
        if written() + dropped() == HEALS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(written() + dropped(), HEALS);
    assert!(dropped() > 0 && written() >= 4096, "{} written", written());
}
