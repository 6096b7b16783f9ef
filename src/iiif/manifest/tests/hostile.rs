//! Tests of documents that no manifest should be, and that arrive nevertheless.

use super::*;

#[rstest]
#[case::lists("[", "]")]
#[case::items(r#"{"items":["#, "]}")]
#[case::services(r#"{"service":"#, "}")]
#[case::labels(r#"{"label":{"en":"#, "}}")]
fn nesting_without_end_is_an_error_and_no_crash(
    #[case] open: &str,
    #[case] close: &str,
    #[values(1_000, 100_000)] depth: usize,
) {
    for text in [open.repeat(depth), format!("{}1{}", open.repeat(depth), close.repeat(depth))] {
        let error = walk_slice(text.as_bytes(), &mut |_| ()).unwrap_err();
        assert!(
            error.to_string().contains("recursion limit") || error.to_string().contains("EOF"),
            "{error}"
        );
        assert!(walk(text.as_bytes(), &mut |_| ()).is_err());
        assert!(read(text.as_bytes()).is_err());
    }
}

#[test]
fn nesting_without_end_is_harmless_where_nothing_is_looked_for() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = format!(r#"{{"metadata":{deep},"id":"{CANVAS}","type":"Canvas","items":[]}}"#);
    assert_eq!(walked_text(&text).1.len(), 1);
}

#[rstest]
#[case::cut_short("{\"items\": [\n{\"id\": \"a", "line 2 column 9")]
#[case::not_a_number("{\"a\": NaN}", "line 1 column 7")]
#[case::html("<html>", "line 1 column 1")]
#[case::two_documents("{} {}", "line 1 column 4")]
#[case::empty("", "line 1 column 0")]
fn broken_json_is_an_error_that_says_where(#[case] text: &str, #[case] place: &str) {
    for error in [
        walk_slice(text.as_bytes(), &mut |_| ()).unwrap_err(),
        walk(text.as_bytes(), &mut |_| ()).unwrap_err(),
        read(text.as_bytes()).unwrap_err(),
    ] {
        assert!(error.to_string().contains(place), "{error}");
    }
}

#[test]
fn a_reader_that_fails_is_an_error() {
    struct FailingReader;
    impl Read for FailingReader {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
    }
    let behind = |head: &'static [u8]| walk(head.chain(FailingReader), &mut |_| ()).unwrap_err();
    for WalkError::Json(error) in [behind(b""), behind(b"{"), behind(b"{\"items\": [1,2,")] {
        assert!(error.is_io());
    }
}

#[test]
fn canvases_before_the_break_were_handed_out() {
    let text = format!(r#"{{"items":[{{"id":"{CANVAS}","type":"Canvas","items":[]}},{{"id":"#);
    let mut canvases = 0;
    assert!(walk(text.as_bytes(), &mut |_| canvases += 1).is_err());
    assert_eq!(canvases, 1);
}

#[test]
fn the_last_of_doubled_keys_that_makes_sense_counts() {
    let text = format!(
        r#"{{"type":"Canvas","id":"https://h/x","id":"{CANVAS}","id":7,"label":"a","label":"b","items":[],"items":[]}}"#
    );
    let (_, canvases) = walked_text(&text);
    assert_eq!((canvases[0].id.as_str(), canvases[0].label.as_deref()), (CANVAS, Some("b")));
}

#[test]
fn a_huge_label_and_a_byte_order_mark_are_taken() {
    let label = "x".repeat(1_000_000);
    let text =
        format!("\u{feff}{{\"type\":\"Canvas\",\"id\":\"{CANVAS}\",\"label\":\"{label}\",\"items\":[]}}");
    assert_eq!(walked_text(&text).1[0].label.as_deref(), Some(label.as_str()));
}

#[rstest]
fn a_value_of_an_odd_type_spoils_nothing_else(
    #[values(
        json!(1), json!(-1), json!(1.5), json!(true), json!(null), json!("x"), json!([]), json!({}), json!([[1]])
    )]
    odd: Value,
) {
    let keys = [
        "@id",
        "@type",
        "@context",
        "profile",
        "format",
        "label",
        "target",
        "on",
        "height",
        "items",
        "sequences",
        "canvases",
        "images",
        "manifests",
        "members",
        "body",
        "thumbnail",
        "placeholderCanvas",
        "service",
        "metadata",
        "structures",
        "unheard-of",
    ];
    for key in keys {
        // First in the object, so that a sensible value of the same key still follows.
        let text = format!(
            r#"{{"{key}":{odd},"type":"Manifest","items":[{{"{key}":{odd},"id":"{CANVAS}","type":"Canvas",
            "items":[{{"{key}":{odd},"items":[{{"{key}":{odd},"body":{{"{key}":{odd},"id":"{}"}}}}]}}]}}]}}"#,
            picture("a")
        );
        let (_, canvases) = walked_text(&text);
        let found = canvases.iter().find(|canvas| canvas.id == CANVAS).unwrap();
        // `@type` "x" means that the body is no image, but its URL is still one of an image.
        assert_eq!(found.images, ["a"], "{text}");
    }
}

/// Strategy for any JSON made of the words that the walk knows.
fn anything() -> impl Strategy<Value = Value> {
    let words = |words: &'static str| prop::sample::select(words.split_whitespace().collect::<Vec<_>>());
    let text = words(
        "https://h/iiif/2/a https://h/iiif/2/b/full/max/0/default.jpg https://h/c#x # Canvas sc:Manifest level2
         ImageService3 Collection Annotation Image sc:Range",
    );
    let key = words(
        "id @id type @type @context profile format label target on height items sequences canvases images manifests
         collections members body resource default thumbnail placeholderCanvas service metadata annotations @value
         source",
    );
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 80, 6, move |inner| {
        let entries = prop::collection::vec((key.clone(), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            entries.prop_map(|entries| entries
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_walked_and_every_canvas_has_an_id(document in anything()) {
        let (_, canvases) = walked(&document);
        for canvas in canvases {
            prop_assert!(!canvas.id.is_empty() && !canvas.id.contains('#'));
            let mut distinct = canvas.images.clone();
            distinct.sort();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), canvas.images.len());
        }
    }

    #[test]
    fn a_document_cut_short_is_an_error(document in anything(), at in any::<prop::sample::Index>()) {
        let text = json!([document]).to_string();
        prop_assert!(walk_slice(&text.as_bytes()[..at.index(text.len())], &mut |_| ()).is_err());
    }

    #[test]
    fn any_bytes_are_walked_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = walk_slice(&bytes, &mut |_| ());
        let _ = walk(&bytes[..], &mut |_| ());
        let _ = read(&bytes);
    }
}
