//! The pairs of image and canvas, read by somebody else: from the top down, over a whole tree, by the places where the
//! Presentation API puts things and by nothing that an object says of itself. The walker reads from the bottom up, as a
//! stream; both must find the same in documents of every shape.

use std::collections::BTreeSet;

use iiif_mender::iiif::image_url::ImageBases;
use iiif_mender::iiif::manifest::{self, Document};
use serde_json::{Value, json};

type Pairs = BTreeSet<(String, String)>;

/// The prefix of the image route in all fixtures.
const IMAGES: &str = "https://lib.test/iiif/2/";

fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(all) => all.iter().flat_map(list).collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    }
}

fn under<'v>(object: &'v Value, names: &[&str]) -> Vec<&'v Value> {
    names.iter().flat_map(|name| list(&object[*name])).collect()
}

fn id(object: &Value) -> Option<&str> {
    object.as_str().or_else(|| object["@id"].as_str()).or_else(|| object["id"].as_str())
}

/// The key in a URL under the image route: decoded once.
fn key(url: &str) -> Option<String> {
    let rest = url.split('#').next()?.strip_prefix(IMAGES)?;
    let rest = if rest.contains("?IIIF=") { rest } else { rest.split('?').next()? };
    let mut parts: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
    if parts.last() == Some(&"info.json") {
        parts.pop();
    } else if parts.len() > 4
        && ["default.", "color."].iter().any(|file| parts[parts.len() - 1].starts_with(file))
    {
        parts.truncate(parts.len() - 4);
    }
    let key = parts.join("/");
    let key =
        percent_encoding::percent_decode_str(key.trim_end_matches('/')).decode_utf8().ok()?.into_owned();
    (!key.is_empty()).then_some(key)
}

fn is_picture(url: &str) -> bool {
    ["default.", "color."]
        .iter()
        .any(|file| url.rsplit('/').next().is_some_and(|last| last.starts_with(file)))
}

fn is_image_service(service: &Value) -> bool {
    let says = |name: &str| {
        list(&service[name]).iter().any(|word| {
            let word = word.as_str().unwrap_or_default();
            word.contains("ImageService") || word.contains("/image/") || word.starts_with("level")
        })
    };
    service.is_object() && ["@context", "profile", "@type", "type", "protocol"].iter().any(|name| says(name))
}

/// The images of a resource: an image, a choice of them, or a part of one.
fn images_of(resource: &Value, into: &mut BTreeSet<String>) {
    if let Some(id) = id(resource).filter(|id| is_picture(id)) {
        into.extend(key(id));
    }
    let services = under(resource, &["service"]);
    let described: Vec<_> = services.iter().filter(|service| is_image_service(service)).collect();
    if described.is_empty() {
        let bare = services
            .iter()
            .filter(|service| service.is_string() || service.as_object().is_some_and(|o| o.len() == 1));
        into.extend(bare.filter_map(|service| key(id(service)?)));
    } else {
        into.extend(described.iter().filter_map(|service| key(id(service)?)));
    }
    for part in under(resource, &["default", "item", "items", "source", "full"]) {
        images_of(part, into);
    }
}

fn painted(annotation: &Value, into: &mut BTreeSet<String>) {
    for body in under(annotation, &["body", "resource"]) {
        images_of(body, into);
    }
}

fn canvas(canvas: &Value, pairs: &mut Pairs) {
    let Some(name) = id(canvas).map(|id| id.split('#').next().unwrap_or(id).to_owned()) else { return };
    let mut images = BTreeSet::new();
    for annotation in under(canvas, &["images"]) {
        painted(annotation, &mut images);
    }
    for page in under(canvas, &["items"]) {
        painted(page, &mut images);
        for annotation in under(page, &["items"]) {
            painted(annotation, &mut images);
        }
    }
    for thumbnail in under(canvas, &["thumbnail"]) {
        images_of(thumbnail, &mut images);
    }
    pairs.extend(images.into_iter().map(|image| (image, name.clone())));
}

/// How many lists of `items` lie over something that is painted.
fn depth(value: &Value) -> Option<usize> {
    if !under(value, &["body", "resource"]).is_empty() {
        return Some(0);
    }
    under(value, &["items"]).into_iter().filter_map(depth).max().map(|depth| depth + 1)
}

fn pairs_of(document: &Value) -> Pairs {
    let mut pairs = Pairs::new();
    let mut canvases: Vec<&Value> = under(document, &["sequences"])
        .into_iter()
        .flat_map(|sequence| under(sequence, &["canvases"]))
        .collect();
    canvases.extend(under(document, &["canvases"]));
    if !under(document, &["images"]).is_empty() {
        canvases.push(document);
    }
    match depth(document) {
        Some(2) => canvases.push(document),
        Some(3) => canvases.extend(under(document, &["items"])),
        _ => {}
    }
    for found in canvases {
        canvas(found, &mut pairs);
    }
    pairs
}

fn walked(bytes: &[u8]) -> (Document, Pairs) {
    let mut bases = ImageBases::default();
    bases.push(Some("lib.test"), "/iiif/2/");
    let (document, canvases) = manifest::read_under(bytes, &bases).expect("JSON");
    let mut streamed = Vec::new();
    manifest::walk_under(bytes, &bases, &mut |canvas| streamed.push(canvas)).expect("JSON");
    assert_eq!(streamed, canvases);
    let pairs = canvases.into_iter().flat_map(|canvas| {
        let name = canvas.id;
        canvas.images.into_iter().map(move |image| (image, name.clone())).collect::<Vec<_>>()
    });
    (document, pairs.collect())
}

/// Both readings agree, and find as many pairs as there are.
fn agree(document: &Value, expected: usize) {
    let pairs = pairs_of(document);
    assert_eq!(pairs.len(), expected, "the oracle itself: {document:#}");
    let (read, found) = walked(document.to_string().as_bytes());
    assert_eq!(found, pairs, "{document:#}");
    assert_eq!(read.unclaimed, 0, "{document:#}");
}

fn tile(identifier: &str) -> String {
    format!("{IMAGES}{identifier}/full/full/0/default.jpg")
}

fn service(identifier: &str) -> Value {
    json!({ "@context": "http://iiif.io/api/image/2/context.json", "@id": format!("{IMAGES}{identifier}"), "profile": "level2" })
}

/// A book of Presentation 2 with two pages.
fn book_2() -> Value {
    let page = |number: usize| {
        json!({
            "@id": format!("https://lib.test/svc/canvas/{number}"), "@type": "sc:Canvas", "label": "p", "height": 9, "width": 9,
            "images": [{
                "@id": "https://lib.test/a", "@type": "oa:Annotation", "motivation": "sc:painting",
                "resource": { "@id": tile(&format!("f{number}")), "@type": "dctypes:Image", "service": service(&format!("f{number}")) },
                "on": format!("https://lib.test/svc/canvas/{number}"),
            }],
        })
    };
    json!({
        "@context": "http://iiif.io/api/presentation/2/context.json", "@id": "https://lib.test/svc/m", "@type": "sc:Manifest",
        "thumbnail": tile("f1"),
        "sequences": [{ "@id": "https://lib.test/s", "@type": "sc:Sequence", "canvases": [page(1), page(2)] }],
    })
}

/// The same of Presentation 3.
fn book_3() -> Value {
    let page = |number: usize| {
        json!({
            "id": format!("https://lib.test/svc/canvas/{number}"), "type": "Canvas", "height": 9, "width": 9,
            "items": [{ "id": "https://lib.test/p", "type": "AnnotationPage", "items": [{
                "id": "https://lib.test/a", "type": "Annotation", "motivation": "painting",
                "body": { "id": tile(&format!("f{number}")), "type": "Image", "service": [service(&format!("f{number}"))] },
                "target": format!("https://lib.test/svc/canvas/{number}"),
            }] }],
        })
    };
    json!({
        "@context": "http://iiif.io/api/presentation/3/context.json", "id": "https://lib.test/svc/m", "type": "Manifest",
        "thumbnail": [{ "id": tile("f1"), "type": "Image" }],
        "items": [page(1), page(2)],
    })
}

/// Words that generators were seen to write, or could.
const TYPES: [&str; 20] = [
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

#[test]
fn identifiers_of_every_form_have_the_same_key_in_the_image_and_in_its_service() {
    let forms = [
        ("f1", "f1"),
        ("vol1/f1", "vol1/f1"),
        ("vol1%2Ff1", "vol1/f1"),
        ("a/b%2Fc/d", "a/b/c/d"),
        ("a%252Fb", "a%2Fb"),
        ("ir i-1", "ir i-1"),
        ("ir%20i-1", "ir i-1"),
        ("irié", "irié"),
        ("x;2", "x;2"),
        ("x%3B2", "x;2"),
        ("iipsrv.fcgi?IIIF=vol1/f1.tif", "iipsrv.fcgi?IIIF=vol1/f1.tif"),
    ];
    for (written, key) in forms {
        for mut document in [book_2(), book_3()] {
            let resource = document.pointer("/sequences/0/canvases/0/images/0/resource").is_some();
            let place = if resource {
                "/sequences/0/canvases/0/images/0/resource"
            } else {
                "/items/0/items/0/items/0/body"
            };
            let body = document.pointer_mut(place).expect("a body");
            let name = if resource { "@id" } else { "id" };
            body[name] = tile(written).into();
            for form in ["", "/", "/info.json"] {
                let mut service = service(written);
                service["@id"] = format!("{IMAGES}{written}{form}").into();
                let mut document = document.clone();
                document.pointer_mut(place).expect("a body")["service"] = json!([service]);
                agree(&document, 2);
                let (_, pairs) = walked(document.to_string().as_bytes());
                let canvas = "https://lib.test/svc/canvas/1".to_owned();
                assert!(pairs.contains(&(key.to_owned(), canvas)), "{written}: {pairs:?}");
            }
        }
    }
}

#[test]
fn two_volumes_with_pages_of_the_same_name_do_not_share_a_key() {
    let mut document = book_2();
    for (at, identifier) in [(0, "vol1/f1"), (1, "vol2/f1")] {
        let resource = &mut document["sequences"][0]["canvases"][at]["images"][0]["resource"];
        *resource = json!({ "@id": tile(identifier), "service": service(identifier) });
    }
    agree(&document, 2);
}

#[test]
fn services_that_are_no_image_service_make_no_image() {
    let mention = "https://lib.test/iiif/2/login";
    let others = [
        json!(mention),
        json!({ "@id": mention }),
        json!({ "@id": mention, "@context": "http://iiif.io/api/auth/1/context.json", "profile": "http://iiif.io/api/auth/1/login" }),
        json!({ "id": mention, "type": "AuthAccessService2" }),
    ];
    for other in &others {
        for order in [json!([service("f1"), other]), json!([other, service("f1")])] {
            let mut document = book_2();
            document["sequences"][0]["canvases"][0]["images"][0]["resource"]["service"] = order.clone();
            agree(&document, 2);
            let mut document = book_3();
            document["items"][0]["items"][0]["items"][0]["body"]["service"] = order;
            agree(&document, 2);
        }
    }
    // Where nothing else says which image it is, a bare service does.
    for bare in [
        json!(format!("{IMAGES}f1")),
        json!({ "@id": format!("{IMAGES}f1") }),
        json!([format!("{IMAGES}f1")]),
    ] {
        let mut document = book_3();
        document["items"][0]["items"][0]["items"][0]["body"] =
            json!({ "id": "https://lib.test/f1.jpg", "type": "Image", "service": bare });
        agree(&document, 2);
    }
}

#[test]
fn choices_parts_and_thumbnails_are_read_alike() {
    let mut document = book_3();
    document["items"][0]["items"][0]["items"][0]["body"] = json!({ "type": "Choice", "items": [
        { "id": tile("a"), "type": "Image" },
        { "type": "SpecificResource", "source": { "id": tile("b"), "type": "Image", "service": [service("b")] } },
    ] });
    document["items"][1]["thumbnail"] =
        json!([{ "id": tile("t"), "type": "Image", "service": [service("t")] }]);
    agree(&document, 4);
    let mut document = book_2();
    document["sequences"][0]["canvases"][0]["images"][0]["resource"] = json!({
        "@type": "oa:Choice", "default": { "@id": tile("a"), "service": service("a") }, "item": [{ "service": service("b") }, "rdf:nil"],
    });
    agree(&document, 3);
}

#[test]
fn other_codings_and_single_bad_letters_lose_no_pair() {
    for document in [book_2(), book_3()] {
        let expected = pairs_of(&document);
        let text = document.to_string();
        let utf_16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
            format!("\u{feff}{text}").encode_utf16().flat_map(unit).collect()
        };
        let mut latin_1 = document.clone();
        latin_1["label"] = "Caf~".into();
        let latin_1 =
            latin_1.to_string().bytes().map(|byte| if byte == b'~' { 0xe9 } else { byte }).collect();
        for bytes in [
            utf_16(u16::to_le_bytes),
            utf_16(u16::to_be_bytes),
            format!("\u{feff}{text}").into_bytes(),
            latin_1,
        ] {
            assert_eq!(walked(&bytes).1, expected);
        }
    }
}
