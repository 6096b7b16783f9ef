//! Things at places where they belong, and where they do not.

use serde_json::{Value, json};

use super::{agree, book_2, book_3, pairs_of, service, tile, walked};

fn image_2(identifier: &str) -> Value {
    json!({ "@id": tile(identifier), "@type": "dctypes:Image", "service": service(identifier) })
}

fn image_3(identifier: &str) -> Value {
    json!({ "id": tile(identifier), "type": "Image", "service": [service(identifier)] })
}

#[test]
fn motivations_in_every_form_lose_nothing() {
    for motivation in
        [json!("painting"), json!(["painting"]), json!("sc:painting"), json!("oa:painting"), json!(null)]
    {
        let mut document = book_2();
        document["sequences"][0]["canvases"][0]["images"][0]["motivation"] = motivation.clone();
        agree(&document, 2);
        let mut document = book_3();
        document["items"][0]["items"][0]["items"][0]["motivation"] = motivation;
        agree(&document, 2);
    }
}

#[test]
fn types_in_lists_are_read() {
    let mut document = book_2();
    document["@type"] = json!(["sc:Manifest", "Thing"]);
    document["sequences"][0]["canvases"][0]["@type"] = json!(["Thing", "sc:Canvas"]);
    document["sequences"][0]["canvases"][0]["images"][0]["@type"] = json!(["oa:Annotation"]);
    agree(&document, 2);
    let mut document = book_3();
    document["type"] = json!(["Manifest"]);
    document["items"][0]["type"] = json!(["Canvas"]);
    document["items"][0]["items"][0]["items"][0]["body"]["type"] = json!(["Image", "Thing"]);
    agree(&document, 2);
}

#[test]
fn canvases_that_are_only_mentioned_are_no_canvases() {
    let (one, two) = ("https://lib.test/svc/canvas/1", "https://lib.test/svc/canvas/2");
    let mut document = book_2();
    document["structures"] = json!([
        { "@id": "https://lib.test/r1", "@type": "sc:Range", "canvases": [one, format!("{two}#xywh=0,0,1,1")], "ranges": ["https://lib.test/r2"] },
        { "@id": "https://lib.test/r2", "@type": "sc:Range", "members": [{ "@id": one, "@type": "sc:Canvas", "label": "p" }] },
    ]);
    document["sequences"][0]["startCanvas"] = one.into();
    agree(&document, 2);
    let mut document = book_3();
    document["start"] = json!({ "id": one, "type": "Canvas" });
    document["structures"] = json!([{ "id": "https://lib.test/r1", "type": "Range", "thumbnail": [image_3("f1")], "items": [
        { "id": one, "type": "Canvas" },
        { "type": "SpecificResource", "source": { "id": two, "type": "Canvas" } },
        { "id": "https://lib.test/r2", "type": "Range", "items": [{ "id": two, "type": "Canvas" }] },
    ] }]);
    agree(&document, 2);
    document["items"][0]["placeholderCanvas"] =
        json!({ "id": "https://lib.test/svc/canvas/0", "type": "Canvas", "height": 1, "width": 1 });
    agree(&document, 2);
}

#[test]
fn manifests_inside_of_collections_keep_their_pages() {
    let mut other = book_2();
    other["@id"] = "https://lib.test/svc/m2".into();
    for (at, number) in [(0, "3"), (1, "4")] {
        let canvas = &mut other["sequences"][0]["canvases"][at];
        canvas["@id"] = format!("https://lib.test/svc/canvas/{number}").into();
        canvas["images"][0]["resource"] = image_2(&format!("f{number}"));
    }
    for name in ["manifests", "members"] {
        let collection =
            json!({ "@id": "https://lib.test/c", "@type": "sc:Collection", name: [book_2(), other] });
        agree(&collection, 4);
        let around =
            json!({ "@id": "https://lib.test/cc", "@type": "sc:Collection", "collections": [collection] });
        agree(&around, 4);
    }
    let collection = json!({ "id": "https://lib.test/c", "type": "Collection", "items": [book_3()] });
    agree(&collection, 2);
    let around = json!({ "id": "https://lib.test/cc", "type": "Collection", "items": [collection] });
    agree(&around, 2);
}

#[test]
fn the_logo_of_a_manifest_within_another_document_is_no_page_of_it() {
    let mut book = book_3();
    book["logo"] = json!([image_3("logo")]);
    // The annotations of these canvases stand in no page, so that the manifest looks like a canvas with pages.
    for canvas in book["items"].as_array_mut().expect("a list") {
        canvas["items"] = canvas["items"][0]["items"].take();
    }
    let expected = pairs_of(&book_3());
    for document in [
        book.clone(),
        json!([book]),
        json!({ "manifest": book }),
        json!({ "@id": "https://lib.test/c", "@type": "sc:Collection", "manifests": [book] }),
    ] {
        assert_eq!(walked(document.to_string().as_bytes()).1, expected, "{document}");
    }
}

#[test]
fn images_that_no_canvas_holds_are_counted_and_the_others_are_kept() {
    let image = json!({ "@type": "oa:Annotation", "resource": image_2("lost") });
    for place in ["", "/sequences/0"] {
        let mut document = book_2();
        let around = document.pointer_mut(place).expect("a place").as_object_mut().expect("an object");
        around.insert("images".to_owned(), json!([image]));
        let (read, found) = walked(document.to_string().as_bytes());
        assert!(pairs_of(&book_2()).is_subset(&found), "{place}: {found:?}");
        let is_told = read.unclaimed == 1 || found.iter().any(|(key, _)| key == "lost");
        assert!(is_told, "{place}: {read:?} {found:?}");
    }
}

#[test]
fn keys_in_any_order_and_twice_lose_no_page() {
    for document in [book_2(), book_3()] {
        let text = document.to_string();
        // What a key says last counts; an image is never lost by it.
        for twice in [r#""label":1,"#, r#""@id":null,"id":null,"#, r#""service":[],"#, r#""height":null,"#] {
            let doubled = format!("{{{twice}{}", &text[1..]);
            assert_eq!(walked(doubled.as_bytes()).1, pairs_of(&document), "{twice}");
        }
    }
}
