//! Tests of watched directories, and of removal on request.

use crate::index::sources::remove::remove;
use std::collections::BTreeSet;

use super::*;
use crate::index::sources::build::Build;
use crate::index::sources::refresh::Refresh;

impl IndexBench {
    fn reread(&self, index: &Index, paths: &[PathBuf], grace: Duration) -> RefreshReport {
        let paths: BTreeSet<PathBuf> = paths.iter().cloned().collect();
        Refresh::new(index, &RefreshOptions { grace }).paths(&self.sources(), &paths, &mut |_, _| {}).unwrap()
    }
}

#[test]
fn only_the_files_that_are_told_of_are_read_again() {
    let bench = IndexBench::new();
    for name in ["a.json", "b.json", "c.json"] {
        bench.write(name, &[name]);
    }
    let index = bench.open();
    bench.build(&index);
    bench.write("a.json", &["new"]);
    bench.write("b.json", &["unheard-of"]);
    fs::write(bench.file("notes.txt"), "not JSON").unwrap();
    let told = [bench.file("a.json"), bench.file("notes.txt"), PathBuf::from("/elsewhere/x.json")];
    let report = bench.reread(&index, &told, Duration::ZERO);
    assert_eq!((report.files, report.manifests, report.problems.len()), (1, 1, 0));
    assert_eq!(canvases_of(&index, "new").len(), 1);
    assert!(canvases_of(&index, "unheard-of").is_empty());
}

#[test]
fn a_file_or_directory_that_went_away_is_kept_for_the_grace_and_a_new_one_is_read_whole() {
    let (bench, index) = built(&[("a.json", &["a"])]);
    fs::create_dir(bench.file("box")).unwrap();
    for name in ["box/b.json", "box/c.json", "box0.json"] {
        bench.write(name, &[&name.replace('/', "-")]);
    }
    let report = bench.reread(&index, &[bench.file("box"), bench.file("box0.json")], Duration::ZERO);
    assert_eq!(report.manifests, 3);
    fs::remove_dir_all(bench.file("box")).unwrap();
    let report = bench.reread(&index, &[bench.file("box")], Duration::ZERO);
    assert_eq!((report.vanished, report.dropped), (2, 0), "not what is only called similarly");
    assert_eq!(canvases_of(&index, "box-b.json").len(), 1);
    assert_eq!(bench.refresh_with(&index, Duration::ZERO).dropped, 2);
    assert_eq!(canvases_of(&index, "box0.json").len(), 1);
}

#[test]
fn a_file_that_names_no_images_any_more_is_believed_after_the_grace() {
    let empty = r#"{"@id": "https://example.org/m", "@type": "sc:Manifest", "sequences": [{"canvases": [
        {"@id": "https://example.org/c", "@type": "sc:Canvas", "images": []}]}]}"#;
    for text in [r#"{"error": "down"}"#, "[]", empty] {
        let (bench, index) = built(&[("a.json", &["a"])]);
        let good = fs::read(bench.file("a.json")).unwrap();
        fs::write(bench.file("a.json"), text).unwrap();
        let day = Duration::from_hours(24);
        for report in [bench.reread(&index, &[bench.file("a.json")], day), bench.refresh_with(&index, day)] {
            assert_eq!((report.problems.len(), report.dropped), (1, 0), "{text}");
            assert!(report.problems[0].message.contains("names no images"), "{:?}", report.problems);
            assert_eq!(canvases_of(&index, "a").len(), 1, "{text}");
        }
        bench.build(&index);
        assert_eq!(canvases_of(&index, "a").len(), 1, "{text}, built anew");
        fs::write(bench.file("a.json"), &good).unwrap();
        assert_eq!(bench.refresh_with(&index, Duration::ZERO).problems, []);
        assert_eq!(canvases_of(&index, "a").len(), 1, "{text}, and back");
        fs::write(bench.file("a.json"), text).unwrap();
        bench.refresh_with(&index, day);
        bench.refresh_with(&index, Duration::ZERO);
        assert!(canvases_of(&index, "a").is_empty(), "{text}, after the grace");
    }
}

#[test]
fn a_source_that_is_away_as_a_whole_proves_nothing_and_lost_events_mean_everything() {
    let (bench, index) = built(&[("a.json", &["a"])]);
    fs::rename(bench.dir.path().join("manifests"), bench.dir.path().join("away")).unwrap();
    let all = [bench.file("a.json"), bench.dir.path().join("manifests"), PathBuf::from("/")];
    for told in [&all[..1], &all[1..2], &all[2..]] {
        assert_eq!(bench.reread(&index, told, Duration::ZERO), RefreshReport::default());
    }
    fs::rename(bench.dir.path().join("away"), bench.dir.path().join("manifests")).unwrap();
    bench.write("b.json", &["b"]);
    assert_eq!(bench.reread(&index, &all[2..], Duration::ZERO).manifests, 1);
}

#[test]
fn a_removed_source_is_forgotten_at_once_and_one_that_is_configured_says_so() {
    let bench = IndexBench::new();
    for at in 0..250 {
        bench.write(&format!("{at}.json"), &[&format!("image-{at}")]);
    }
    let index = bench.open();
    bench.refresh(&index);
    let more = bench.dir.path().join("more.json");
    fs::write(&more, manifest("more", &["more"])).unwrap();
    sources::add(&index, &[SourceSettings::path(&more)]).unwrap();
    Refresh::new(&index, &RefreshOptions::default())
        .run(&[SourceSettings::path(&more)], &mut |_, _| {})
        .unwrap();
    let removed = remove(&index, &SourceSettings::path(&more), &bench.sources(), &mut |_| {}).unwrap();
    assert_eq!((removed.documents, removed.is_known, removed.is_configured), (1, true, false));
    assert!(canvases_of(&index, "more").is_empty());
    assert_eq!(index.sources(&bench.sources()).unwrap().len(), 1);
    let removed = remove(&index, &bench.sources()[0], &bench.sources(), &mut |_| {}).unwrap();
    assert_eq!((removed.documents, removed.is_configured), (250, true));
    assert_eq!(index.stats().unwrap().images, 0);
    let again = remove(&index, &SourceSettings::path(&more), &[], &mut |_| {}).unwrap();
    assert!(!again.is_known);
}

#[test]
fn a_source_that_is_switched_off_is_neither_read_nor_forgotten() {
    let (bench, index) = built(&[("a.json", &["one"])]);
    bench.write("a.json", &["two"]);
    let off: Vec<SourceSettings> =
        bench.sources().into_iter().map(|of| SourceSettings { enabled: false, ..of }).collect();
    assert!(index.sources(&off).unwrap().is_empty());
    let report =
        Build::new(&index, &RefreshOptions { grace: Duration::ZERO }).run(&off, &mut |_, _| {}).unwrap();
    assert_eq!((report.files, report.vanished, report.dropped), (0, 0, 0));
    assert_eq!(canvases_of(&index, "one").len(), 1);
}
