//! Tests with several processes, swaps, and unexpected files.

use super::*;
use crate::iiif::manifest::{Canvas, Document};
use crate::index::learn::DocumentLearner;
use crate::index::sources::build::Build;

#[test]
fn what_one_process_changes_another_sees() {
    let bench = IndexBench::new();
    let (one, other) = (bench.open(), bench.open());
    assert!(other.owners("one").unwrap().is_empty(), "remembered as unknown");
    bench.write("a.json", &["one"]);
    bench.refresh(&one);
    assert_eq!(canvases_of(&one, "one").len(), 1, "at once where it was changed");
    assert!(soon(|| canvases_of(&other, "one").len() == 1), "soon elsewhere");
    bench.write("a.json", &["two"]);
    bench.build(&one);
    assert!(soon(|| canvases_of(&other, "one").is_empty() && canvases_of(&other, "two").len() == 1));
}

#[test]
fn nothing_is_written_into_a_file_that_was_replaced() {
    let bench = IndexBench::new();
    let (one, other) = (bench.open(), bench.open());
    let url = "https://images.test/fcrepo/rest/a/files/b.tif";
    for round in 0..3 {
        bench.build(&one);
        let url = format!("{url}?{round}");
        other.learn_file_url(uuid_of_file_url(&url), &url).unwrap();
        let elsewhere = bench.open();
        assert_eq!(elsewhere.file_url(uuid_of_file_url(&url)).unwrap().as_deref(), Some(&*url));
    }
    assert_eq!(one.stats().unwrap().files, 3, "and builds carry over what was learned");
}

#[test]
fn lookups_stay_right_while_builds_swap_the_file_and_old_generations_go() {
    let (bench, index) = built(&[("a.json", &["one", "two", "three"])]);
    let done = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let owners =
                        |key| index.store().owners(key, keys::digest(key), &index.names.load()).unwrap();
                    let mut asked = 0_u64;
                    while !done.load(Ordering::Relaxed) {
                        assert_eq!(canvases_of(&index, "two"), [canvas_url("a.json", 2)]);
                        assert!(owners("nobody").is_empty());
                        assert_eq!(owners("three").len(), 1);
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for _ in 0..10 {
            bench.build(&index);
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>()
    });
    assert!(asked > 0);
    let mut names: Vec<String> = fs::read_dir(bench.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect();
    names.sort();
    assert_eq!(names, ["index.sqlite3", "index.sqlite3.g11", "index.sqlite3.lock", "manifests"]);
}

#[test]
fn what_is_learned_while_a_build_runs_is_not_lost() {
    let bench = IndexBench::new();
    for i in 0..50 {
        bench.write(&format!("{i}.json"), &["x"]);
    }
    let (index, other) = (bench.open(), bench.open());
    let document = Document::default();
    let mut learned = Vec::new();
    Build::new(&index, &RefreshOptions::default())
        .run(&bench.sources(), &mut |report, _| {
            let name = format!("learned-{}", report.files);
            let canvas = Canvas { id: name.clone(), label: None, images: vec![name.clone()] };
            DocumentLearner::new(&other).document(&document, &[canvas], &name).unwrap();
            learned.push(name);
        })
        .unwrap();
    assert_eq!(learned.len(), 50);
    for name in learned {
        assert_eq!(canvases_of(&index, &name), std::slice::from_ref(&name));
    }
}

#[test]
fn two_builds_at_once_are_one_too_many() {
    let bench = IndexBench::new();
    bench.write("a.json", &["one"]);
    let (one, other) = (bench.open(), bench.open());
    Build::new(&one, &RefreshOptions::default())
        .run(&bench.sources(), &mut |_, _| {
            let refused =
                Build::new(&other, &RefreshOptions::default()).run(&bench.sources(), &mut |_, _| {});
            assert!(matches!(refused, Err(IndexError::Building { .. })), "{refused:?}");
        })
        .unwrap();
}

#[test]
fn what_a_killed_build_left_behind_is_cleared_away() {
    let (bench, index) = built(&[("a.json", &["one"])]);
    let left = ["g7", "g7-wal", "g7.run-images-0", "link"].map(|end| {
        let path = bench.dir.path().join(format!("index.sqlite3.{end}"));
        fs::write(&path, "half").unwrap();
        path
    });
    bench.build(&index);
    assert!(left.iter().all(|path| !path.exists()));
    assert_eq!(canvases_of(&bench.open(), "one").len(), 1);
}

#[test]
fn an_operators_own_link_is_followed_and_kept() {
    let bench = IndexBench::new();
    let disk = bench.dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    std::os::unix::fs::symlink(disk.join("data.sqlite3"), bench.path()).unwrap();
    bench.write("a.json", &["one"]);
    let index = bench.open();
    bench.build(&index);
    assert_eq!(fs::read_link(bench.path()).unwrap(), disk.join("data.sqlite3"));
    assert_eq!(canvases_of(&bench.open(), "one").len(), 1);
    assert!(disk.join("data.sqlite3.g1").exists());
}

#[test]
fn an_index_in_a_directory_that_does_not_exist_is_an_error_that_says_so() {
    let bench = IndexBench::new();
    let error = Index::open(&bench.dir.path().join("nowhere/index.sqlite3"), 1).unwrap_err();
    assert!(matches!(error, IndexError::Io { .. }), "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn an_index_that_nobody_may_write_answers_but_does_not_learn() {
    let bench = IndexBench::new();
    bench.write("a.json", &["one"]);
    bench.build(&bench.open());
    let file = fs::canonicalize(bench.path()).unwrap();
    set_read_only(&file, true);
    // Root may write whatever the mode is; then this test proves nothing.
    if fs::File::options().write(true).open(&file).is_err() {
        let index = bench.open();
        assert_eq!(canvases_of(&index, "one").len(), 1);
        let url = "https://images.test/a";
        let error = index.learn_file_url(uuid_of_file_url(url), url).unwrap_err();
        assert!(matches!(error, IndexError::ReadOnly { .. }), "{error}");
    }
    set_read_only(&file, false);
}

fn set_read_only(path: &Path, on: bool) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(if on { 0o444 } else { 0o644 })).unwrap();
}
