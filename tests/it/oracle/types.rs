//! What objects say that they are, rightly or not.

use serde_json::Value;

use super::{agree, book_2, book_3};

/// Words that generators were seen to write, or could.
pub(super) const TYPES: [&str; 20] = [
    "sc:Manifest",
    "sc:Sequence",
    "sc:Canvas",
    "sc:canvas",
    "oa:Annotation",
    "dctypes:Image",
    "Manifest",
    "Range",
    "Collection",
    "canvas",
    "Page",
    "Canvas",
    "Annotation",
    "AnnotationPage",
    "Image",
    "image",
    "Choice",
    "Text",
    "http://iiif.io/api/presentation/2#Canvas",
    "",
];

/// Sets or takes away a type at each of these places.
fn with_types(document: &Value, places: &[&str], each: impl Fn(&Value)) {
    for place in places {
        for word in TYPES.iter().copied().map(Some).chain([None]) {
            let mut changed = document.clone();
            let object = changed.pointer_mut(place).expect("a place").as_object_mut().expect("an object");
            let name = if object.contains_key("@type") { "@type" } else { "type" };
            match word {
                Some(word) => object.insert(name.to_owned(), word.into()),
                None => object.remove(name),
            };
            each(&changed);
        }
    }
}

#[test]
fn a_wrong_type_at_any_place_loses_no_image() {
    agree(&book_2(), 2);
    agree(&book_3(), 2);
    let places_2 = [
        "",
        "/sequences/0",
        "/sequences/0/canvases/0",
        "/sequences/0/canvases/1",
        "/sequences/0/canvases/0/images/0",
        "/sequences/0/canvases/0/images/0/resource",
    ];
    with_types(&book_2(), &places_2, |document| agree(document, 2));
    let places_3 = [
        "",
        "/items/0",
        "/items/1",
        "/items/0/items/0",
        "/items/0/items/0/items/0",
        "/items/0/items/0/items/0/body",
    ];
    with_types(&book_3(), &places_3, |document| agree(document, 2));
}

#[test]
fn a_wrong_type_on_every_canvas_at_once_loses_no_image() {
    for word in TYPES {
        let mut document = book_2();
        for at in 0..2 {
            document["sequences"][0]["canvases"][at]["@type"] = word.into();
        }
        agree(&document, 2);
        let mut document = book_3();
        for at in 0..2 {
            document["items"][at]["type"] = word.into();
            for key in ["height", "width"] {
                document["items"][at].as_object_mut().expect("an object").remove(key);
            }
        }
        agree(&document, 2);
    }
}

#[test]
fn a_canvas_of_its_own_is_read_whatever_it_says_that_it_is() {
    for word in TYPES {
        let mut canvas = book_2()["sequences"][0]["canvases"][0].clone();
        canvas["@type"] = word.into();
        agree(&canvas, 1);
        let mut canvas = book_3()["items"][0].clone();
        canvas["type"] = word.into();
        // At the top a manifest, a collection and a page of pages are what they say.
        if !matches!(word, "AnnotationPage" | "sc:Manifest" | "Manifest" | "Collection") {
            agree(&canvas, 1);
        }
    }
}
