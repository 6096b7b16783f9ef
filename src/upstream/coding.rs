//! The codings of documents that are read here (RFC 9110 section 8.4.1).

use std::io::{self, BufRead, Read, Write as _};

use brotli_decompressor::Decompressor;
use bytes::Bytes;
use flate2::read::{DeflateDecoder, ZlibDecoder};
use flate2::{bufread, write};
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
    Ok(if is_packed { Box::new(GzipReader::new(file)) } else { Box::new(file) })
}

/// Reads all members of a `gzip` document (RFC 1952 section 2.2). Bytes behind them that begin no further member are not
/// read, as in every client: files are padded with zeros, and servers write too much.
struct GzipReader<R> {
    /// `None`: the document is over.
    member: Option<bufread::GzDecoder<R>>,
}

impl<R: BufRead> GzipReader<R> {
    fn new(packed: R) -> Self {
        Self { member: Some(bufread::GzDecoder::new(packed)) }
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(over) = self.member.take() else { break };
            let mut rest = over.into_inner();
            if begins_member(rest.fill_buf()?) {
                self.member = Some(bufread::GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

/// True if a `gzip` document goes on. (There may be one byte only, at the end of a piece.)
fn begins_member(rest: &[u8]) -> bool {
    rest.first() == GZIP.first() && rest.get(1).is_none_or(|second| *second == GZIP[1])
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
        let values = fields.get_all(header::CONTENT_ENCODING).iter();
        let named =
            values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        // Servers name `identity` although it is no coding of a document (RFC 9110 section 8.4.1).
        let mut named = named.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity"));
        let (Some(name), more) = (named.next(), named.next()) else { return Ok(Self::Identity) };
        match name.to_ascii_lowercase().as_slice() {
            _ if more.is_some() => Err("other"),
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
            Self::Gzip => read(GzipReader::new(&**packed), most),
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
    /// Member of a `gzip` document.
    Gzip(write::GzDecoder<Vec<u8>>),
    /// Behind the last member.
    Over,
    /// First two bytes, which tell the two forms of `deflate` apart.
    Deflate(Vec<u8>),
    Zlib(write::ZlibDecoder<Vec<u8>>),
    Raw(write::DeflateDecoder<Vec<u8>>),
    /// Buffered until its end, up to a limit in bytes: few servers send these codings unasked.
    Kept(ContentCoding, Vec<u8>, usize),
}

/// Packed bytes that are unpacked at once: one may stand for a thousand.
const PACKED_PIECE: usize = 256;

impl Unpacker {
    /// `most`: the longest document in a coding that is not unpacked piece by piece.
    pub fn new(coding: ContentCoding, most: usize) -> Self {
        Self(match coding {
            ContentCoding::Identity => UnpackState::Identity,
            ContentCoding::Gzip => UnpackState::Gzip(write::GzDecoder::new(Vec::new())),
            ContentCoding::Deflate => UnpackState::Deflate(Vec::new()),
            ContentCoding::Brotli | ContentCoding::Zstd => UnpackState::Kept(coding, Vec::new(), most),
        })
    }

    /// The part of a piece that is pushed at once by those who must not hold all that it unpacks to.
    pub fn part(&self, piece: &mut Bytes) -> Bytes {
        match self.0 {
            UnpackState::Identity => std::mem::take(piece),
            _ => piece.split_to(piece.len().min(PACKED_PIECE)),
        }
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
            UnpackState::Over => return Ok(()),
            UnpackState::Gzip(_) | UnpackState::Zlib(_) | UnpackState::Raw(_) => piece,
        };
        for part in piece.chunks(PACKED_PIECE) {
            match &mut self.0 {
                UnpackState::Gzip(_) => self.push_gzip(part, each)?,
                UnpackState::Zlib(unpacker) => unpacker.write_all(part)?,
                UnpackState::Raw(unpacker) => unpacker.write_all(part)?,
                UnpackState::Identity
                | UnpackState::Deflate(_)
                | UnpackState::Kept(..)
                | UnpackState::Over => {}
            }
            self.hand_out(each);
        }
        Ok(())
    }

    /// Takes a part of a `gzip` document, which may hold the ends of several members.
    fn push_gzip(&mut self, mut part: &[u8], each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        while let (UnpackState::Gzip(unpacker), false) = (&mut self.0, part.is_empty()) {
            let taken = unpacker.write(part)?;
            part = part.get(taken..).unwrap_or_default();
            if taken == 0 {
                unpacker.try_finish()?;
                self.hand_out(each);
                self.0 = if begins_member(part) {
                    UnpackState::Gzip(write::GzDecoder::new(Vec::new()))
                } else {
                    UnpackState::Over
                };
            }
        }
        Ok(())
    }

    /// Ends the document: no more bytes follow.
    pub fn finish(&mut self, each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        match &mut self.0 {
            UnpackState::Identity | UnpackState::Over => {}
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
            UnpackState::Identity | UnpackState::Deflate(_) | UnpackState::Kept(..) | UnpackState::Over => {
                return;
            }
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
mod tests;
