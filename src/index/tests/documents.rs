//! Tests of documents: which files are read and how, warnings for those without images, and the keys of their images.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::config::tests::settings_of;

fn packed(text: &str) -> Vec<u8> {
    let mut packing = GzEncoder::new(Vec::new(), Compression::fast());
    packing.write_all(text.as_bytes()).unwrap();
    packing.finish().unwrap()
}

/// Settings with a public host and image routes.
fn settings() -> Settings {
    let text = "[server]\npublic_hosts = [\"images.test\"]\n\
        [[routes]]\nprefix = \"/iiif/2/\"\nupstream = \"http://cantaloupe:8182/iiif/2/\"\nkind = \"image\"\n\
        [[routes]]\nprefix = \"/fcgi-bin/\"\nupstream = \"http://iip/fcgi-bin/\"\nkind = \"image\"\n\
        [[routes]]\nprefix = \"/iiif-service/\"\nupstream = \"http://service/\"\nkind = \"presentation\"";
    settings_of(text)
}

#[test]
fn documents_are_read_by_whatever_name_they_go_and_others_are_counted() {
    let bench = IndexBench::new();
    fs::create_dir(bench.file("book")).unwrap();
    for (name, image) in
        [("a.json", "a"), ("b.JSONLD", "b"), ("book/manifest", "c"), ("book/Collection", "d")]
    {
        fs::write(bench.file(name), manifest(name, &[image])).unwrap();
    }
    for (name, image) in
        [("e.json.gz", "e"), ("f.jsonld.gz", "f"), ("book/manifest.gz", "g"), ("h.json", "h")]
    {
        fs::write(bench.file(name), packed(&manifest(name, &[image]))).unwrap();
    }
    for name in ["readme.txt", "book/cover.jpg", "manifests", "json"] {
        fs::write(bench.file(name), "{}").unwrap();
    }
    let index = bench.open();
    for report in [bench.refresh(&index), bench.build(&index)] {
        assert_eq!((report.files, report.manifests, report.passed_over), (8, 8, 4), "{report:?}");
        assert_eq!((report.problems, report.warnings), (Vec::new(), Vec::new()));
    }
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        assert_eq!(canvases_of(&index, key).len(), 1, "{key}");
    }
    let again = bench.refresh(&index);
    assert_eq!((again.unchanged, again.passed_over), (8, 4));
}

#[test]
fn a_long_document_is_read_packed_as_well_as_plain() {
    let bench = IndexBench::new();
    let images: Vec<String> = (0..40_000).map(|i| format!("image-{i}")).collect();
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let json = manifest("a", &images);
    assert!(json.len() > 9 << 20);
    fs::write(bench.file("a.json.gz"), packed(&json)).unwrap();
    let index = bench.open();
    assert_eq!(bench.refresh(&index).images, 40_000);
    assert_eq!(bench.refresh(&index).unchanged, 1);
    fs::write(bench.file("a.json.gz"), &packed(&json)[..100_000]).unwrap();
    assert_eq!(bench.refresh(&index).problems.len(), 1);
    assert_eq!(canvases_of(&index, "image-39999").len(), 1, "what was known stays");
}

#[test]
fn a_source_that_gives_nothing_is_a_warning_that_says_what_lies_there() {
    let bench = IndexBench::new();
    fs::write(bench.file("readme.txt"), "hello").unwrap();
    fs::write(bench.file("other.json"), "{\"a\": 1}").unwrap();
    let index = bench.open();
    for report in [bench.refresh(&index), bench.build(&index)] {
        let [warning] = &report.warnings[..] else { panic!("{report:?}") };
        assert_eq!(warning.path, bench.dir.path().join("manifests").to_str().unwrap());
        assert!(warning.message.contains("1 files were passed over"), "{warning:?}");
        assert_eq!(report.problems, []);
    }
    bench.write("a.json", &["one"]);
    for report in [bench.refresh(&index), bench.refresh(&index), bench.build(&index)] {
        assert_eq!(report.warnings, []);
    }
}

#[test]
fn images_without_a_canvas_are_told_by_count_and_file() {
    let bench = IndexBench::new();
    let lost = manifest("a.json", &["one", "two"])
        .replace("\"@id\":\"https://images.test/iiif-service/canvas", "\"x\":\"");
    fs::write(bench.file("a.json"), lost).unwrap();
    bench.write("b.json", &["three"]);
    let index = bench.open();
    for report in [bench.refresh(&index), bench.build(&index)] {
        let [warning] = &report.warnings[..] else { panic!("{report:?}") };
        assert_eq!(warning.path, bench.file("a.json").to_str().unwrap());
        assert!(warning.message.starts_with("2 images"), "{warning:?}");
    }
}

#[test]
fn a_key_is_the_path_under_a_route_decoded_once() {
    let bench = IndexBench::new();
    bench.write("a.json", &["vol1/f1", "vol2/f1", "vol3%2Ff1", "f1", "a%252Fb"]);
    let query = manifest("b.json", &["x"]).replace("iiif/2/x", "fcgi-bin/iipsrv.fcgi?IIIF=vol1/f1.tif");
    fs::write(bench.file("b.json"), query).unwrap();
    let index = bench.open().with_names(&settings());
    bench.build(&index);
    for (key, page) in [("vol1/f1", 1), ("vol2/f1", 2), ("vol3/f1", 3), ("f1", 4), ("a%2Fb", 5)] {
        assert_eq!(canvases_of(&index, key), [canvas_url("a.json", page)], "{key}");
    }
    assert_eq!(canvases_of(&index, "iipsrv.fcgi?IIIF=vol1/f1.tif"), [canvas_url("b.json", 1)]);
}

#[test]
fn an_index_of_an_older_version_is_read_anew_once() {
    let (bench, index) = built(&[("a.json", &["vol1/f1", "vol2/f1"])]);
    assert_eq!(canvases_of(&index, "f1").len(), 2, "no routes are known: by the last segment");
    drop(index);
    // A file from before the bases were recorded.
    Connection::open(bench.path()).unwrap().execute("DELETE FROM marks", []).unwrap();
    let index = bench.open().with_names(&settings());
    assert_eq!(canvases_of(&index, "f1").len(), 2, "until then the old keys hold");
    assert_eq!(bench.refresh(&index).manifests, 1);
    assert!(canvases_of(&index, "f1").is_empty());
    assert_eq!(canvases_of(&index, "vol2/f1"), [canvas_url("a.json", 2)]);
    assert_eq!(bench.refresh(&index).unchanged, 1, "once");
    let other = bench.open();
    assert_eq!(bench.refresh(&other).manifests, 1, "and again when the routes are others");
    assert_eq!(canvases_of(&other, "f1").len(), 2);
}

#[test]
fn a_canvas_is_found_by_its_name_and_by_its_uri() {
    let bench = IndexBench::new();
    let text = manifest("a.json", &["one", "two"]).replace("canvas/a.json/1", "canvas/ir i é-1");
    fs::write(bench.file("a.json"), text).unwrap();
    let index = bench.open();
    bench.build(&index);
    let written = "https://images.test/iiif-service/canvas/ir i é-1";
    for asked in [
        written,
        "https://images.test/iiif-service/canvas/ir%20i%20%C3%A9-1",
        "http://images.test/iiif-service/canvas/ir%20i é-1",
    ] {
        assert_eq!(index.canvas(asked).unwrap()[0].canvas, written, "{asked}");
        assert_eq!(index.neighbours(asked, 5).unwrap().len(), 1, "{asked}");
    }
    fs::remove_file(bench.file("a.json")).unwrap();
    bench.refresh_with(&index, Duration::ZERO);
    bench.refresh_with(&index, Duration::ZERO);
    assert!(index.canvas(written).unwrap().is_empty());
    let rows: i64 =
        index.read(|conn| conn.query_row("SELECT count(*) FROM canvas_urls", [], |row| row.get(0))).unwrap();
    assert_eq!(rows, 0);
}
