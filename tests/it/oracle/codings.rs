//! Bytes that are no plain UTF-8, and numbers that no computer has.

use iiif_mender::iiif::manifest;
use serde_json::json;

use super::{agree, book_2, book_3, pairs_of, walked};

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

#[test]
fn numbers_of_any_size_lose_no_pair() {
    for document in [book_2(), book_3()] {
        let expected = pairs_of(&document);
        for number in ["1e999", "-1E+4000", "123456789012345678901234567890", "0.1e-999", "1e308"] {
            let mut document = document.clone();
            document["height"] = "NUMBER".into();
            document["nowhere"] = json!({ "deep": ["NUMBER", { "a\"NUMBER\\\"": 1 }] });
            let text = document.to_string().replace("\"NUMBER\"", number);
            let (_, canvases) = manifest::read(text.as_bytes()).expect(number);
            let pairs =
                canvases.iter().flat_map(|canvas| canvas.images.iter().map(|image| (image, &canvas.id)));
            assert!(pairs.eq(expected.iter().map(|(image, canvas)| (image, canvas))), "{number}");
        }
        agree(&document, 2);
    }
}
