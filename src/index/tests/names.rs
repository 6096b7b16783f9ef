//! Tests of names: every spelling of a canvas and of an identifier leads to the same owner.

use super::*;

const CANVAS: &str = "https://images.test/iiif-service/canvas/x";

#[test]
fn a_canvas_keeps_its_query_loses_its_fragment_and_is_found_by_both_schemes() {
    let bench = IndexBench::new();
    let text = manifest("a.json", &["abc;2"]).replace("canvas/a.json/1", "canvas/x?page=2#xywh=0,0,1,1");
    fs::write(bench.file("a.json"), text).unwrap();
    let index = bench.open();
    assert_eq!(bench.build(&index).problems, []);
    let written = format!("{CANVAS}?page=2");
    assert_eq!(canvases_of(&index, "abc;2"), std::slice::from_ref(&written));
    for asked in [written.clone(), format!("{written}#t"), written.replace("https:", "http:")] {
        assert_eq!(index.canvas(&asked).unwrap()[0].canvas, written, "{asked}");
    }
    assert!(index.canvas(CANVAS).unwrap().is_empty(), "without its query it is another canvas");
}

#[test]
fn an_image_on_several_canvases_of_several_manifests_has_them_all_as_owners() {
    let (_bench, index) = built(&[("a.json", &["same", "other"]), ("b.json", &["other", "same"])]);
    // The newest manifest first: canvases of older ones may be gone.
    assert_eq!(canvases_of(&index, "same"), [canvas_url("b.json", 2), canvas_url("a.json", 1)]);
}

#[test]
fn a_canvas_is_found_by_any_of_the_names_that_mean_us_and_by_no_other() {
    let bench = IndexBench::new();
    bench.write("a.json", &["one", "two"]);
    let mut settings = Settings::default();
    settings.server.public_hosts = vec!["images.test".to_owned(), "alias.test:8443".to_owned()];
    let index = bench.open().with_names(&settings);
    bench.build(&index);
    let written = canvas_url("a.json", 1);
    for host in ["images.test", "IMAGES.test:443", "alias.test:8443"] {
        let asked = written.replace("images.test", host);
        assert_eq!(index.canvas(&asked).unwrap()[0].canvas, written, "{asked}");
        assert_eq!(index.neighbours(&asked, 5).unwrap().len(), 1, "{asked}");
    }
    for other in ["alias.test", "else.test"] {
        assert!(index.canvas(&written.replace("images.test", other)).unwrap().is_empty(), "{other}");
    }
}

#[test]
fn a_base64_identifier_is_found_by_the_uuid_of_each_base_and_its_canvas_has_the_public_name() {
    const FILE: &str = "https://images.test/fcrepo/rest/a/b/pages/page_0/files/Lab%201.tif";
    let inside = FILE.replace("https://images.test", "http://localhost:9000");
    let bench = IndexBench::new();
    bench.write("a.json", &[&base64_of_file_url(FILE)]);
    let mut settings = Settings::default();
    settings.server.public_hosts = vec!["images.test".to_owned()];
    settings.index.file_url_bases = vec!["http://localhost:9000/fcrepo/rest/".to_owned()];
    let index = bench.open().with_names(&settings);
    bench.build(&index);
    let derived = "https://images.test/iiif-service/fedora/canvas/a/b/pages/page_0";
    for url in [FILE, &inside] {
        let uuid = uuid_of_file_url(url);
        assert_eq!(canvases_of(&index, &uuid.to_string()), [canvas_url("a.json", 1), derived.to_owned()]);
        assert_eq!(index.file_url(uuid).unwrap().as_deref(), Some(url), "the one that the UUID is made of");
    }
    // A learned file is known by the canvas service's own base, and its canvas by our name.
    let learned = "http://localhost:9000/fcrepo/rest/c/files/d.tif";
    let uuid = uuid_of_file_url(learned);
    index.learn_file_url(uuid, learned).unwrap();
    assert_eq!(canvases_of(&index, &uuid.to_string()), ["https://images.test/iiif-service/fedora/canvas/c"]);
    // A removed source is removed under all its names.
    fs::remove_file(bench.file("a.json")).unwrap();
    bench.refresh_with(&index, Duration::ZERO);
    bench.refresh_with(&index, Duration::ZERO);
    assert!(index.owners(&uuid_of_file_url(&inside).to_string()).unwrap().is_empty());
}
