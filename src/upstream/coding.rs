//! The codings of documents that are read here (RFC 9110 section 8.4.1).

use std::io::{self, BufRead, Read, Write as _};

use brotli_decompressor::Decompressor;
use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use flate2::write;
use http::{HeaderMap, HeaderValue, header};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

/// Content coding of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCoding {
    /// No coding.
    Identity,
    /// `gzip`
    Gzip,
    /// `deflate`
    Deflate,
    /// `br`
    Brotli,
    /// `zstd`
    Zstd,
}

/// First bytes of every `gzip` file, and of no JSON (RFC 1952 section 2.3.1).
pub(crate) const GZIP: &[u8; 2] = &[0x1f, 0x8b];

/// Opens the content of a file, unpacked where it is in `gzip`.
pub(crate) fn unpacked<'a>(mut file: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let is_packed = file.fill_buf()?.starts_with(GZIP);
    Ok(if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// The largest window of `zstd` that is read (RFC 9659 section 3).
const ZSTD_WINDOW: u64 = 8 << 20;

/// Low seven bits of the first byte of a `br` document whose window is larger than those of RFC 7932 section 9.1.
const LARGE_WINDOW: u8 = 0x11;

/// The piece of a `br` document that is read at once.
const BROTLI_PIECE: usize = 4 << 10;

/// Errors of unpacking a document.
#[derive(Debug, thiserror::Error)]
pub enum CodingError {
    /// The bytes are not what `Content-Encoding` says.
    #[error("unpacking it failed")]
    Broken(#[source] std::io::Error),
    /// The unpacked document is longer than allowed.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
}

impl ContentCoding {
    /// Coding that the header fields name; `Err`: name of an unsupported coding.
    pub fn of(fields: &HeaderMap) -> Result<Self, &'static str> {
        let mut named = fields.get_all(header::CONTENT_ENCODING).iter();
        let (first, more) = (named.next().map_or(&b""[..], HeaderValue::as_bytes), named.next());
        match first.trim_ascii().to_ascii_lowercase().as_slice() {
            _ if more.is_some() => Err("other"),
            b"" | b"identity" => Ok(Self::Identity),
            b"gzip" | b"x-gzip" => Ok(Self::Gzip),
            b"deflate" => Ok(Self::Deflate),
            b"br" => Ok(Self::Brotli),
            b"zstd" => Ok(Self::Zstd),
            _ => Err("other"),
        }
    }

    /// Unpacks a document of at most `most` bytes.
    pub fn unpack(self, packed: &Bytes, most: usize) -> Result<Bytes, CodingError> {
        match self {
            Self::Identity => {
                (packed.len() <= most).then(|| packed.clone()).ok_or(CodingError::TooLong(most))
            }
            Self::Gzip => read(MultiGzDecoder::new(&**packed), most),
            // Some servers leave the wrapping of zlib out (RFC 9110 section 8.4.1.2).
            Self::Deflate => match read(ZlibDecoder::new(&**packed), most) {
                Err(CodingError::Broken(_)) => read(DeflateDecoder::new(&**packed), most),
                other => other,
            },
            // SECURITY: the decoder would allocate the whole window.
            Self::Brotli if packed.first().is_some_and(|head| head & 0x7f == LARGE_WINDOW) => {
                Err(CodingError::Broken(io::Error::other("a window that HTTP does not have")))
            }
            Self::Brotli => read(Decompressor::new(&**packed, BROTLI_PIECE), most),
            Self::Zstd => zstd(packed, most),
        }
    }
}

fn read(packed: impl Read, most: usize) -> Result<Bytes, CodingError> {
    let mut plain = Vec::new();
    append(packed, &mut plain, most)?;
    Ok(plain.into())
}

/// Adds what is packed to what is read already, `most` bytes in all.
fn append(packed: impl Read, plain: &mut Vec<u8>, most: usize) -> Result<(), CodingError> {
    // One byte more than allowed tells "too long" from "just fits".
    let left = u64::try_from(most - plain.len().min(most)).unwrap_or(u64::MAX).saturating_add(1);
    packed.take(left).read_to_end(plain).map_err(CodingError::Broken)?;
    if plain.len() > most { Err(CodingError::TooLong(most)) } else { Ok(()) }
}

/// Reads all frames, one after the other, and skips skippable ones (RFC 8878 section 3.1).
fn zstd(mut packed: &[u8], most: usize) -> Result<Bytes, CodingError> {
    let (mut plain, mut is_begun) = (Vec::new(), false);
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(ZSTD_WINDOW);
    while !packed.is_empty() || !is_begun {
        match StreamingDecoder::new_with_decoder(&mut packed, &mut decoder) {
            Ok(frame) => {
                is_begun = true;
                append(frame, &mut plain, most)?;
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let rest = usize::try_from(length).ok().and_then(|length| packed.get(length..));
                packed = rest.ok_or_else(|| CodingError::Broken(io::ErrorKind::UnexpectedEof.into()))?;
            }
            Err(error) => return Err(CodingError::Broken(io::Error::other(error))),
        }
    }
    Ok(plain.into())
}

/// Unpacks a document that comes in pieces.
#[derive(Debug)]
pub struct Unpacker(UnpackState);

#[derive(Debug)]
enum UnpackState {
    Identity,
    Gzip(write::MultiGzDecoder<Vec<u8>>),
    /// First two bytes, which tell the two forms of `deflate` apart.
    Deflate(Vec<u8>),
    Zlib(write::ZlibDecoder<Vec<u8>>),
    Raw(write::DeflateDecoder<Vec<u8>>),
    /// Buffered until its end, up to a limit in bytes: few servers send these codings unasked.
    Kept(ContentCoding, Vec<u8>, usize),
}

/// Maximum that is unpacked at once: a small packed piece may be a very long one.
const PACKED_PIECE: usize = 4 << 10;

impl Unpacker {
    /// `most`: the longest document in a coding that is not unpacked piece by piece.
    pub fn new(coding: ContentCoding, most: usize) -> Self {
        Self(match coding {
            ContentCoding::Identity => UnpackState::Identity,
            ContentCoding::Gzip => UnpackState::Gzip(write::MultiGzDecoder::new(Vec::new())),
            ContentCoding::Deflate => UnpackState::Deflate(Vec::new()),
            ContentCoding::Brotli | ContentCoding::Zstd => UnpackState::Kept(coding, Vec::new(), most),
        })
    }

    /// Takes a piece, and hands out what it holds.
    pub fn push(&mut self, piece: &[u8], each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        let piece = match &mut self.0 {
            UnpackState::Identity => {
                each(piece);
                return Ok(());
            }
            // Incompressible data grows a little when it is packed.
            UnpackState::Kept(_, kept, most) if kept.len() + piece.len() > most.saturating_mul(2) => {
                return Err(io::Error::other(CodingError::TooLong(*most)));
            }
            UnpackState::Kept(_, kept, _) => {
                kept.extend_from_slice(piece);
                return Ok(());
            }
            UnpackState::Deflate(head) => {
                head.extend_from_slice(piece);
                // RFC 1950 section 2.2: the method is 8, and the two bytes are a multiple of 31.
                let is_zlib = match head[..] {
                    [first, second, ..] => {
                        first & 0x0f == 8 && u16::from_be_bytes([first, second]).is_multiple_of(31)
                    }
                    _ => return Ok(()),
                };
                let piece = std::mem::take(head);
                self.0 = if is_zlib {
                    UnpackState::Zlib(write::ZlibDecoder::new(Vec::new()))
                } else {
                    UnpackState::Raw(write::DeflateDecoder::new(Vec::new()))
                };
                return self.push(&piece, each);
            }
            UnpackState::Gzip(_) | UnpackState::Zlib(_) | UnpackState::Raw(_) => piece,
        };
        for part in piece.chunks(PACKED_PIECE) {
            match &mut self.0 {
                UnpackState::Gzip(unpacker) => unpacker.write_all(part)?,
                UnpackState::Zlib(unpacker) => unpacker.write_all(part)?,
                UnpackState::Raw(unpacker) => unpacker.write_all(part)?,
                UnpackState::Identity | UnpackState::Deflate(_) | UnpackState::Kept(..) => {}
            }
            self.hand_out(each);
        }
        Ok(())
    }

    /// Ends the document: no more bytes follow.
    pub fn finish(&mut self, each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        match &mut self.0 {
            UnpackState::Identity => {}
            UnpackState::Gzip(unpacker) => unpacker.try_finish()?,
            UnpackState::Zlib(unpacker) => unpacker.try_finish()?,
            UnpackState::Raw(unpacker) => unpacker.try_finish()?,
            UnpackState::Deflate(head) if head.is_empty() => {}
            UnpackState::Deflate(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            UnpackState::Kept(coding, kept, most) => {
                let packed = Bytes::from(std::mem::take(kept));
                each(&coding.unpack(&packed, *most).map_err(io::Error::other)?);
            }
        }
        self.hand_out(each);
        Ok(())
    }

    fn hand_out(&mut self, each: &mut impl FnMut(&[u8])) {
        let plain = match &mut self.0 {
            UnpackState::Gzip(unpacker) => unpacker.get_mut(),
            UnpackState::Zlib(unpacker) => unpacker.get_mut(),
            UnpackState::Raw(unpacker) => unpacker.get_mut(),
            UnpackState::Identity | UnpackState::Deflate(_) | UnpackState::Kept(..) => return,
        };
        each(plain);
        plain.clear();
    }
}

/// Limits `Accept-Encoding` to codings that are read here, as far as the viewer accepts them.
///
/// UPSTREAM: a server between us and the canvas service packs as a browser's `Accept-Encoding` allows; a document in `br`
/// would be neither learned nor watched nor repaired.
pub fn narrow(fields: &mut HeaderMap) {
    let Some(offered) = fields.get(header::ACCEPT_ENCODING) else { return };
    let offered = offered.to_str().unwrap_or_default();
    let mut takes_gzip = false;
    for one in offered.split(',') {
        let mut parts = one.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let is_refused = parts.any(|part| {
            part.strip_prefix("q=")
                .or_else(|| part.strip_prefix("Q="))
                .is_some_and(|weight| weight.parse() == Ok(0.0))
        });
        let is_gzip = name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip");
        if is_gzip {
            takes_gzip = !is_refused;
            break;
        }
        takes_gzip |= name == "*" && !is_refused;
    }
    let asked = if takes_gzip { "gzip" } else { "identity" };
    fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(asked));
}

#[cfg(test)]
mod tests {
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
        assert!(matches!(
            ContentCoding::Gzip.unpack(&Bytes::from_static(b"x"), 9),
            Err(CodingError::Broken(_))
        ));
    }

    const SKIPPED: &[u8] = b"\x5f\x2a\x4d\x18\x03\0\0\0abc";

    fn frame(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn what_follows_the_frames_is_no_document() {
        for rest in [&b"x"[..], b"\x5f\x2a\x4d\x18\xff\xff\xff\xff", &SKIPPED[..SKIPPED.len() - 1]] {
            let packed = Bytes::from([&frame(b"a document"), rest].concat());
            assert!(
                matches!(ContentCoding::Zstd.unpack(&packed, 99), Err(CodingError::Broken(_))),
                "{rest:?}"
            );
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
}
