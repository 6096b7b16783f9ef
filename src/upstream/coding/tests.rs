//! Tests of the codings.

use std::io::Write as _;

use flate2::Compression;
use rstest::rstest;

use super::*;

#[rstest]
#[case("gzip, deflate, br, zstd", "gzip")]
#[case("br;q=1.0, gzip;q=0.8, *;q=0.1", "gzip")]
#[case("br, zstd", "identity")]
#[case("gzip;q=0, *", "identity")]
#[case("*", "gzip")]
#[case("*;q=0", "identity")]
#[case("identity", "identity")]
#[case("", "identity")]
fn only_what_is_read_is_asked_for(#[case] offered: &'static str, #[case] asked: &str) {
    let mut fields = HeaderMap::new();
    narrow(&mut fields);
    assert!(fields.is_empty(), "who says nothing is not spoken for");
    fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(offered));
    narrow(&mut fields);
    assert_eq!(fields[header::ACCEPT_ENCODING], asked);
}

#[test]
fn each_coding_is_read_up_to_its_bound() {
    let text = b"a document ".repeat(100);
    let gzip = {
        let mut packing = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
        packing.write_all(&text).unwrap();
        packing.finish().unwrap()
    };
    let zlib = {
        let mut packing = flate2::write::ZlibEncoder::new(Vec::new(), Compression::fast());
        packing.write_all(&text).unwrap();
        packing.finish().unwrap()
    };
    let raw = {
        let mut packing = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
        packing.write_all(&text).unwrap();
        packing.finish().unwrap()
    };
    let zstd = frame(&text);
    // A frame to be skipped, a frame, an empty one, and another one (RFC 8878 sections 3.1 and 3.1.2).
    let frames = [SKIPPED, &frame(&text[..500]), &frame(b""), SKIPPED, &frame(&text[500..])].concat();
    // One block that is not compressed, and an empty last one (RFC 7932 section 9.2).
    let head = u32::try_from(text.len() - 1).unwrap() << 4 | 1 << 20;
    let brotli = [&head.to_le_bytes()[..3], &text, &[3]].concat();
    for (name, packed) in [
        ("identity", text.clone()),
        ("GZIP", gzip),
        ("deflate", zlib),
        ("deflate", raw),
        ("br", brotli),
        ("zstd", zstd),
        ("zstd", frames),
    ] {
        let mut fields = HeaderMap::new();
        fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
        let (coding, packed) = (ContentCoding::of(&fields).unwrap(), Bytes::from(packed));
        assert_eq!(coding.unpack(&packed, text.len()).unwrap(), text, "{name}");
        assert!(matches!(coding.unpack(&packed, text.len() - 1), Err(CodingError::TooLong(_))), "{name}");
        for size in [1, 2, 7, packed.len()] {
            let (mut unpacker, mut plain) = (Unpacker::new(coding, text.len()), Vec::new());
            let mut each = |piece: &[u8]| plain.extend_from_slice(piece);
            for piece in packed.chunks(size) {
                unpacker.push(piece, &mut each).unwrap();
            }
            unpacker.finish(&mut each).unwrap();
            assert_eq!(plain, text, "{name} in pieces of {size}");
        }
        if coding == ContentCoding::Identity {
            continue;
        }
        let (mut unpacker, mut plain) = (Unpacker::new(coding, text.len()), Vec::new());
        let mut each = |piece: &[u8]| plain.extend_from_slice(piece);
        let cut = unpacker.push(&packed[..packed.len() - 1], &mut each);
        assert!(cut.and_then(|()| unpacker.finish(&mut each)).is_err(), "{name}, cut");
    }
    assert!(matches!(ContentCoding::Gzip.unpack(&Bytes::from_static(b"x"), 9), Err(CodingError::Broken(_))));
}

#[test]
fn what_stands_behind_the_members_of_a_gzip_document_is_not_read() {
    let member = |text: &[u8]| {
        let mut packing = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
        packing.write_all(text).unwrap();
        packing.finish().unwrap()
    };
    for rest in [&b""[..], b"garbage", &[0; 600], b"\x1f", b"\x00\x1f\x8b"] {
        let packed = Bytes::from([&member(b"a doc")[..], &member(b""), &member(b"ument"), rest].concat());
        // Half of a further member's head is a document that was cut.
        if rest == b"\x1f" {
            assert!(matches!(ContentCoding::Gzip.unpack(&packed, 99), Err(CodingError::Broken(_))));
            continue;
        }
        assert_eq!(ContentCoding::Gzip.unpack(&packed, 99).unwrap(), "a document", "{rest:?}");
        let mut file = Vec::new();
        unpacked(io::BufReader::with_capacity(7, &*packed)).unwrap().read_to_end(&mut file).unwrap();
        assert_eq!(file, b"a document", "{rest:?}");
        for size in [3, 7, packed.len()] {
            let (mut unpacker, mut plain) = (Unpacker::new(ContentCoding::Gzip, 99), Vec::new());
            let mut each = |piece: &[u8]| plain.extend_from_slice(piece);
            for piece in packed.chunks(size) {
                unpacker.push(piece, &mut each).unwrap();
            }
            unpacker.finish(&mut each).unwrap();
            assert_eq!(plain, b"a document", "{rest:?} in pieces of {size}");
        }
    }
}

#[test]
fn identity_and_empty_names_are_no_codings() {
    for (values, coding) in [
        (&["identity, gzip"][..], ContentCoding::Gzip),
        (&["gzip", "identity"], ContentCoding::Gzip),
        (&["gzip,", ""], ContentCoding::Gzip),
        (&["", "identity"], ContentCoding::Identity),
    ] {
        let mut fields = HeaderMap::new();
        for value in values {
            fields.append(header::CONTENT_ENCODING, HeaderValue::from_static(value));
        }
        assert_eq!(ContentCoding::of(&fields), Ok(coding), "{values:?}");
    }
}

const SKIPPED: &[u8] = b"\x5f\x2a\x4d\x18\x03\0\0\0abc";

fn frame(text: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
}

#[test]
fn what_follows_the_frames_is_no_document() {
    for rest in [&b"x"[..], b"\x5f\x2a\x4d\x18\xff\xff\xff\xff", &SKIPPED[..SKIPPED.len() - 1]] {
        let packed = Bytes::from([&frame(b"a document"), rest].concat());
        assert!(matches!(ContentCoding::Zstd.unpack(&packed, 99), Err(CodingError::Broken(_))), "{rest:?}");
    }
    for nothing in [&b""[..], SKIPPED] {
        let packed = Bytes::copy_from_slice(nothing);
        assert!(
            matches!(ContentCoding::Zstd.unpack(&packed, 99), Err(CodingError::Broken(_))),
            "{nothing:?}"
        );
    }
}

#[test]
fn a_window_beyond_the_standard_is_refused_before_it_is_allocated() {
    // A "large window" of 30 bits, which is no `br` of HTTP (RFC 7932 section 9.1), and may take a gigabyte of memory.
    let brotli = Bytes::from_static(b"\x11\x1e\x12\0\x02a document\x03");
    assert!(matches!(ContentCoding::Brotli.unpack(&brotli, 99), Err(CodingError::Broken(_))));
    // A window of 1 GiB in the head of a frame.
    let zstd = Bytes::from_static(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00]);
    assert!(matches!(ContentCoding::Zstd.unpack(&zstd, 99), Err(CodingError::Broken(_))));
}

#[test]
fn what_is_not_read_has_a_name() {
    for (name, told) in [("gzip, br", "other"), ("compress", "other")] {
        let mut fields = HeaderMap::new();
        fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
        assert_eq!(ContentCoding::of(&fields), Err(told));
    }
}
