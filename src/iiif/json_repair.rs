//! Repair of JSON that is broken in the one way in which the canvas service breaks it.
//!
//! UPSTREAM: the service writes labels without escaping newlines, tabs and backslashes (upstream.md "Errors of the canvas
//! service"), so a picture whose title holds one would be lost to the index. JSON that is invalid in any other way is left
//! alone: a repair must not guess.

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// Byte order mark: UTF-8 text may begin with it although JSON may not (RFC 8259 section 8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Repairs a document to valid JSON, borrowed where it is valid already; `None` where that is not possible.
///
/// Changed are only, and only inside strings, raw control characters (→ `\n`, `\t`, `\u00XX`) and backslashes; a byte
/// order mark is dropped; every other byte stays. A stray backslash right before the closing quote (`"label\",`) is seen
/// only where nothing else makes the document valid.
///
/// UPSTREAM: on the service's wire every backslash is a literal one but for those before a quote (quotes are escaped
/// twice, and the whole document is unescaped once). So where a document does not parse each is doubled, and `C:\temp` and
/// `C:\new` are what they were. A document that has escapes which the service never writes (`\/`, `\u00e9`) is another
/// program's: of it only backslashes that begin no escape (`\ `, `\s`, `\u12`) are doubled.
///
/// Time is linear in the length; at most four passes. The result always parses.
///
/// ```
/// use iiif_mender::iiif::json_repair::repair_json;
///
/// let mended = repair_json(br#"{"label": "a\ b"}"#).unwrap();
/// assert_eq!(&*mended, br#"{"label": "a\\ b"}"#);
/// assert_eq!(repair_json(b"{cut short"), None);
/// ```
pub fn repair_json(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    let bytes = without_mark(bytes);
    // JSON is UTF-8, and serde_json does not check strings that it ignores.
    let text = std::str::from_utf8(bytes).ok()?;
    if is_valid(text.as_bytes()) {
        return Some(Cow::Borrowed(bytes));
    }
    let backslashes: &[Backslash] = if has_foreign_escapes(bytes) {
        &[Backslash::Escape]
    } else {
        &[Backslash::Literal, Backslash::Escape]
    };
    let quotes = [Quote::Escaped, Quote::ClosingBeforePunctuation];
    let readings = backslashes.iter().flat_map(|backslash| quotes.map(|quote| (*backslash, quote)));
    readings.into_iter().find_map(|(backslash, quote)| {
        let mended = escape_pass(bytes, backslash, quote);
        is_valid(&mended).then_some(Cow::Owned(mended))
    })
}

/// True if there are escapes that the canvas service never writes.
fn has_foreign_escapes(bytes: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, b"\\").any(|at| match bytes.get(at + 1..).unwrap_or_default() {
        [b'/', ..] => true,
        [b'u', a, b, c, d, ..] => [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()),
        _ => false,
    })
}

/// Reading of a backslash inside a string that stands before no quote.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backslash {
    /// Always a literal backslash, as the canvas service means it.
    Literal,
    /// Escape, where it begins one, as JSON defines.
    Escape,
}

/// The bytes behind a byte order mark, if there is one.
pub(super) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

fn is_valid(bytes: &[u8]) -> bool {
    // Ignored values are skipped without recursion, so depth is no danger here.
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// Reading of `\"` inside a string.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    /// Always an escaped quote, as JSON defines.
    Escaped,
    /// Stray backslash and end of the string, where `,`, `:`, `}` or `]` follows.
    ClosingBeforePunctuation,
}

/// Makes a pass over the document; the result may still be invalid for other reasons.
fn escape_pass(bytes: &[u8], backslash: Backslash, quote: Quote) -> Vec<u8> {
    let mut mended = Vec::with_capacity(bytes.len() + bytes.len() / 16);
    let mut in_string = false;
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'"' => {
                in_string = !in_string;
                mended.push(byte);
            }
            b'\\' if in_string => match escape_length(tail, quote)
                .filter(|_| backslash == Backslash::Escape || tail.first() == Some(&b'"'))
            {
                Some(length) => {
                    let (escape, tail) = tail.split_at(length);
                    mended.push(byte);
                    mended.extend_from_slice(escape);
                    rest = tail;
                }
                None => mended.extend_from_slice(br"\\"),
            },
            0..0x20 if in_string => push_control(&mut mended, byte),
            _ => mended.push(byte),
        }
    }
    mended
}

/// Length of the escape behind a backslash, in bytes; `None`: no escape (RFC 8259 section 7).
fn escape_length(tail: &[u8], quote: Quote) -> Option<usize> {
    match tail {
        [b'"', tail @ ..] => (quote == Quote::Escaped || !is_followed_by_punctuation(tail)).then_some(1),
        [b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => Some(1),
        [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => Some(5),
        _ => None,
    }
}

/// White space is skipped only as far as generators indent: a run without end must not be read again and again.
fn is_followed_by_punctuation(tail: &[u8]) -> bool {
    const DEEPEST_INDENT: usize = 256;
    let mut ahead = tail.iter().take(DEEPEST_INDENT);
    let next = ahead.find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    matches!(next, Some(b',' | b':' | b'}' | b']'))
}

fn push_control(mended: &mut Vec<u8>, byte: u8) {
    match byte {
        b'\n' => mended.extend_from_slice(br"\n"),
        b'\t' => mended.extend_from_slice(br"\t"),
        b'\r' => mended.extend_from_slice(br"\r"),
        _ => mended.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::Value;

    use super::*;

    #[rstest]
    #[case::newline("{\"a\":\"x\ny\"}", r#"{"a":"x\ny"}"#)]
    #[case::tab("[\"x\ty\"]", r#"["x\ty"]"#)]
    #[case::carriage_return("[\"x\r\ny\"]", r#"["x\r\ny"]"#)]
    #[case::control("[\"x\u{1}y\"]", r#"["x\u0001y"]"#)]
    #[case::backslash_space(r#"["x \ y"]"#, r#"["x \\ y"]"#)]
    #[case::backslash_letter(r#"["back\slash"]"#, r#"["back\\slash"]"#)]
    #[case::backslash_before_umlaut(r#"["\é"]"#, r#"["\\é"]"#)]
    #[case::short_unicode_escape(r#"["\u12"]"#, r#"["\\u12"]"#)]
    #[case::backslash_before_newline("[\"x\\\ny\"]", r#"["x\\\ny"]"#)]
    #[case::good_escapes_stay(r#"["\"\\\/\b\f\n\r\t\u00e9 \q"]"#, r#"["\"\\\/\b\f\n\r\t\u00e9 \\q"]"#)]
    #[case::a_path_that_reads_like_escapes(r#"["C:\temp\new \x"]"#, r#"["C:\\temp\\new \\x"]"#)]
    #[case::a_path_beside_a_raw_tab("[\"C:\\new\ty\"]", r#"["C:\\new\ty"]"#)]
    #[case::two_backslashes_are_two("[\"\\\\srv\\x\"]", r#"["\\\\srv\\x"]"#)]
    #[case::an_escaped_quote_stays(r#"["say \"C:\new\" \q"]"#, r#"["say \"C:\\new\" \\q"]"#)]
    #[case::no_unicode_escape(r#"["C:\users\x"]"#, r#"["C:\\users\\x"]"#)]
    #[case::in_a_key("{\"a\tb\":1}", r#"{"a\tb":1}"#)]
    #[case::outside_strings_nothing_changes("{\n\t\"a\" : \"\\s\"\r\n}", "{\n\t\"a\" : \"\\\\s\"\r\n}")]
    #[case::backslash_at_the_end(r#"{"a":"x\", "b":1}"#, r#"{"a":"x\\", "b":1}"#)]
    #[case::backslash_at_the_end_of_a_list("[\"x\\\"\n]", "[\"x\\\\\"\n]")]
    #[case::byte_order_mark("\u{feff}[1]", "[1]")]
    fn only_what_is_broken_is_changed(#[case] broken: &str, #[case] mended: &str) {
        assert_eq!(std::str::from_utf8(&repair_json(broken.as_bytes()).unwrap()).unwrap(), mended);
    }

    #[rstest]
    #[case::cut_short(r#"{"a":"#)]
    #[case::cut_short_in_a_string(r#"{"a":"b"#)]
    #[case::cut_short_behind_a_backslash(r#"{"a":"\"#)]
    #[case::not_json("<html>")]
    #[case::not_a_number("[NaN]")]
    #[case::bare_quotes(r#"["a "b" c"]"#)]
    #[case::trailing_comma("[1,]")]
    #[case::control_outside("[1,\u{1}2]")]
    #[case::two_documents("{}{}")]
    #[case::empty("")]
    fn what_is_broken_otherwise_is_left_alone(#[case] broken: &str) {
        assert_eq!(repair_json(broken.as_bytes()), None);
    }

    #[test]
    fn bytes_that_are_no_text_cannot_be_mended() {
        assert_eq!(repair_json(b"[\"\xff\"]"), None);
        assert_eq!(repair_json(b"[\"\n\xff\"]"), None);
    }

    #[test]
    fn a_million_backslashes_and_blanks_take_linear_time() {
        let mut hostile = br#"[""#.to_vec();
        for _ in 0..20_000 {
            hostile.extend_from_slice(br#"\""#);
            hostile.extend_from_slice(&[b' '; 50]);
        }
        assert_eq!(repair_json(&hostile), None);
        assert_eq!(repair_json(&b"[".repeat(1_000_000)), None);
    }

    /// Strategy for JSON values with strings as in labels.
    fn json() -> impl Strategy<Value = Value> {
        let text = "[a-z\"\\\\\n\t/ é,:\\]}]{0,8}";
        let leaf =
            prop_oneof![Just(Value::Null), any::<i32>().prop_map(Value::from), text.prop_map(Value::from)];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(text, inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_valid_document_comes_back_as_it_is(value in json()) {
            let bytes = serde_json::to_vec(&value).unwrap();
            prop_assert!(matches!(repair_json(&bytes), Some(Cow::Borrowed(same)) if same == bytes));
        }

        #[test]
        fn raw_newlines_and_tabs_are_mended_without_loss(value in json()) {
            let text = serde_json::to_string(&value).unwrap();
            // Broken JSON as the service writes it: everything but quotes is unescaped once.
            let raw = text.replace(r"\\", "\u{0}").replace(r"\n", "\n").replace(r"\t", "\t").replace('\0', "\\");
            // Before a quote, or before another one, a backslash is ambiguous.
            let is_plain = !text.contains(r"\\\") && !text.contains(r#"\\""#) && !text.contains(r"\\/");
            prop_assume!(is_plain && !is_valid(raw.as_bytes()));
            let mended = repair_json(raw.as_bytes()).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Value>(&mended).unwrap(), value);
        }

        #[test]
        fn whatever_comes_out_parses(bytes in "[\\[\\]{}\",:\\\\\n\t a1u]*") {
            if let Some(mended) = repair_json(bytes.as_bytes()) {
                prop_assert!(is_valid(&mended));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = repair_json(&bytes);
        }
    }
}
