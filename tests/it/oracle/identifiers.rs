//! Identifiers of every form.

use serde_json::json;

use super::{IMAGES, agree, book_2, book_3, service, tile, walked};

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
