//! Tests of every position of Presentation 2.1 where an image may stand.

use super::*;

/// A manifest of one canvas that has these things besides its name.
fn manifest(canvas: &Value) -> Value {
    let mut canvas = canvas.clone();
    canvas["@id"] = CANVAS.into();
    canvas["@type"] = "sc:Canvas".into();
    json!({
        "@context": "http://iiif.io/api/presentation/2/context.json",
        "@id": "https://example.org/manifest", "@type": "sc:Manifest", "label": "A book",
        "sequences": [{ "@type": "sc:Sequence", "canvases": [canvas] }],
    })
}

/// A canvas on which `resource` is painted.
fn painted(resource: &Value) -> Value {
    manifest(&json!({
        "height": 1, "width": 1,
        "images": [{
            "@id": base("annotation"), "@type": "oa:Annotation", "motivation": "sc:painting",
            "resource": resource, "on": CANVAS,
        }],
    }))
}

#[rstest]
#[case::service(json!({ "@id": "https://h/a.jpg", "@type": "dctypes:Image", "service": service_2("a") }), &["a"])]
#[case::services(json!({ "service": [service_2("a"), service_2("b")] }), &["a", "b"])]
#[case::service_as_string(json!({ "@type": "dctypes:Image", "service": base("a") }), &["a"])]
#[case::no_type_and_service_as_string(json!({ "service": base("a") }), &["a"])]
#[case::image_url_without_service(json!({ "@id": picture("a"), "@type": "dctypes:Image" }), &["a"])]
#[case::image_url_and_its_service(json!({ "@id": picture("a"), "service": service_2("a") }), &["a"])]
#[case::pdf(
    json!({ "@id": picture("a;2"), "format": "application/pdf", "service": service_2("a;2") }), &["a;2"]
)]
#[case::choice(
    json!({
        "@type": "oa:Choice",
        "default": { "@id": picture("a"), "service": service_2("a") },
        "item": [{ "service": service_2("b") }, "rdf:nil", { "@id": picture("c") }],
    }),
    &["a", "b", "c"]
)]
#[case::specific_resource(
    json!({
        "@id": "https://example.org/iiif/2/a/50,50,9,9/full/0/default.jpg", "@type": "oa:SpecificResource",
        "full": { "@id": picture("a"), "@type": "dctypes:Image", "service": service_2("a") },
        "selector": { "@type": "iiif:ImageApiSelector", "region": "50,50,9,9" },
    }),
    &["a"]
)]
#[case::string(json!(picture("a")), &["a"])]
#[case::foreign_picture(json!({ "@id": "https://h/a.jpg", "@type": "dctypes:Image" }), &[])]
fn what_is_painted_belongs_to_the_canvas(#[case] resource: Value, #[case] images: &[&str]) {
    assert_eq!(images_of_one(&painted(&resource)), images);
}

#[rstest]
#[case::string(json!(picture("a")), &["a"])]
#[case::object(json!({ "@id": picture("a"), "@type": "dctypes:Image" }), &["a"])]
#[case::service(json!({ "@id": "https://h/small.jpg", "service": service_2("a") }), &["a"])]
#[case::list(json!([{ "@id": picture("a") }, picture("b")]), &["a", "b"])]
#[case::foreign(json!("https://h/small.jpg"), &[])]
fn thumbnails_belong_to_what_they_stand_for(#[case] thumbnail: Value, #[case] images: &[&str]) {
    assert_eq!(images_of_one(&manifest(&json!({ "images": [], "thumbnail": thumbnail }))), images);

    let mut outside = manifest(&json!({ "images": [] }));
    outside["thumbnail"] = thumbnail.clone();
    let (document, canvases) = walked(&outside);
    assert_eq!((document.unowned, canvases[0].images.len()), (images.len(), 0));

    let mut sequence = manifest(&json!({ "images": [] }));
    sequence["sequences"][0]["thumbnail"] = thumbnail;
    assert_eq!(walked(&sequence).0.unowned, images.len());
}

#[test]
fn logos_of_a_canvas_and_embedded_annotation_lists_belong_to_it() {
    let canvas = json!({
        "images": [],
        "logo": { "@id": "https://h/logo.png", "service": service_2("logo") },
        "otherContent": [
            { "@id": "https://h/list", "@type": "sc:AnnotationList" },
            { "@type": "sc:AnnotationList", "resources": [{ "resource": { "service": service_2("note") } }] },
        ],
    });
    assert_eq!(images_of_one(&manifest(&canvas)), ["logo", "note"]);
}

#[test]
fn the_canvas_of_the_issue_is_read() {
    // The shape in which the library reported the problem: the service's profile is that of Image API 1.1.
    let canvas = json!({
        "@id": CANVAS, "@type": "sc:Canvas", "label": "Index - 1", "width": 3342, "height": 5544,
        "images": [{
            "@id": base("88c02c4f-cb78-3d8d-a4a5-2463f29a6565"), "@type": "oa:Annotation",
            "resource": {
                "@id": picture("88c02c4f-cb78-3d8d-a4a5-2463f29a6565"), "@type": "dctypes:Image",
                "service": {
                    "@context": "http://iiif.io/api/image/2/context.json",
                    "@id": base("88c02c4f-cb78-3d8d-a4a5-2463f29a6565"),
                    "profile": "https://iiif.io/api/image/1.1/compliance/#level2",
                },
            },
            "on": CANVAS,
        }],
    });
    assert_eq!(images_of_one(&canvas), ["88c02c4f-cb78-3d8d-a4a5-2463f29a6565"]);
    let (document, canvases) = walked(&canvas);
    assert_eq!((document.kind, document.id.as_deref()), (DocumentKind::Canvas, Some(CANVAS)));
    assert_eq!(canvases[0].label.as_deref(), Some("Index - 1"));
}

#[test]
fn a_poisoned_canvas_is_handed_out_without_images() {
    let (document, canvases) = walked(&manifest(&json!({ "images": [], "height": 0, "width": 0 })));
    assert_eq!((document.kind, document.canvases, document.images), (DocumentKind::Manifest, 1, 0));
    assert!(canvases[0].images.is_empty());
}

#[test]
fn a_canvas_that_is_only_mentioned_is_not_handed_out() {
    let range = json!({
        "@type": "sc:Range", "@id": "https://h/range", "canvases": [CANVAS],
        "members": [{ "@id": CANVAS, "@type": "sc:Canvas", "label": "Page 1" }],
    });
    assert_eq!(walked(&range).0.kind, DocumentKind::Sequence);
    assert!(walked(&range).1.is_empty());

    let mut document = manifest(&json!({ "images": [] }));
    document["structures"] = json!([range]);
    document["startCanvas"] = CANVAS.into();
    assert_eq!(walked(&document).0.canvases, 1);
}

#[test]
fn a_sequence_in_a_document_of_its_own_gives_its_canvases() {
    let sequence = painted(&json!({ "service": service_2("a") }))["sequences"][0].clone();
    assert_eq!(walked(&sequence).0.kind, DocumentKind::Sequence);
    assert_eq!(images_of_one(&sequence), ["a"]);
}

#[test]
fn types_may_be_missing() {
    let mut document = painted(&json!({ "service": service_2("a") }));
    for pointer in ["", "/sequences/0", "/sequences/0/canvases/0"] {
        document.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove("@type");
    }
    assert_eq!(images_of_one(&document), ["a"]);
    assert_eq!(walked(&document).0.kind, DocumentKind::Manifest);
    let canvas = &document["sequences"][0]["canvases"][0];
    assert_eq!(images_of_one(canvas), ["a"]);
    assert_eq!(walked(canvas).0.kind, DocumentKind::Canvas);
}

#[test]
fn the_members_of_a_collection_are_links() {
    let collection = json!({
        "@type": "sc:Collection", "@id": "https://h/c", "label": ["Minutes", "obj"],
        "within": { "@id": "https://h/parent", "@type": "sc:Collection" },
        "manifests": [{ "@id": "https://h/m1", "@type": "sc:Manifest" }, "https://h/m2", { "@id": "https://h/m3" }],
        "collections": [{
            "@id": "https://h/c1", "@type": "sc:Collection",
            "members": [{ "@id": "https://h/m4", "@type": "sc:Manifest", "thumbnail": picture("a") }],
        }],
    });
    let (document, canvases) = walked(&collection);
    assert_eq!(document.kind, DocumentKind::Collection);
    assert_eq!(document.label.as_deref(), Some("Minutes"));
    // In the order found, which for serde_json's sorted keys is collections first; a member follows its own.
    let links = ["https://h/m4", "https://h/c1", "https://h/m1", "https://h/m2", "https://h/m3"];
    assert_eq!(document.members, links);
    assert_eq!((canvases.len(), document.unowned), (0, 1));
}
