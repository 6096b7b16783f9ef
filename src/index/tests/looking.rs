//! Tests of look-ups and learning.

use super::*;
use crate::iiif::manifest::{Canvas, Document, DocumentKind};
use crate::index::learn::DocumentLearner;

const FILE: &str = "https://images.test/fcrepo/rest/a/b/pages/page_0/files/Lab%201.tif";
const DERIVED: &str = "https://images.test/iiif-service/fedora/canvas/a/b/pages/page_0";

#[test]
fn an_image_is_found_with_its_canvas_manifest_and_label() {
    let bench = IndexBench::new();
    bench.write("oil", &["one", "two"]);
    fs::rename(bench.file("oil"), bench.file("oil.json")).unwrap();
    let index = bench.open();
    let report = bench.build(&index);
    assert_eq!((report.files, report.manifests, report.canvases, report.images), (1, 1, 2, 2));
    let owner = Owner {
        canvas: canvas_url("oil", 2),
        manifest: manifest_uri("oil"),
        label: Some("Page 2".to_owned()),
    };
    assert_eq!(index.owners("two").unwrap().first(), Some(&owner));
    assert_eq!(index.canvas(&canvas_url("oil", 2)).unwrap(), [owner]);
    assert!(index.owners("three").unwrap().is_empty());
}

#[test]
fn a_manifest_without_an_id_is_named_by_its_file() {
    let bench = IndexBench::new();
    let json = manifest("x", &["one"]).replace(&format!("\"@id\":\"{}\",", manifest_uri("x")), "");
    fs::write(bench.file("a.json"), json).unwrap();
    let index = bench.open();
    bench.build(&index);
    assert_eq!(index.owners("one").unwrap()[0].manifest, bench.file("a.json").to_str().unwrap());
}

#[test]
fn an_image_on_many_canvases_has_each_once_and_64_at_most() {
    let bench = IndexBench::new();
    bench.write("a.json", &["same"; 20]);
    fs::copy(bench.file("a.json"), bench.file("b.json")).unwrap();
    bench.write("c.json", &["other"; 100]);
    let index = bench.open();
    bench.build(&index);
    let canvases = |file, pages: std::ops::RangeInclusive<usize>| -> Vec<String> {
        pages.map(|page| canvas_url(file, page)).collect()
    };
    assert_eq!(canvases_of(&index, "same"), canvases("a.json", 1..=20));
    assert_eq!(canvases_of(&index, "other"), canvases("c.json", 37..=100));
    assert_eq!(index.stats().unwrap().manifests, 3, "two files with one id are both kept");
}

#[test]
fn a_look_up_sorts_nothing() {
    let index = IndexBench::new().open();
    let plan = index.read(|conn| {
        let mut select = conn.prepare(&format!("EXPLAIN QUERY PLAN {}", super::super::queries::OWNERS))?;
        let steps = select.query_map([1, 64], |row| row.get::<_, String>(3))?;
        steps.collect::<Result<Vec<_>, _>>()
    });
    let plan = plan.unwrap();
    assert!(plan.len() == 3 && plan.iter().all(|step| step.starts_with("SEARCH")), "{plan:?}");
}

#[test]
fn the_last_document_that_was_read_is_not_read_again() {
    let index = IndexBench::new().open();
    let (one, other) = (manifest("a", &["one"]), manifest("b", &["two"]));
    let read = |text: &str| index.read_document(text.as_bytes()).unwrap();
    let first = read(&one);
    assert_eq!((first.canvases.len(), &*first.canvases[0].images), (1, &["one".to_owned()][..]));
    assert!(Arc::ptr_eq(&first, &read(&one)));
    assert_eq!(read(&other).canvases[0].images, ["two"]);
    assert!(!Arc::ptr_eq(&first, &read(&one)), "another one came between");
    // Other routes may give other keys.
    let before = read(&one);
    index.names.store(Arc::default());
    assert!(!Arc::ptr_eq(&before, &read(&one)));
    // A long document would stay in memory without use.
    let long = format!("{one}{}", " ".repeat(1 << 20));
    assert!(!Arc::ptr_eq(&read(&long), &read(&long)));
    assert!(index.read_document(b"{").is_err());
}

#[test]
fn the_canvases_that_follow_are_told_in_order_and_end_with_their_manifest() {
    let (_bench, index) = built(&[("a.json", &["a1", "a2", "a3", "a4"]), ("b.json", &["b1"])]);
    let keys = |from: usize, n: usize| -> Vec<String> {
        let found = index.neighbours(&canvas_url("a.json", from), n).unwrap();
        found.into_iter().flat_map(|neighbour| neighbour.keys).collect()
    };
    assert_eq!(keys(1, 2), ["a2", "a3"]);
    assert_eq!(keys(3, 9), ["a4"]);
    assert!(keys(4, 9).is_empty() && keys(7, 9).is_empty());
    let all = index.manifest_canvases(&manifest_uri("a.json")).unwrap();
    assert_eq!(all.iter().map(|found| found.canvas.clone()).collect::<Vec<_>>()[3], canvas_url("a.json", 4));
    assert_eq!(all.len(), 4);
    assert!(index.manifest_canvases("https://images.test/unknown").unwrap().is_empty());
}

#[test]
fn a_base64_identifier_is_found_by_its_uuid_too_and_its_file_and_derived_canvas_are_known() {
    let bench = IndexBench::new();
    let sent = base64_of_file_url(FILE);
    bench.write("a.json", &[&sent, &format!("{sent};2")]);
    let index = bench.open();
    bench.build(&index);
    let uuid = uuid_of_file_url(FILE);
    let key = crate::iiif::Identifier::new(&sent).key().into_owned();
    for (key, page, derived) in [
        (key.clone(), 1, DERIVED.to_owned()),
        (uuid.to_string(), 1, DERIVED.to_owned()),
        (format!("{key};2"), 2, format!("{DERIVED}?page=2")),
        (format!("{uuid};2"), 2, format!("{DERIVED}?page=2")),
    ] {
        assert_eq!(canvases_of(&index, &key), [canvas_url("a.json", page), derived], "{key}");
    }
    assert_eq!(index.file_url(uuid).unwrap().as_deref(), Some(FILE));
    assert_eq!(index.stats().unwrap().files, 2);
    assert!(index.owners(&format!("{uuid};3")).unwrap().is_empty());
}

#[test]
fn a_file_url_is_learned_only_if_the_uuid_is_made_of_it() {
    let bench = IndexBench::new();
    let index = bench.open();
    let uuid = uuid_of_file_url(FILE);
    assert!(matches!(index.learn_file_url(uuid, "https://else.test/x"), Err(IndexError::WrongFile { .. })));
    assert_eq!(index.file_url(uuid).unwrap(), None);
    assert!(index.owners(&uuid.to_string()).unwrap().is_empty());
    index.learn_file_url(uuid, FILE).unwrap();
    index.learn_file_url(uuid, FILE).unwrap();
    assert_eq!(index.file_url(uuid).unwrap().as_deref(), Some(FILE));
    assert_eq!(canvases_of(&index, &uuid.to_string()), [DERIVED], "known at once, though unknown before");
    assert_eq!(bench.open().file_url(uuid).unwrap().as_deref(), Some(FILE));
}

#[test]
fn only_a_file_below_the_rule_derives_a_canvas() {
    let rule = CanvasRule::default();
    assert_eq!(rule.derive(FILE, None).as_deref(), Some(DERIVED));
    assert_eq!(rule.derive(FILE, Some(3)), Some(format!("{DERIVED}?page=3")));
    for other in [
        "https://images.test/x/fcrepo/rest/a/files/b.tif",
        "https://images.test/fcrepo/rest/a/b.tif",
        "https://images.test/fcrepo/rest/a/files/",
        "file:/fcrepo/rest/a/files/b.tif",
    ] {
        assert_eq!(rule.derive(other, None), None, "{other}");
    }
}

fn canvas(id: &str, images: &[&str]) -> Canvas {
    let images = images.iter().map(|&image| image.to_owned()).collect();
    Canvas { id: id.to_owned(), label: None, images }
}

#[test]
fn what_passes_through_is_learned_and_replaced_but_poisoned_json_is_not_believed() {
    let bench = IndexBench::new();
    let index = bench.open();
    let document = Document { kind: DocumentKind::Manifest, ..Document::default() };
    let learn = |canvases: &[Canvas]| {
        DocumentLearner::new(&index).document(&document, canvases, "https://images.test/m").unwrap()
    };
    let good = [canvas("c1", &["one"]), canvas("c2", &["two"])];
    assert_eq!(learn(&good), LearnResult::New);
    assert_eq!(learn(&good), LearnResult::Known);
    assert_eq!(canvases_of(&index, "one"), ["c1"]);
    assert_eq!(learn(&[canvas("c1", &["one"]), canvas("c2", &[])]), LearnResult::Poorer);
    assert_eq!(learn(&[canvas("c1", &[])]), LearnResult::Nothing);
    assert_eq!(canvases_of(&index, "two"), ["c2"]);
    assert_eq!(learn(&[canvas("c1", &["one"]), canvas("c3", &["three"])]), LearnResult::New);
    assert_eq!(canvases_of(&index, "three"), ["c3"]);
    assert_eq!(canvases_of(&index, "two"), ["c2"], "what it lacks is kept until it is proven to be gone");
    let shorter = [canvas("c1", &["one"]), canvas("c3", &["three"])];
    assert_eq!(learn(&shorter), LearnResult::Poorer);
    assert_eq!(
        DocumentLearner::new(&index).believe(&document, &shorter, "https://images.test/m").unwrap(),
        LearnResult::New
    );
    assert!(canvases_of(&index, "two").is_empty());
    assert_eq!(index.stats().unwrap().manifests, 1);
    bench.write("a.json", &["from-file"]);
    bench.build(&index);
    assert_eq!(canvases_of(&index, "three"), ["c3"], "a build keeps what was learned");
    assert_eq!(learn(&[canvas("c1", &["one"]), canvas("c3", &["three"])]), LearnResult::Known);
}

#[test]
fn every_pair_is_exported_until_the_caller_has_enough() {
    let (_bench, index) = built(&[("a.json", &["one", "two", "three"])]);
    let mut images = Vec::new();
    index
        .export(&mut |exported| {
            images.push(exported.image);
            if images.len() == 2 {
                std::ops::ControlFlow::Break(())
            } else {
                std::ops::ControlFlow::Continue(())
            }
        })
        .unwrap();
    assert_eq!(images, ["one", "two"]);
}

#[test]
fn a_sample_is_from_all_over_the_index_and_costs_a_look_up_each() {
    let bench = IndexBench::new();
    let index = bench.open();
    assert!(index.sample_canvases(10).unwrap().is_empty());
    let names: Vec<String> = (0..900).map(|number| format!("image-{number}")).collect();
    bench.write("a.json", &names.iter().map(String::as_str).collect::<Vec<_>>());
    bench.refresh(&index);
    let ids: Vec<i64> = index.sample_canvases(90).unwrap().into_iter().map(|leaf| leaf.id).collect();
    assert_eq!(ids.len(), 90);
    assert!(ids.is_sorted() && ids[0] < 20 && ids[89] > 880, "{ids:?}");
    // An index with fewer canvases returns all of them.
    assert_eq!(index.sample_canvases(5_000).unwrap().len(), 500, "and never more than an answer has");
}

#[test]
fn sources_say_whether_an_image_is_known_from_them() {
    let bench = IndexBench::new();
    bench.write("a.json", &["one"]);
    let index = bench.open();
    bench.refresh(&index);
    let empty = bench.path().with_file_name("empty");
    std::fs::create_dir(&empty).unwrap();
    let sources = [
        bench.sources().remove(0),
        SourceSettings::path(&empty),
        SourceSettings::url("https://a.test/all?key=secret"),
    ];
    let told = index.source_contents(&sources).unwrap();
    assert_eq!(told.iter().map(|it| it.has_images).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!((&*told[2].location, &told[2].path), ("https://a.test/all?…", &None));
}
