//! Bodies of HTTP/1.1 answers, taken out of the bytes that came (RFC 9112 sections 6 and 7).

use std::io::{Error, ErrorKind};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::SizeHint;

/// The longest line with the size of a chunk, its extensions included.
const LONGEST_SIZE: usize = 1 << 10;

/// The longest trailer section.
const LONGEST_TRAILERS: usize = 16 << 10;

/// `BodyDecoder` knows how much of a body is still to come.
#[derive(Debug)]
pub(super) enum BodyDecoder {
    /// No bytes left.
    Ended,
    /// Bytes left, never zero.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// Body up to the close of the connection.
    UntilClose,
}

/// `Chunk` is the next part of a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// The line with the size of a chunk.
    Size,
    /// Bytes left of a chunk, never zero.
    Data(u64),
    /// The line end behind the data.
    End,
    /// Trailer fields behind the last chunk; so many bytes of them came.
    Trailers(usize),
    /// An error, behind data that is passed on first.
    Broken,
}

/// `Decoded` is what the bytes that came are good for.
#[derive(Debug)]
pub(super) enum Decoded {
    Data(Bytes),
    End,
    /// More bytes are needed.
    More,
}

impl BodyDecoder {
    pub(super) fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ended => SizeHint::with_exact(0),
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunked(_) | Self::UntilClose => SizeHint::default(),
        }
    }

    /// Takes the next piece of the body from `read`.
    pub(super) fn decode(&mut self, read: &mut BytesMut) -> Result<Decoded, Error> {
        match self {
            Self::Ended => Ok(Decoded::End),
            _ if read.is_empty() => Ok(Decoded::More),
            Self::UntilClose => Ok(Decoded::Data(read.split().freeze())),
            Self::Length(left) => {
                let data = take(read, left);
                if *left == 0 {
                    *self = Self::Ended;
                }
                Ok(Decoded::Data(data))
            }
            Self::Chunked(_) => self.decode_chunks(read),
        }
    }

    fn decode_chunks(&mut self, read: &mut BytesMut) -> Result<Decoded, Error> {
        if self.skip_framing(read)? {
            return Ok(Decoded::End);
        }
        let Self::Chunked(Chunk::Data(left)) = self else { return Ok(Decoded::More) };
        if read.is_empty() {
            return Ok(Decoded::More);
        }
        let data = take(read, left);
        if *left == 0 {
            *self = Self::Chunked(Chunk::End);
            // Skips the last chunk here, where it has come, so that the last piece is known to be the last.
            if self.skip_framing(read).is_err() {
                *self = Self::Chunked(Chunk::Broken);
            }
        }
        Ok(Decoded::Data(data))
    }

    /// Reads framing bytes. True: the body has ended.
    fn skip_framing(&mut self, read: &mut BytesMut) -> Result<bool, Error> {
        while let Self::Chunked(next) = self {
            match next {
                Chunk::Data(_) => return Ok(false),
                Chunk::Broken => return Err(invalid("what stands between chunks")),
                Chunk::Size => {
                    let Some(line) = line(read, LONGEST_SIZE)? else { return Ok(false) };
                    *next = match chunk_size(&line)? {
                        0 => Chunk::Trailers(0),
                        size => Chunk::Data(size),
                    };
                }
                Chunk::End => {
                    let Some(line) = line(read, 2)? else { return Ok(false) };
                    if !line.is_empty() {
                        return Err(invalid("a chunk longer than its size"));
                    }
                    *next = Chunk::Size;
                }
                Chunk::Trailers(came) => {
                    let Some(line) = line(read, LONGEST_TRAILERS - *came)? else { return Ok(false) };
                    *came += line.len() + 2;
                    if *came > LONGEST_TRAILERS {
                        return Err(invalid("trailers longer than are read"));
                    }
                    if line.is_empty() {
                        *self = Self::Ended;
                    }
                }
            }
        }
        Ok(self.is_ended())
    }

    /// Ends the body where the connection was closed.
    pub(super) fn close(&mut self) -> Result<(), Error> {
        match self {
            Self::Ended => Ok(()),
            Self::UntilClose => {
                *self = Self::Ended;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn take(read: &mut BytesMut, left: &mut u64) -> Bytes {
    let size = usize::try_from(*left).map_or(read.len(), |left| left.min(read.len()));
    *left -= size as u64;
    read.split_to(size).freeze()
}

/// Takes a line, without its end.
///
/// SECURITY: a line ends with CR LF and nothing else. Other parsers read a bare LF or CR otherwise, and would see another
/// end.
fn line(read: &mut BytesMut, longest: usize) -> Result<Option<BytesMut>, Error> {
    let Some(end) = memchr::memchr(b'\n', read) else {
        let is_too_long = read.len() > longest;
        return if is_too_long { Err(invalid("a line of a chunked body is too long")) } else { Ok(None) };
    };
    if end > longest {
        return Err(invalid("a line of a chunked body is too long"));
    }
    let mut line = read.split_to(end);
    read.advance(1);
    match line.split_last() {
        Some((b'\r', rest)) if !rest.contains(&b'\r') => {
            line.truncate(end - 1);
            Ok(Some(line))
        }
        _ => Err(invalid("a line of a chunked body does not end with CR LF")),
    }
}

/// Size of a chunk: hexadecimal digits; extensions behind them are passed over.
fn chunk_size(line: &[u8]) -> Result<u64, Error> {
    let end = line.iter().position(|byte| matches!(byte, b';' | b' ' | b'\t')).unwrap_or(line.len());
    let (digits, rest) = line.split_at(end);
    let is_extension = |rest: &[u8]| rest.is_empty() || rest.starts_with(b";");
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) || !is_extension(rest.trim_ascii()) {
        return Err(invalid("the size of a chunk"));
    }
    let digits = std::str::from_utf8(digits).map_err(|_| invalid("the size of a chunk"))?;
    u64::from_str_radix(digits, 16).map_err(|_| invalid("the size of a chunk"))
}

pub(super) fn invalid(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}
