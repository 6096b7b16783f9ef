//! Tests of every position of Presentation 3 where an image may stand, and mixtures with 2.

use super::*;

/// A manifest of one canvas that has these things besides its name.
fn manifest(canvas: &Value) -> Value {
    let mut canvas = canvas.clone();
    canvas["id"] = CANVAS.into();
    canvas["type"] = "Canvas".into();
    json!({
        "@context": ["http://iiif.io/api/extension/navplace/context.json",
                     "http://iiif.io/api/presentation/3/context.json"],
        "id": "https://example.org/manifest", "type": "Manifest", "label": { "en": ["A book"] },
        "items": [canvas],
    })
}

fn pages(body: &Value) -> Value {
    json!([{
        "id": "https://h/page", "type": "AnnotationPage",
        "items": [{
            "id": "https://h/annotation", "type": "Annotation", "motivation": "painting",
            "body": body, "target": CANVAS,
        }],
    }])
}

fn painted(body: &Value) -> Value {
    manifest(&json!({ "height": 1, "width": 1, "items": pages(body) }))
}

#[rstest]
#[case::service(json!({ "id": "https://h/a.jpg", "type": "Image", "service": [service_3("a")] }), &["a"])]
#[case::service_object(json!({ "service": service_3("a") }), &["a"])]
#[case::service_of_version_2(
    json!({ "service": [{ "@id": base("a"), "@type": "ImageService2", "profile": "x" }] }), &["a"]
)]
#[case::service_as_string(json!({ "type": "Image", "service": [base("a")] }), &["a"])]
#[case::service_by_reference(json!({ "type": "Image", "service": [{ "id": base("a") }] }), &["a"])]
#[case::image_url_without_service(json!({ "id": picture("a"), "type": "Image" }), &["a"])]
#[case::bodies(json!([{ "id": picture("a") }, { "service": [service_3("b")] }]), &["a", "b"])]
#[case::choice(
    json!({ "type": "Choice", "items": [{ "id": picture("a") }, { "service": [service_3("b")] }] }),
    &["a", "b"]
)]
#[case::specific_resource(
    json!({ "type": "SpecificResource", "source": { "type": "Image", "service": [service_3("a")] } }), &["a"]
)]
#[case::source_as_string(json!({ "type": "SpecificResource", "source": picture("a") }), &["a"])]
#[case::string(json!(picture("a")), &["a"])]
#[case::canvas_on_a_canvas(
    json!({ "id": "https://h/inner", "type": "Canvas", "height": 1, "items": pages(&json!(picture("a"))) }),
    &["a"]
)]
#[case::sound(json!({ "id": "https://h/a.mp3", "type": "Sound" }), &[])]
fn what_is_painted_belongs_to_the_canvas(#[case] body: Value, #[case] images: &[&str]) {
    assert_eq!(images_of_one(&painted(&body)), images);
}

#[rstest]
#[case::placeholder("placeholderCanvas")]
#[case::accompanying("accompanyingCanvas")]
fn canvases_that_a_canvas_holds_belong_to_it(#[case] key: &str) {
    let held = json!({
        "id": "https://h/held", "type": "Canvas", "height": 1, "width": 1,
        "items": pages(&json!({ "service": [service_3("held")] })),
    });
    let mut canvas = json!({ "items": pages(&json!({ "service": [service_3("own")] })) });
    canvas[key] = held.clone();
    let mut images = images_of_one(&manifest(&canvas));
    images.sort();
    assert_eq!(images, ["held", "own"]);

    let mut document = painted(&json!({ "service": [service_3("own")] }));
    document[key] = held;
    assert_eq!(images_of_one(&document), ["own"]);
    assert_eq!(walked(&document).0.unowned, 1);
}

#[test]
fn pictures_and_annotations_of_a_canvas_belong_to_it() {
    let canvas = json!({
        "items": [],
        "annotations": pages(&json!({ "type": "Image", "id": picture("1-annotation") })),
        "provider": [{ "type": "Agent", "logo": [{ "type": "Image", "service": [service_3("2-logo")] }] }],
        "rendering": [{ "id": picture("3-download"), "type": "Image", "format": "image/jpeg" }],
        "thumbnail": [{ "id": picture("4-thumbnail"), "type": "Image", "service": [service_3("4-thumbnail")] }],
    });
    let images = images_of_one(&manifest(&canvas));
    assert_eq!(images, ["1-annotation", "2-logo", "3-download", "4-thumbnail"]);
}

#[test]
fn pictures_of_a_manifest_belong_to_no_canvas() {
    let mut document = painted(&json!({ "service": [service_3("a")] }));
    document["thumbnail"] = json!([{ "id": picture("a"), "type": "Image", "service": [service_3("a")] }]);
    document["provider"] = json!([{ "type": "Agent", "logo": [{ "service": [service_3("logo")] }] }]);
    document["services"] = json!([service_3("listed")]);
    assert_eq!(images_of_one(&document), ["a"]);
    assert_eq!(walked(&document).0.unowned, 2);
}

#[test]
fn mentions_of_canvases_are_not_handed_out() {
    let mut document = painted(&json!({ "service": [service_3("a")] }));
    let mention = json!({ "id": "https://h/other", "type": "Canvas" });
    document["start"] = mention.clone();
    document["structures"] =
        json!([{ "type": "Range", "items": [mention, { "type": "Range", "items": [mention] }] }]);
    document["items"][0]["partOf"] = json!([{ "id": "https://h/other", "type": "Manifest" }]);
    document["items"][0]["unheard-of"] = mention;
    assert_eq!(images_of_one(&document), ["a"]);
    assert!(walked(&document).0.members.is_empty());
}

#[test]
fn a_canvas_in_a_document_of_its_own_is_read() {
    let canvas = painted(&json!({ "service": [service_3("a")] }))["items"][0].clone();
    assert_eq!(images_of_one(&canvas), ["a"]);
    assert_eq!(walked(&canvas).0.kind, DocumentKind::Canvas);
}

#[test]
fn types_may_be_missing() {
    let mut document = painted(&json!({ "service": [service_3("a")] }));
    for pointer in ["", "/items/0", "/items/0/items/0", "/items/0/items/0/items/0"] {
        document.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove("type");
    }
    assert_eq!(images_of_one(&document), ["a"]);
    assert_eq!(walked(&document).0.kind, DocumentKind::Manifest);
}

#[test]
fn ids_and_types_of_both_versions_may_be_mixed() {
    let document = json!({
        "@id": "https://h/m", "type": "Manifest",
        "sequences": [{ "canvases": [{
            "id": CANVAS, "@type": "sc:Canvas",
            "images": [{ "resource": { "service": [{ "id": base("a"), "@type": "ImageService2" }] } }],
            "items": pages(&json!({ "@id": picture("b"), "@type": "dctypes:Image" })),
        }] }],
    });
    assert_eq!(images_of_one(&document), ["a", "b"]);
    assert_eq!(walked(&document).0.id.as_deref(), Some("https://h/m"));
}

#[test]
fn members_without_a_type_are_links_in_a_collection_and_nothing_elsewhere() {
    let bare = json!([{ "id": "https://h/m1", "label": { "en": ["1"] } }, { "id": "https://h/m2", "type": "Manifest" }]);
    let (document, _) = walked(&json!({ "id": "https://h/c", "items": bare, "type": "Collection" }));
    assert_eq!(document.members, ["https://h/m2", "https://h/m1"]);
    let (document, _) = walked(&json!({ "@id": "https://h/c", "@type": "sc:Collection", "members": bare }));
    assert_eq!(document.members, ["https://h/m2", "https://h/m1"]);
    let mut document = painted(&json!({ "service": [service_3("a")] }));
    document["items"].as_array_mut().unwrap().push(json!({ "id": "https://h/canvas" }));
    assert!(walked(&document).0.members.is_empty());
}

#[test]
fn the_members_of_a_collection_are_links_and_nested_manifests_are_read() {
    let mut nested = painted(&json!({ "service": [service_3("a")] }));
    nested["thumbnail"] = picture("b").into();
    let collection = json!({
        "id": "https://h/c", "type": "Collection",
        "items": [
            { "id": "https://h/m1", "type": "Manifest", "thumbnail": [{ "id": picture("t"), "type": "Image" }] },
            nested,
            { "id": "https://h/c2", "type": "Collection", "items": [{ "id": "https://h/m2", "type": "Manifest" }] },
        ],
    });
    let (document, canvases) = walked(&collection);
    assert_eq!(document.kind, DocumentKind::Collection);
    let links = ["https://h/m1", "https://example.org/manifest", "https://h/m2", "https://h/c2"];
    assert_eq!(document.members, links);
    assert_eq!(canvases.len(), 1);
    assert_eq!(document.unowned, 2);
}
