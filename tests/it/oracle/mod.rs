//! The pairs of image and canvas, read by somebody else: from the top down, over a whole tree, by the places where the
//! Presentation API puts things and by nothing that an object says of itself. The walker reads from the bottom up, as a
//! stream; both must find the same in documents of every shape.

mod codings;
mod hostile;
mod identifiers;
mod places;
mod services;
mod twins;
mod types;

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
    // Collections may hold whole manifests.
    for inside in under(document, &["manifests", "members", "collections"]) {
        pairs.extend(pairs_of(inside));
    }
    if matches!(depth(document), Some(4..)) {
        pairs.extend(under(document, &["items"]).into_iter().flat_map(pairs_of));
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
    // A mention of a canvas is none that lost its images.
    let with_images: BTreeSet<&String> = pairs.iter().map(|(_, canvas)| canvas).collect();
    assert_eq!(read.canvases, with_images.len(), "{document:#}");
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
