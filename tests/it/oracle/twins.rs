//! The same document written in other ways: nothing of it is lost, and nothing is found that was not there.

use serde_json::{Map, Value, json};

use super::{IMAGES, Pairs, agree, book_2, book_3, pairs_of, service, tile, walked};

/// What is found in the text is what stands in the book.
fn is_read_as(text: &str, expected: &Pairs) {
    assert_eq!(&walked(text.as_bytes()).1, expected, "{text}");
}

#[test]
fn images_are_the_same_by_every_spelling_of_their_host() {
    for document in [book_2(), book_3()] {
        let expected = pairs_of(&document);
        for host in [
            "http://lib.test",
            "HTTPS://lib.test",
            "https://LIB.TEST",
            "https://Lib.Test:443",
            "http://lib.test:80",
        ] {
            let text = document.to_string().replace("https://lib.test/iiif/2/", &format!("{host}/iiif/2/"));
            assert_ne!(text, document.to_string());
            is_read_as(&text, &expected);
        }
        // Another port is another server: the last segment tells the image.
        let text = document.to_string().replace("https://lib.test/iiif/2/", "https://lib.test:8443/other/2/");
        is_read_as(&text, &expected);
    }
}

#[test]
fn images_are_the_same_with_fragments_queries_escapes_and_slashes() {
    for document in [book_2(), book_3()] {
        let expected = pairs_of(&document);
        let text = document.to_string();
        for (from, to) in [
            ("default.jpg", "default.jpg#xywh=0,0,1,1"),
            ("default.jpg", "default.jpg?token=a/b/c"),
            ("default.jpg", "default.jpg?token=a#b?c"),
            ("/iiif/2/f", "/iiif/2/%66"),
            ("\"https://lib.test/iiif", "\"https:\\/\\/lib.test\\/iiif"),
            ("\"https://lib.test/iiif", "\"\\u0068ttps://lib.test/iiif"),
        ] {
            assert!(text.contains(from), "{from}");
            is_read_as(&text.replace(from, to), &expected);
        }
        // Names of keys may be escaped as well.
        let escaped = text
            .replace("\"@id\"", "\"\\u0040id\"")
            .replace("\"id\"", "\"\\u0069d\"")
            .replace("\"items\"", "\"it\\u0065ms\"")
            .replace("\"canvases\"", "\"c\\u0061nvases\"");
        is_read_as(&escaped, &expected);
    }
}

#[test]
fn escapes_and_letters_of_an_identifier_are_one_name() {
    for (written, other, key) in [
        ("a~b", "a%7Eb", "a~b"),
        ("a~b", "a%7eb", "a~b"),
        ("é", "%C3%A9", "é"),
        ("é", "%c3%a9", "é"),
        ("a b", "a%20b", "a b"),
        ("a%252Fb", "%61%252Fb", "a%2Fb"),
        ("a%25b", "a%25b", "a%b"),
        ("100%", "100%25", "100%"),
        ("a+b", "a%2Bb", "a+b"),
        ("a?IIIF=b", "a?IIIF=b", "a?IIIF=b"),
        ("a?IIIF=v/b", "a?IIIF=v/b", "a?IIIF=v/b"),
    ] {
        for name in [written, other] {
            let mut document = book_3();
            document["items"][0]["items"][0]["items"][0]["body"] =
                json!({ "id": tile(name), "type": "Image", "service": [service(name)] });
            let (_, found) = walked(document.to_string().as_bytes());
            let canvas = "https://lib.test/svc/canvas/1".to_owned();
            assert!(found.contains(&(key.to_owned(), canvas)), "{name}: {found:?}");
            assert_eq!(found.len(), 2, "{name}: {found:?}");
        }
    }
}

/// A list as PHP writes it once an element was taken out: an object with numbers for names.
fn numbered(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(all) => {
            for (name, value) in all.iter_mut() {
                numbered(value, names);
                if let (true, Value::Array(list)) = (names.contains(&name.as_str()), &*value) {
                    let each = list.iter().cloned().enumerate().map(|(at, one)| ((at * 2).to_string(), one));
                    *value = Value::Object(each.collect::<Map<_, _>>());
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|one| numbered(one, names)),
        _ => {}
    }
}

#[test]
fn lists_that_are_objects_with_numbers_for_names_lose_no_page() {
    for names in [&["sequences"][..], &["canvases"], &["images"], &["items"], &["service"]] {
        for document in [book_2(), book_3()] {
            let expected = pairs_of(&document);
            let mut changed = document.clone();
            numbered(&mut changed, names);
            if changed != document {
                let (read, found) = walked(changed.to_string().as_bytes());
                assert_eq!(found, expected, "{names:?}: {changed:#}");
                assert_eq!(read.unclaimed, 0, "{names:?}");
            }
        }
    }
}

#[test]
fn single_things_where_lists_belong_and_lists_where_single_things_belong_lose_nothing() {
    let mut document = book_2();
    document["sequences"] = document["sequences"][0].clone();
    agree(&document, 2);
    document["sequences"]["canvases"] = document["sequences"]["canvases"][0].clone();
    agree(&document, 1);
    document["sequences"]["canvases"]["images"] = document["sequences"]["canvases"]["images"][0].clone();
    agree(&document, 1);
    let mut document = book_3();
    for at in 0..2 {
        let page = document["items"][at]["items"][0].clone();
        document["items"][at]["items"] = page;
    }
    agree(&document, 2);
    for at in 0..2 {
        let annotation = document["items"][at]["items"]["items"][0].clone();
        document["items"][at]["items"]["items"] = annotation;
    }
    agree(&document, 2);
    let mut document = book_3();
    for at in 0..2 {
        let body = document["items"][at]["items"][0]["items"][0]["body"].clone();
        document["items"][at]["items"][0]["items"][0]["body"] = json!([[[body]]]);
        let annotations = document["items"][at]["items"][0]["items"].clone();
        document["items"][at]["items"][0]["items"] = json!([annotations]);
    }
    agree(&document, 2);
    let mut document = book_2();
    let canvases = document["sequences"][0]["canvases"].clone();
    document["sequences"][0]["canvases"] = json!([canvases]);
    agree(&document, 2);
}

#[test]
fn documents_inside_of_lists_and_graphs_keep_their_pages() {
    for document in [book_2(), book_3()] {
        let expected = pairs_of(&document);
        let context = "http://iiif.io/api/presentation/2/context.json";
        for around in [
            json!([document]),
            json!([null, [document], 1]),
            json!({ "@context": context, "@graph": [document] }),
            json!({ "@context": context, "@graph": document }),
            json!({ "data": { "manifest": document } }),
            json!({ "manifests": [{ "manifests": [document] }] }),
        ] {
            is_read_as(&around.to_string(), &expected);
        }
    }
}

#[test]
fn the_two_versions_in_one_document_lose_no_page() {
    let (two, three) = (book_2(), book_3());
    let expected = pairs_of(&two);
    let canvases_2 = two["sequences"][0]["canvases"].clone();
    let canvases_3 = three["items"].clone();
    // Canvases of the one version in the lists of the other.
    let mut mixed = two.clone();
    mixed["sequences"][0]["canvases"] = canvases_3.clone();
    is_read_as(&mixed.to_string(), &expected);
    let mut mixed = three.clone();
    mixed["items"] = canvases_2.clone();
    is_read_as(&mixed.to_string(), &expected);
    mixed["items"] = json!([canvases_2[0], canvases_3[1]]);
    is_read_as(&mixed.to_string(), &expected);
    mixed["items"] = json!([canvases_3[0], canvases_2[1]]);
    is_read_as(&mixed.to_string(), &expected);
    // Both lists in one manifest, as some serve for viewers of either.
    let mut both = two.clone();
    both["items"] = canvases_3.clone();
    both["type"] = "Manifest".into();
    is_read_as(&both.to_string(), &expected);
    // Annotations of version 2 below a canvas of version 3, and the other way round.
    let mut mixed = three.clone();
    for at in 0..2 {
        let annotation = canvases_2[at]["images"][0].clone();
        mixed["items"][at]["items"][0]["items"] = json!([annotation]);
    }
    is_read_as(&mixed.to_string(), &expected);
    let mut mixed = two.clone();
    for at in 0..2 {
        let annotation = canvases_3[at]["items"][0]["items"][0].clone();
        mixed["sequences"][0]["canvases"][at]["images"] = json!([annotation]);
    }
    is_read_as(&mixed.to_string(), &expected);
    // The Metadata API, before version 2: `resources` for `images`.
    let text = two.to_string().replace("\"images\"", "\"resources\"");
    is_read_as(&text, &expected);
}

#[test]
fn ids_that_are_no_names_are_counted_and_take_nothing_from_the_others() {
    for id in [json!(17), json!(null), json!(true), json!({}), json!(""), json!("#a")] {
        let mut document = book_2();
        document["sequences"][0]["canvases"][0]["@id"] = id.clone();
        let (read, found) = walked(document.to_string().as_bytes());
        let other: Pairs = pairs_of(&book_2()).into_iter().filter(|(key, _)| key == "f2").collect();
        assert_eq!(found, other, "{id}");
        assert_eq!(read.unclaimed, 1, "{id}");
        let mut document = book_3();
        document["items"][0]["id"] = id.clone();
        let (read, found) = walked(document.to_string().as_bytes());
        assert_eq!(found, other, "{id}");
        assert_eq!(read.unclaimed, 1, "{id}");
        // The document's own id, and that of its sequence, are nobody else's.
        for place in ["/@id", "/sequences/0/@id", "/sequences/0/canvases/0/images/0/@id"] {
            let mut document = book_2();
            *document.pointer_mut(place).expect("a place") = id.clone();
            is_read_as(&document.to_string(), &pairs_of(&book_2()));
        }
    }
}

#[test]
fn relative_names_of_canvases_are_kept_as_they_are_and_relative_images_are_none_of_ours() {
    for name in ["canvas/1", "/svc/canvas/1", "//lib.test/svc/canvas/1", "urn:uuid:1", "_:b0"] {
        let text = book_3().to_string().replace("https://lib.test/svc/canvas/1", name);
        let (_, found) = walked(text.as_bytes());
        assert!(found.contains(&("f1".to_owned(), name.to_owned())), "{name}: {found:?}");
    }
    let text = book_3().to_string().replace(IMAGES, "/iiif/2/");
    let (read, found) = walked(text.as_bytes());
    assert_eq!((found, read.canvases), (Pairs::new(), 2));
}
