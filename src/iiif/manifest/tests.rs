use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

mod hostile;
mod presentation_2;
mod presentation_3;

const CANVAS: &str = "https://example.org/canvas/1";

/// The base URI of an image.
fn base(id: &str) -> String {
    format!("https://example.org/iiif/2/{id}")
}

/// The URL of a picture of it.
fn picture(id: &str) -> String {
    format!("https://example.org/iiif/2/{id}/full/full/0/default.jpg")
}

fn service_2(id: &str) -> Value {
    json!({
        "@context": "http://iiif.io/api/image/2/context.json",
        "@id": base(id),
        "profile": "http://iiif.io/api/image/2/level0.json",
    })
}

fn service_3(id: &str) -> Value {
    json!({ "id": base(id), "type": "ImageService3", "profile": "level2" })
}

/// Walks in both ways, which must agree, and returns the result.
fn walked(document: &Value) -> (Document, Vec<Canvas>) {
    walked_text(&document.to_string())
}

fn walked_text(text: &str) -> (Document, Vec<Canvas>) {
    let (mut streamed, mut canvases) = (Vec::new(), Vec::new());
    let by_reader = walk(text.as_bytes(), &mut |canvas| streamed.push(canvas)).unwrap();
    let document = walk_slice(text.as_bytes(), &mut |canvas| canvases.push(canvas)).unwrap();
    assert_eq!((&by_reader, &streamed), (&document, &canvases));
    assert_eq!(document.canvases, canvases.len());
    assert_eq!(document.images, canvases.iter().map(|canvas| canvas.images.len()).sum::<usize>());
    (document, canvases)
}

/// The images of the only canvas.
fn images_of_one(document: &Value) -> Vec<String> {
    let (_, canvases) = walked(document);
    let [canvas] = &canvases[..] else { panic!("one canvas expected: {canvases:?}") };
    assert_eq!(canvas.id, CANVAS);
    canvas.images.clone()
}

#[rstest]
#[case::string(json!("Page 1"), Some("Page 1"))]
#[case::list(json!(["Page 1", "page_0"]), Some("Page 1"))]
#[case::empty_first(json!(["", "page_0"]), Some("page_0"))]
#[case::language_map(json!({ "en": ["Page 1"], "fr": ["Feuille 1"] }), Some("Page 1"))]
#[case::empty_language(json!({ "en": [], "fr": ["Feuille 1"] }), Some("Feuille 1"))]
#[case::language_map_of_strings(json!({ "none": "Page 1" }), Some("Page 1"))]
#[case::value(json!({ "@language": "en", "@value": "Page 1" }), Some("Page 1"))]
#[case::values(json!([{ "@language": "en", "@value": "Page 1" }, { "@value": "2" }]), Some("Page 1"))]
#[case::number(json!(12), Some("12"))]
#[case::null(json!(null), None)]
#[case::nothing(json!([]), None)]
#[case::odd(json!([[true], {}]), None)]
fn the_first_label_is_told_as_plain_text(#[case] label: Value, #[case] expected: Option<&str>) {
    let (document, canvases) = walked(&json!({
        "@id": CANVAS, "@type": "sc:Canvas", "label": label, "images": [],
    }));
    assert_eq!(canvases[0].label.as_deref(), expected);
    assert_eq!(document.label.as_deref(), expected);
}

#[rstest]
#[case::fragment_is_dropped("https://h/c#xywh=0,0,9,9", "https://h/c")]
#[case::query_is_kept("https://h/c?page=2", "https://h/c?page=2")]
#[case::both("https://h/c?page=2#a", "https://h/c?page=2")]
fn a_canvas_is_named_by_its_id_without_fragment(#[case] written: &str, #[case] expected: &str) {
    let (_, canvases) = walked(&json!({ "id": written, "type": "Canvas", "items": [] }));
    assert_eq!(canvases[0].id, expected);
}

#[rstest]
#[case::slash("https://h/iiif/2/a/", "a")]
#[case::info("https://h/iiif/2/a/info.json", "a")]
#[case::http("http://h/iiif/2/a", "a")]
#[case::escaped_slash("https://h/iiif/2/x%2Fy", "x/y")]
#[case::page("https://h/iiif/2/a%3B2", "a;2")]
#[case::base64("https://h/iiif/2/aHR0cHM6Ly9h=", "aHR0cHM6Ly9h=")]
fn images_are_told_by_their_lookup_key(#[case] id: &str, #[case] key: &str) {
    let service = json!({ "@id": id, "@type": "ImageService2" });
    let canvas = json!({ "id": CANVAS, "type": "Canvas", "items": [{ "body": { "service": [service] } }] });
    assert_eq!(images_of_one(&canvas), [key]);
}

#[rstest]
#[case::type_2(json!({ "@type": "ImageService2" }), true)]
#[case::type_3(json!({ "type": "ImageService3" }), true)]
#[case::type_1(json!({ "@type": "ImageService1" }), true)]
#[case::types(json!({ "@type": ["Service", "ImageService2"] }), true)]
#[case::profile(json!({ "profile": "http://iiif.io/api/image/2/level1.json" }), true)]
#[case::compliance(json!({ "profile": "https://iiif.io/api/image/1.1/compliance/#level2" }), true)]
#[case::profiles(json!({ "profile": ["http://iiif.io/api/image/2/level1.json", { "formats": [] }] }), true)]
#[case::context(json!({ "@context": "http://iiif.io/api/image/2/context.json" }), true)]
#[case::contexts(json!({ "@context": ["http://x", "http://iiif.io/api/image/3/context.json"] }), true)]
#[case::protocol(json!({ "protocol": "http://iiif.io/api/image" }), true)]
#[case::stanford(
    json!({ "profile": "http://library.stanford.edu/iiif/image-api/compliance.html#level1" }), true
)]
#[case::stanford_context(
    json!({ "@context": "http://library.stanford.edu/iiif/image-api/1.1/context.json" }), true
)]
#[case::mention(json!({}), true)]
#[case::search(json!({ "@context": "http://iiif.io/api/search/1/context.json" }), false)]
#[case::auth(json!({ "profile": "http://iiif.io/api/auth/1/login" }), false)]
#[case::auth_type(json!({ "@type": "AuthCookieService1", "profile": "login" }), false)]
#[case::physical_dimensions(
    json!({ "@context": "http://iiif.io/api/annex/services/physdim/1/context.json", "profile": "x" }), false
)]
fn only_image_services_count(#[case] mut service: Value, #[case] counts: bool) {
    service["@id"] = base("a").into();
    for service in [service.clone(), json!([service])] {
        let canvas = json!({
            "id": CANVAS, "type": "Canvas",
            "items": [{ "body": { "service": service, "id": "https://h/a.jpg", "type": "Image" } }],
        });
        assert_eq!(images_of_one(&canvas).len(), usize::from(counts), "{canvas}");
    }
}

#[test]
fn a_service_inside_an_image_service_does_not_count() {
    let mut service = service_2("a");
    service["service"] = json!([
        { "@id": base("login"), "@context": "http://iiif.io/api/auth/1/context.json" },
        { "@id": base("mention") },
        base("string"),
    ]);
    let canvas = json!({ "id": CANVAS, "type": "Canvas", "items": [{ "body": { "service": service } }] });
    assert_eq!(images_of_one(&canvas), ["a"]);
}

#[test]
fn a_mentioned_service_counts_only_on_an_image() {
    let on = |kind: &str| {
        let body = json!({ "service": [base("a"), { "id": base("b") }], "id": "https://h/a", "type": kind });
        images_of_one(&json!({ "id": CANVAS, "type": "Canvas", "items": [{ "body": body }] }))
    };
    assert_eq!(on("Image"), ["a", "b"]);
    assert_eq!(on("dctypes:Image"), ["a", "b"]);
    assert!(on("Sound").is_empty());
}

#[test]
fn beside_an_image_service_a_mentioned_one_is_none() {
    for mention in [json!("https://lib.test/login"), json!({ "@id": "https://lib.test/login" })] {
        for service in [json!([service_2("a"), mention]), json!([mention, service_3("a")])] {
            let body = json!({ "@id": "https://h/a.jpg", "@type": "dctypes:Image", "service": service });
            let canvas = json!({ "id": CANVAS, "type": "Canvas", "items": [{ "body": body }] });
            assert_eq!(images_of_one(&canvas), ["a"], "{canvas}");
        }
    }
}

#[test]
fn letters_that_are_no_text_spoil_a_label_and_a_name_that_has_them_only() {
    let canvas = |id: &str, image: &str| json!({ "id": id, "type": "Canvas", "items": [{ "body": { "id": picture(image), "type": "Image" } }] });
    let document = json!({
        "type": "Manifest", "label": "Caf~", "items": [
            canvas("https://h/1", "a"), canvas("https://h/~2", "b"), canvas("https://h/3", "c~"),
        ],
    });
    let bytes: Vec<u8> =
        document.to_string().bytes().map(|byte| if byte == b'~' { 0xe9 } else { byte }).collect();
    let mut streamed = Vec::new();
    let by_reader = walk(&*bytes, &mut |canvas| streamed.push(canvas)).unwrap();
    let (document, canvases) = read(&bytes).unwrap();
    assert_eq!((&by_reader, &streamed), (&document, &canvases));
    assert_eq!(document.label.as_deref(), Some("Caf\u{fffd}"));
    let pairs: Vec<_> = canvases.iter().map(|canvas| (canvas.id.as_str(), canvas.images.clone())).collect();
    assert_eq!(pairs, [("https://h/1", vec!["a".to_owned()]), ("https://h/3", Vec::new())]);
    assert_eq!(document.unclaimed, 1);
}

#[test]
fn half_a_surrogate_pair_in_a_label_is_read_over() {
    let text = format!(
        r#"{{"type":"Canvas","id":"{CANVAS}","label":"a \ud83d b","items":[{{"body":"{}"}}]}}"#,
        picture("a")
    );
    let (document, canvases) = read(text.as_bytes()).unwrap();
    assert_eq!(document.label.as_deref(), Some("a \u{fffd} b"));
    assert_eq!(canvases[0].images, ["a"]);
}

#[test]
fn utf_16_is_read() {
    let text =
        format!(r#"{{"type":"Canvas","id":"{CANVAS}","label":"é","items":[{{"body":"{}"}}]}}"#, picture("a"));
    for mark in ["\u{feff}", ""] {
        for unit in [u16::to_le_bytes, u16::to_be_bytes] {
            let bytes: Vec<u8> = format!("{mark}{text}").encode_utf16().flat_map(unit).collect();
            let (document, canvases) = read(&bytes).unwrap();
            assert_eq!((document.label.as_deref(), &*canvases[0].images), (Some("é"), &["a".to_owned()][..]));
            assert_eq!(walk(&*bytes, &mut |_| ()).unwrap(), document);
        }
    }
}

#[test]
fn the_order_of_keys_does_not_matter() {
    let text = r#"{
        "items": [{
            "items": [{ "items": [{ "body": { "service": [{
                "profile": "level2", "id": "https://h/a", "type": "ImageService3" }], "type": "Image" },
                "type": "Annotation" }], "type": "AnnotationPage" }],
            "label": { "en": ["One"] }, "id": "https://h/c1", "type": "Canvas"
        }],
        "thumbnail": [{ "id": "https://h/a/full/90,/0/default.jpg", "type": "Image" }],
        "label": "All", "type": "Manifest", "id": "https://h/m"
    }"#;
    let (document, canvases) = walked_text(text);
    assert_eq!((document.kind, document.id.as_deref()), (DocumentKind::Manifest, Some("https://h/m")));
    assert_eq!(document.label.as_deref(), Some("All"));
    let one = Canvas { id: "https://h/c1".into(), label: Some("One".into()), images: vec!["a".into()] };
    assert_eq!(canvases, [one]);
}

#[test]
fn what_stands_before_a_canvas_does_not_rob_it() {
    // The canvas's own image, also as thumbnail of the manifest just before it.
    let text = format!(
        r#"{{"thumbnail":"{0}","type":"Manifest","items":[{{"thumbnail":"{0}","id":"{CANVAS}","type":"Canvas"}}]}}"#,
        picture("a")
    );
    let (document, canvases) = walked_text(&text);
    assert_eq!(canvases[0].images, ["a"]);
    assert_eq!(document.unowned, 1);
}

#[test]
fn each_image_is_told_once_however_many_there_are() {
    for count in [3, 16, 17, 100] {
        let bodies: Vec<Value> = (0..count * 3)
            .map(|at| json!({ "body": { "id": picture(&format!("i{}", at % count)), "type": "Image" } }))
            .collect();
        let canvas = json!({ "id": CANVAS, "type": "Canvas", "items": [{ "items": bodies }] });
        let expected: Vec<String> = (0..count).map(|at| format!("i{at}")).collect();
        assert_eq!(images_of_one(&canvas), expected);
    }
}

#[rstest]
#[case(json!({ "@context": "http://iiif.io/api/image/2/context.json", "@id": base("a"), "profile": [] }))]
#[case(json!({ "timestamp": "2026", "status": 500, "error": "Internal Server Error", "path": "/x" }))]
#[case(json!({ "images": ["a.png"], "id": "x" }))]
#[case(json!({ "items": [1, 2], "id": "x" }))]
#[case(json!([{ "id": "x" }]))]
#[case(json!("text"))]
#[case(json!(1.5))]
#[case(json!(null))]
fn json_of_other_kinds_has_no_canvases(#[case] document: Value) {
    let (document, canvases) = walked(&document);
    assert_eq!(document.kind, DocumentKind::Other);
    assert!(canvases.is_empty());
}

#[test]
fn annotations_in_a_document_of_their_own_belong_to_the_canvas_they_name() {
    let image = json!({ "@id": picture("a"), "@type": "dctypes:Image" });
    let page = json!({
        "type": "AnnotationPage", "id": "https://h/page",
        "items": [{ "type": "Annotation", "body": image, "target": format!("{CANVAS}#xywh=1,1,2,2") }],
    });
    let list = json!({
        "@type": "sc:AnnotationList",
        "resources": [{ "@type": "oa:Annotation", "resource": image, "on": [{ "full": CANVAS }] }],
    });
    let alone = json!({
        "type": "Annotation", "body": [image], "target": { "source": { "id": CANVAS, "type": "Canvas" } },
    });
    for document in [page, list, alone] {
        assert_eq!(images_of_one(&document), ["a"]);
        assert_eq!(walked(&document).0.kind, DocumentKind::Annotations);
    }
}

#[test]
fn a_document_that_the_service_broke_is_read_all_the_same() {
    let broken = format!(
        "\u{feff}{{\"@type\":\"sc:Canvas\",\"@id\":\"{CANVAS}\",\"label\":[\"Line\none \\ two\",\"x\"],\
         \"images\":[{{\"resource\":{{\"service\":{}}}}}]}}",
        service_2("a")
    );
    assert!(walk_slice(broken.as_bytes(), &mut |_| ()).is_err());
    let (document, canvases) = read(broken.as_bytes()).unwrap();
    assert_eq!(document.label.as_deref(), Some("Line\none \\ two"));
    assert_eq!(canvases[0].images, ["a"]);
}
