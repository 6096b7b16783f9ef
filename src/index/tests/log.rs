//! Tests of the write-ahead log, which stays short beside any reader.

use super::*;
use crate::iiif::manifest::{Canvas, Document};
use crate::index::learn::DocumentLearner;

/// The most that the log may ever be.
const BOUND: u64 = 16 << 20;

fn log_size(file: &Path) -> u64 {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    fs::metadata(name).map_or(0, |found| found.len())
}

/// Learns one document of some kilobytes, a different one each time.
fn learns(index: &Index, number: usize) {
    let canvases: Vec<Canvas> = (0..40)
        .map(|at| Canvas {
            id: format!("https://images.test/canvas/{number}/{at}"),
            label: Some("x".repeat(200)),
            images: vec![format!("{number}-{at}")],
        })
        .collect();
    DocumentLearner::new(index)
        .document(&Document::default(), &canvases, &format!("https://images.test/{number}"))
        .unwrap();
}

#[test]
fn the_log_is_emptied_although_look_ups_fall_between_all_commits() {
    let bench = IndexBench::new();
    let index = bench.open();
    learns(&index, 0);
    let file = index.file();
    let mut longest = 0;
    for number in 1..900 {
        // Every reader has a snapshot of the commit before.
        assert_eq!(canvases_of(&index, &format!("{}-7", number - 1)).len(), 1);
        learns(&index, number);
        longest = longest.max(log_size(&file));
    }
    assert!(fs::metadata(&file).unwrap().len() > BOUND / 2, "too little was written to show anything");
    assert!(longest <= BOUND / 2, "{longest}");
}
