//! Services of images and of other things, choices and parts.

use serde_json::json;

use super::{IMAGES, agree, book_2, book_3, pairs_of, service, tile, walked};

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

/// The images of the first canvas, where this is painted on it.
fn painted(body: &serde_json::Value) -> Vec<String> {
    let mut document = book_3();
    document["items"][0]["items"][0]["items"][0]["body"] = body.clone();
    let (_, found) = walked(document.to_string().as_bytes());
    let others = pairs_of(&book_3());
    found.difference(&others).map(|(image, _)| image.clone()).collect()
}

#[test]
fn of_several_bare_services_those_where_our_images_lie_are_images() {
    let (ours, login) = (format!("{IMAGES}new"), "https://lib.test/login");
    for service in [json!([ours, login]), json!([{ "@id": login }, { "@id": ours }]), json!(ours)] {
        let body = json!({ "id": "https://lib.test/f.jpg", "type": "Image", "service": service });
        assert_eq!(painted(&body), ["new"], "{body}");
    }
    // The URL of an image of ours tells enough.
    assert_eq!(painted(&json!({ "id": tile("new"), "type": "Image", "service": login })), ["new"]);
    // A thumbnail does not say which image it belongs to.
    let thumbnail = json!([{ "id": tile("small"), "type": "Image" }]);
    let body =
        json!({ "id": "https://lib.test/f.jpg", "type": "Image", "thumbnail": thumbnail, "service": ours });
    assert_eq!(painted(&body), ["new", "small"]);
}

#[test]
fn an_image_that_is_named_by_the_base_uri_of_its_service_is_found() {
    for uri in [format!("{IMAGES}new"), format!("{IMAGES}new/"), format!("{IMAGES}new/info.json")] {
        for body in [
            json!(uri),
            json!([uri]),
            json!({ "id": uri, "type": "Image" }),
            json!({ "type": "SpecificResource", "source": uri, "selector": { "type": "ImageApiSelector" } }),
            json!({ "type": "SpecificResource", "source": { "id": uri, "type": "Image" } }),
        ] {
            assert_eq!(painted(&body), ["new"], "{body}");
        }
    }
    for other in [
        json!("https://lib.test/files/new"),
        json!({ "id": format!("{IMAGES}new"), "type": "Text" }),
        json!(format!("{IMAGES}new/full/full/0/native")),
    ] {
        assert!(painted(&other).is_empty(), "{other}");
    }
}

#[test]
fn a_service_with_a_profile_of_its_server_s_own_is_known_by_the_place_of_its_id() {
    let id = format!("{IMAGES}f1");
    for own in [
        json!({ "@id": id, "profile": "http://example.org/custom" }),
        json!({ "@id": id, "@type": "Service" }),
        json!({ "@id": id, "@type": "iiif:Image" }),
        json!([{ "@id": id, "profile": "custom" }, { "@id": "https://lib.test/iiif/2/login", "profile": "http://iiif.io/api/auth/1/login" }]),
    ] {
        let mut document = book_2();
        document["sequences"][0]["canvases"][0]["images"][0]["resource"] =
            json!({ "@id": "https://lib.test/f1.jpg", "@type": "dctypes:Image", "service": own });
        let (_, found) = walked(document.to_string().as_bytes());
        assert_eq!(found, pairs_of(&book_2()), "{document}");
    }
    // Elsewhere such a service may be anything.
    let mut document = book_2();
    document["sequences"][0]["canvases"][0]["images"][0]["resource"] = json!({
        "@id": tile("f1"), "@type": "dctypes:Image", "service": { "@id": "https://maps.test/geo", "profile": "custom" },
    });
    let (_, found) = walked(document.to_string().as_bytes());
    assert_eq!(found, pairs_of(&book_2()));
}

#[test]
fn white_space_around_a_url_is_no_part_of_it() {
    let mut document = book_2();
    let canvas = &mut document["sequences"][0]["canvases"][0];
    canvas["@id"] = format!(" {}\n", canvas["@id"].as_str().expect("an id")).into();
    let service = &mut canvas["images"][0]["resource"]["service"];
    service["@id"] = format!("\t{IMAGES}f1 ").into();
    let (_, found) = walked(document.to_string().as_bytes());
    assert_eq!(found, pairs_of(&book_2()));
}

#[test]
fn services_in_lists_of_lists_and_inside_of_services_are_read_alike() {
    let login = json!({ "@id": "https://lib.test/iiif/2/login", "profile": "http://iiif.io/api/auth/1/login",
        "service": { "@id": "https://lib.test/iiif/2/token", "profile": "http://iiif.io/api/auth/1/token" } });
    let mut guarded = service("f1");
    guarded["service"] = json!([login]);
    let forms = [
        json!(guarded),
        json!([guarded]),
        json!([[guarded]]),
        json!([login, [guarded, "https://lib.test/iiif/2/search"]]),
        json!({ "@id": format!("{IMAGES}f1"), "type": "ImageService2" }),
        json!([{ "id": format!("{IMAGES}f1"), "type": "ImageService3", "profile": "level1", "service": login }]),
        json!({ "@id": format!("{IMAGES}f1"), "profile": ["http://iiif.io/api/image/2/level1.json", { "formats": ["jpg"] }] }),
        json!({ "@id": format!("{IMAGES}f1"), "profile": "http://library.stanford.edu/iiif/image-api/1.1/compliance.html#level1" }),
    ];
    for form in forms {
        let mut document = book_2();
        document["sequences"][0]["canvases"][0]["images"][0]["resource"]["service"] = form.clone();
        agree(&document, 2);
        // The service alone tells which image it is.
        let resource = &mut document["sequences"][0]["canvases"][0]["images"][0]["resource"];
        resource["@id"] = "https://lib.test/pictures/1.jpg".into();
        if !form.to_string().contains("stanford") {
            agree(&document, 2);
        }
        let mut document = book_3();
        document["items"][0]["items"][0]["items"][0]["body"]["service"] = form;
        agree(&document, 2);
    }
}
