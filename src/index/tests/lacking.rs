//! Tests of poorer documents: compared image by image with all that is known of their name.

use super::*;
use crate::iiif::manifest::{Canvas, Document, DocumentKind};
use crate::index::learn::DocumentLearner;

fn book(name: &str, images: &[&str]) -> (Document, Vec<Canvas>) {
    crate::iiif::manifest::read(manifest(name, images).as_bytes()).unwrap()
}

fn learns(index: &Index, images: &[&str]) -> LearnResult {
    let (document, canvases) = book("a.json", images);
    DocumentLearner::new(index).document(&document, &canvases, &manifest_uri("a.json")).unwrap()
}

fn lacks(index: &Index, images: &[&str]) -> Vec<String> {
    let (document, canvases) = book("a.json", images);
    let lacking = index.lacking(document.kind, [manifest_uri("a.json")], &canvases, 8).unwrap();
    lacking.map(|(_, missing)| missing).unwrap_or_default()
}

#[test]
fn a_poorer_document_is_not_learned_beside_the_one_of_a_source() {
    let (_bench, index) = built(&[("a.json", &["one", "two", "three"])]);
    assert_eq!(learns(&index, &["one", "three"]), LearnResult::Poorer);
    assert_eq!(index.manifest_canvases(&manifest_uri("a.json")).unwrap().len(), 3);
    assert_eq!(
        learns(&index, &["one", "three", "four"]),
        LearnResult::New,
        "one is new, and yet one is missing"
    );
    assert_eq!(lacks(&index, &["one", "three", "four"]), ["two"]);
    assert_eq!(canvases_of(&index, "two"), [canvas_url("a.json", 2)]);
    assert_eq!(learns(&index, &["one", "three", "four"]), LearnResult::Poorer);
    assert_eq!(learns(&index, &["one", "two", "three", "four"]), LearnResult::New);
    assert_eq!(lacks(&index, &["one", "two", "three"]), ["four"], "what was learned counts as well");
    assert!(lacks(&index, &["four", "three", "two", "one"]).is_empty());
    assert_eq!(learns(&index, &["one", "two", "three", "four"]), LearnResult::Known);
}

#[test]
fn what_is_proven_to_be_shorter_is_believed_and_stays_so_until_its_source_says_otherwise() {
    let bench = IndexBench::new();
    bench.write("a.json", &["one", "two", "three"]);
    let past = SystemTime::now() - Duration::from_hours(1);
    fs::File::options().write(true).open(bench.file("a.json")).unwrap().set_modified(past).unwrap();
    let index = bench.open();
    bench.build(&index);
    let (document, canvases) = book("a.json", &["one", "three"]);
    assert_eq!(
        DocumentLearner::new(&index).believe(&document, &canvases, &manifest_uri("a.json")).unwrap(),
        LearnResult::New
    );
    assert!(lacks(&index, &["one", "three"]).is_empty());
    assert_eq!(learns(&index, &["one"]), LearnResult::Poorer, "and not a single image less");
    assert_eq!(learns(&index, &["one", "three"]), LearnResult::Known);
    assert_eq!(learns(&index, &["one", "three", "four"]), LearnResult::New);
    assert!(lacks(&index, &["one", "three", "four"]).is_empty(), "what was believed stays the beginning");
    bench.build(&index);
    assert!(lacks(&index, &["one", "three", "four"]).is_empty(), "also over a build");
    let future = SystemTime::now() + Duration::from_hours(1);
    bench.write("a.json", &["one", "two", "three", "five"]);
    fs::File::options().write(true).open(bench.file("a.json")).unwrap().set_modified(future).unwrap();
    bench.refresh(&index);
    assert_eq!(lacks(&index, &["one", "three", "four"]), ["two", "five"], "a newer file counts again");
}

#[test]
fn the_same_picture_by_another_name_is_not_missing() {
    const FILE: &str = "https://images.test/fcrepo/rest/a/files/Lab.tif";
    let inside = FILE.replace("https://images.test", "http://localhost:9000");
    let bench = IndexBench::new();
    bench.write("a.json", &[&base64_of_file_url(FILE), "two"]);
    let mut settings = Settings::default();
    settings.index.file_url_bases = vec!["http://localhost:9000/fcrepo/rest/".to_owned()];
    let index = bench.open().with_names(&settings);
    bench.build(&index);
    for url in [FILE, &inside] {
        let uuid = uuid_of_file_url(url).to_string();
        assert!(lacks(&index, &[&uuid, "two"]).is_empty(), "{url}");
    }
    assert_eq!(lacks(&index, &["two"]).len(), 1);
}

#[test]
fn a_canvas_lacks_something_when_it_has_no_image_at_all() {
    let (_bench, index) = built(&[("a.json", &["one", "two"])]);
    let canvas = |images: &[&str]| Canvas {
        id: canvas_url("a.json", 1),
        images: images.iter().map(|image| (*image).to_owned()).collect(),
        ..Canvas::default()
    };
    let lacking = |canvas: Canvas| {
        index.lacking(DocumentKind::Canvas, [canvas_url("a.json", 1)], &[canvas], 8).unwrap()
    };
    assert_eq!(lacking(canvas(&[])), Some((canvas_url("a.json", 1), vec!["one".to_owned()])));
    assert_eq!(lacking(canvas(&["one"])), None);
    assert_eq!(lacking(canvas(&["other"])), None);
}

#[test]
fn the_pages_of_one_pdf_are_missed_each_by_itself() {
    let bench = IndexBench::new();
    let page = |number: u32| format!("13c09e7b-ddb5-30f5-a4ce-eecebd330564;{number}");
    let pages: Vec<String> = (1..=4).map(page).collect();
    let pages: Vec<&str> = pages.iter().map(String::as_str).collect();
    bench.write("a.json", &pages);
    let index = bench.open();
    bench.build(&index);
    assert_eq!(lacks(&index, &[pages[0], pages[2]]), [pages[1], pages[3]]);
    assert_eq!(learns(&index, &[pages[0], pages[2]]), LearnResult::Poorer);
    // The first page may be named without its number.
    assert!(lacks(&index, &[&page(1)[..36], pages[1], pages[2], pages[3]]).is_empty());
}
