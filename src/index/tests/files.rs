//! Tests of sources: building, refreshing, broken files, vanished files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::*;
use crate::index::sources::build::Build;
use crate::index::sources::refresh::Refresh;

#[test]
fn only_what_changed_is_read_again() {
    let bench = IndexBench::new();
    bench.write("a.json", &["one"]);
    bench.write("b.json", &["two"]);
    let index = bench.open();
    let first = bench.refresh(&index);
    assert_eq!((first.files, first.manifests, first.unchanged), (2, 2, 0));
    bench.write("b.json", &["three", "four"]);
    let second = bench.refresh(&index);
    assert_eq!((second.files, second.manifests, second.unchanged), (2, 1, 1));
    assert!(canvases_of(&index, "two").is_empty());
    assert_eq!(canvases_of(&index, "four"), [canvas_url("b.json", 2)]);
    assert_eq!(index.stats().unwrap().images, 3);
}

#[test]
fn a_file_that_was_only_touched_is_unchanged_and_one_of_the_same_size_is_not() {
    let bench = IndexBench::new();
    bench.write("a.json", &["one"]);
    bench.write("b.json", &["two"]);
    let index = bench.open();
    bench.refresh(&index);
    let past = SystemTime::now() - Duration::from_hours(1);
    fs::File::options().write(true).open(bench.file("a.json")).unwrap().set_modified(past).unwrap();
    bench.write("b.json", &["six"]);
    let report = bench.refresh(&index);
    assert_eq!((report.manifests, report.unchanged), (1, 1));
    assert_eq!(canvases_of(&index, "six"), [canvas_url("b.json", 1)]);
}

#[test]
fn a_broken_file_is_reported_with_its_place_and_what_was_known_from_it_stays() {
    let (bench, index) = built(&[("a.json", &["one"]), ("b.json", &["two"])]);
    fs::write(bench.file("a.json"), "{\"@id\": \"x\",\n  \"sequences\": [}").unwrap();
    for (way, report) in [("refresh", bench.refresh(&index)), ("build", bench.build(&index))] {
        let problem = &report.problems[0];
        assert_eq!(problem.path, bench.file("a.json").to_str().unwrap(), "{way}");
        assert_eq!((problem.line, problem.column), (Some(2), Some(17)), "{way}: {problem:?}");
        assert!(!problem.message.contains(" at line "), "{problem:?}");
        assert_eq!(report.problems.len(), 1);
        assert_eq!(canvases_of(&index, "one"), [canvas_url("a.json", 1)], "{way}");
        assert_eq!(canvases_of(&index, "two"), [canvas_url("b.json", 1)], "{way}");
    }
}

#[test]
fn a_large_file_cut_short_leaves_nothing_behind() {
    let bench = IndexBench::new();
    let images: Vec<String> = (0..30_000).map(|i| format!("image-{i}")).collect();
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let json = manifest("a.json", &images);
    assert!(json.len() > 9_000_000 / 2, "{}", json.len());
    let json = json.replace("\"sc:Canvas\"", &format!("\"sc:Canvas\",\"pad\":\"{}\"", "x".repeat(300)));
    assert!(json.len() > 9 << 20, "read in pieces");
    fs::write(bench.file("a.json"), &json[..json.len() - 40]).unwrap();
    bench.write("b.json", &["two"]);
    let index = bench.open();
    let report = bench.build(&index);
    assert_eq!((report.problems.len(), report.manifests, report.images), (1, 1, 1));
    assert!(canvases_of(&index, "image-7").is_empty());
    assert_eq!(canvases_of(&index, "two"), [canvas_url("b.json", 1)]);
    fs::write(bench.file("a.json"), &json).unwrap();
    assert_eq!(bench.build(&index).images, 30_001);
    assert_eq!(canvases_of(&index, "image-29999"), [canvas_url("a.json", 30_000)]);
}

#[test]
fn a_log_whose_mapped_index_was_cut_is_an_error_and_no_end_of_the_process() {
    for part in [0, 1] {
        let (bench, index) = built(&[("a.json", &["one"])]);
        assert_eq!(canvases_of(&index, "one").len(), 1);
        let mut mapped = fs::canonicalize(bench.path()).unwrap().into_os_string();
        mapped.push("-shm");
        let length = fs::metadata(&mapped).unwrap().len();
        assert!(length >= 32 << 10, "{length}");
        fs::OpenOptions::new().write(true).open(&mapped).unwrap().set_len(length * part / 2).unwrap();
        let uuid = "0b2ad5fd-bd0b-3a33-a5ee-8c1d1f2d5a54".parse().unwrap();
        assert!(matches!(index.file_url(uuid), Err(IndexError::Cut { .. })), "{part}/2");
        assert_eq!(fs::metadata(&mapped).unwrap().len(), length, "{part}/2");
        drop(index);
        assert_eq!(canvases_of(&bench.open(), "one").len(), 1, "{part}/2");
    }
}

#[test]
fn a_file_whose_name_is_no_text_is_read_and_takes_no_other_s_place() {
    let bench = IndexBench::new();
    let file = |name: &'static [u8]| bench.file("").join(OsStr::from_bytes(name));
    let files: [(&[u8], &str); 4] = [
        (b"M\xfcller/1.json", "one"),
        (b"M\xf6ller/1.json", "two"),
        (b"\xfc.json", "three"),
        (b"\xf6.JSON", "four"),
    ];
    for (name, image) in files {
        fs::create_dir_all(file(name).parent().unwrap()).unwrap();
        fs::write(file(name), manifest(image, &[image])).unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(bench.file("socket.json")).unwrap();
    let index = bench.open();
    let built = bench.build(&index);
    assert_eq!((built.images, built.passed_over), (4, 1));
    for (_, image) in files {
        assert_eq!(canvases_of(&index, image), [canvas_url(image, 1)]);
    }
    assert_eq!(bench.refresh(&index).unchanged, 4);
    fs::remove_file(file(files[0].0)).unwrap();
    let left = bench.refresh_with(&index, Duration::ZERO);
    assert_eq!((left.vanished, left.unchanged), (1, 3));
    let gone = bench.refresh_with(&index, Duration::ZERO);
    assert_eq!((gone.dropped, canvases_of(&index, "one").len(), canvases_of(&index, "two").len()), (1, 0, 1));
}

#[test]
fn what_vanished_is_kept_for_the_grace_and_comes_back_if_the_file_does() {
    let (bench, index) = built(&[("a.json", &["one"]), ("b.json", &["two"])]);
    let json = fs::read(bench.file("a.json")).unwrap();
    fs::remove_file(bench.file("a.json")).unwrap();
    let report = bench.refresh_with(&index, Duration::ZERO);
    assert_eq!((report.vanished, report.dropped), (1, 0), "never at once, whatever the grace");
    assert_eq!(canvases_of(&index, "one"), [canvas_url("a.json", 1)]);
    assert_eq!(bench.build(&index).vanished, 1, "nor by a build");
    assert_eq!(index.stats().unwrap().vanished, 1);
    fs::write(bench.file("a.json"), json).unwrap();
    assert_eq!(bench.refresh(&index).vanished, 0);
    assert_eq!(index.stats().unwrap().vanished, 0);
    fs::remove_file(bench.file("a.json")).unwrap();
    assert_eq!(bench.refresh(&index).vanished, 1);
    assert_eq!(bench.refresh_with(&index, Duration::ZERO).dropped, 1);
    assert!(canvases_of(&index, "one").is_empty());
    assert_eq!(index.stats().unwrap().manifests, 1);
}

#[test]
fn a_directory_that_cannot_be_seen_proves_nothing_about_its_files() {
    let (bench, index) = built(&[("a.json", &["one"])]);
    fs::rename(bench.dir.path().join("manifests"), bench.dir.path().join("unmounted")).unwrap();
    for _ in 0..2 {
        let report = bench.refresh_with(&index, Duration::ZERO);
        assert_eq!((report.problems.len(), report.vanished, report.dropped), (1, 0, 0));
    }
    let report = Build::new(&index, &RefreshOptions { grace: Duration::ZERO })
        .run(&bench.sources(), &mut |_, _| {})
        .unwrap();
    assert_eq!((report.problems.len(), report.vanished, report.dropped), (1, 0, 0));
    assert_eq!(canvases_of(&index, "one"), [canvas_url("a.json", 1)]);
}

#[test]
fn collections_and_other_json_are_skipped_and_links_in_circles_end() {
    let bench = IndexBench::new();
    bench.write("a.json", &["one"]);
    fs::write(bench.file("c.json"), r#"{"@type":"sc:Collection","@id":"https://x.test/c","manifests":[]}"#)
        .unwrap();
    fs::write(bench.file("package.json"), r#"{"name":"viewer"}"#).unwrap();
    fs::write(bench.file("notes.txt"), "not JSON").unwrap();
    std::os::unix::fs::symlink(bench.dir.path().join("manifests"), bench.file("loop")).unwrap();
    let index = bench.open();
    let report = bench.build(&index);
    assert_eq!((report.files, report.manifests, report.skipped), (3, 1, 2));
    assert_eq!(report.problems, []);
    assert_eq!(index.stats().unwrap().manifests, 1);
    assert_eq!(bench.refresh(&index).unchanged, 3, "nor are they read again");
}

#[test]
fn a_list_of_manifests_and_a_collection_that_holds_one_are_not_skipped() {
    let bench = IndexBench::new();
    fs::write(bench.file("list.json"), format!("[{}]", manifest("a", &["one"]))).unwrap();
    let nested = manifest("b", &["two"]);
    let collection = format!(r#"{{"@id": "c", "@type": "sc:Collection", "manifests": [{nested}]}}"#);
    fs::write(bench.file("collection.json"), collection).unwrap();
    let index = bench.open();
    let report = bench.build(&index);
    assert_eq!((report.manifests, report.images, report.skipped), (2, 2, 0));
    assert_eq!((canvases_of(&index, "one").len(), canvases_of(&index, "two").len()), (1, 1));
}

#[test]
fn a_url_is_told_to_be_out_of_reach_and_an_added_source_is_looked_at_from_then_on() {
    let bench = IndexBench::new();
    let index = bench.open();
    let url = SourceSettings::url("https://images.test/collection");
    let report = Refresh::new(&index, &RefreshOptions::default()).run(&[url], &mut |_, _| {}).unwrap();
    assert_eq!(report.problems[0].path, "https://images.test/collection");
    let alone = bench.dir.path().join("alone.manifest");
    fs::write(&alone, manifest("alone", &["lonely"])).unwrap();
    sources::add(&index, &[SourceSettings::path(alone)]).unwrap();
    bench.write("a.json", &["one"]);
    assert_eq!(bench.build(&index).manifests, 2);
    assert_eq!(canvases_of(&index, "lonely"), [canvas_url("alone", 1)]);
    assert_eq!(index.sources(&bench.sources()).unwrap().len(), 2);
}

#[test]
fn a_source_that_is_no_longer_configured_is_forgotten_by_a_build() {
    let (_bench, index) = built(&[("a.json", &["one"])]);
    Build::new(&index, &RefreshOptions::default()).run(&[], &mut |_, _| {}).unwrap();
    assert!(canvases_of(&index, "one").is_empty());
}
