//! Bodies of HTTP/1.1 answers, taken out of the bytes that came (RFC 9112 sections 6 and 7).

use std::io::{Error, ErrorKind};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::SizeHint;

/// The longest line with the size of a chunk, its extensions included.
const LONGEST_SIZE: usize = 1 << 10;

/// The longest extensions of all chunks of a body together (RFC 9112 section 7.1.1). They are bytes that no reader gets, and
/// each piece of a body keeps the whole buffer that it was read into.
const LONGEST_EXTENSIONS: usize = 16 << 10;

/// A chunk below this many bytes goes out together with those behind it that came as well: each piece takes its own memory.
const SHORT_CHUNK: u64 = 1 << 10;

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
    Chunked {
        /// The next part.
        next: Chunk,
        /// Bytes of extensions so far.
        extensions: usize,
    },
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
    /// A fault, behind data that is passed on first.
    Broken(Fault),
}

/// Description of what is wrong with the framing of a body.
type Fault = &'static str;

const TOO_LONG: Fault = "a line of a chunked body is too long";
const NO_SIZE: Fault = "the size of a chunk";
const LONGER_THAN_SIZE: Fault = "a chunk longer than its size";

/// `Decoded` is the result of one decoding step.
#[derive(Debug)]
pub(super) enum Decoded {
    Data(Bytes),
    End,
    /// More bytes are needed.
    More,
}

impl BodyDecoder {
    /// A chunked body, from its beginning.
    pub(super) fn chunked() -> Self {
        Self::Chunked { next: Chunk::Size, extensions: 0 }
    }

    pub(super) fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ended => SizeHint::with_exact(0),
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunked { .. } | Self::UntilClose => SizeHint::default(),
        }
    }

    /// Takes the next piece of the body from `read`.
    pub(super) fn decode(&mut self, read: &mut BytesMut) -> Result<Decoded, Error> {
        match self {
            Self::Ended => Ok(Decoded::End),
            // Also with an empty buffer: an error behind the last data is returned now.
            Self::Chunked { .. } => self.decode_chunks(read).map_err(invalid),
            _ if read.is_empty() => Ok(Decoded::More),
            Self::UntilClose => Ok(Decoded::Data(read.split().freeze())),
            Self::Length(left) => {
                let data = take(read, left);
                if *left == 0 {
                    *self = Self::Ended;
                }
                Ok(Decoded::Data(data))
            }
        }
    }

    fn decode_chunks(&mut self, read: &mut BytesMut) -> Result<Decoded, Fault> {
        if self.skip_framing(read)? {
            return Ok(Decoded::End);
        }
        let Some(data) = self.take_chunk(read) else { return Ok(Decoded::More) };
        if data.len() as u64 >= SHORT_CHUNK || !self.is_in_short_chunk() {
            return Ok(Decoded::Data(data));
        }
        let mut all = BytesMut::from(data);
        while self.is_in_short_chunk()
            && let Some(data) = self.take_chunk(read)
        {
            all.extend_from_slice(&data);
        }
        Ok(Decoded::Data(all.freeze()))
    }

    fn is_in_short_chunk(&self) -> bool {
        matches!(self, Self::Chunked { next: Chunk::Data(left), .. } if *left < SHORT_CHUNK)
    }

    /// Takes what is here of a chunk's data, and the framing behind it.
    fn take_chunk(&mut self, read: &mut BytesMut) -> Option<Bytes> {
        let Self::Chunked { next, .. } = self else { return None };
        let Chunk::Data(left) = next else { return None };
        if read.is_empty() {
            return None;
        }
        let data = take(read, left);
        if *left == 0 {
            *next = Chunk::End;
            // Skips the last chunk here, where it has come, so that the last piece is known to be the last.
            if let Err(fault) = self.skip_framing(read)
                && let Self::Chunked { next, .. } = self
            {
                *next = Chunk::Broken(fault);
            }
        }
        Some(data)
    }

    /// Reads framing bytes. True: the body has ended.
    fn skip_framing(&mut self, read: &mut BytesMut) -> Result<bool, Fault> {
        while let Self::Chunked { next, extensions } = self {
            match next {
                Chunk::Data(_) => return Ok(false),
                Chunk::Broken(fault) => return Err(fault),
                Chunk::Size => {
                    let Some(line) = take_line(read, LONGEST_SIZE)? else { return Ok(false) };
                    let (size, extension) = chunk_size(&line)?;
                    *extensions += extension;
                    if *extensions > LONGEST_EXTENSIONS {
                        return Err("extensions of chunks longer than are read");
                    }
                    *next = match size {
                        0 => Chunk::Trailers(0),
                        size => Chunk::Data(size),
                    };
                }
                Chunk::End => {
                    // An error at once: a server that sent a wrong byte may send nothing more.
                    if read.first().is_some_and(|byte| *byte != b'\r') {
                        return Err(LONGER_THAN_SIZE);
                    }
                    let Some(line) = take_line(read, 2)? else { return Ok(false) };
                    if !line.is_empty() {
                        return Err(LONGER_THAN_SIZE);
                    }
                    *next = Chunk::Size;
                }
                Chunk::Trailers(came) => {
                    let Some(line) = take_line(read, LONGEST_TRAILERS - *came)? else { return Ok(false) };
                    *came += line.len() + 2;
                    if *came > LONGEST_TRAILERS {
                        return Err("trailers longer than are read");
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
            Self::Length(_) | Self::Chunked { .. } => Err(ErrorKind::UnexpectedEof.into()),
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
fn take_line(read: &mut BytesMut, longest: usize) -> Result<Option<BytesMut>, Fault> {
    let Some(end) = memchr::memchr(b'\n', read) else {
        let is_too_long = read.len() > longest;
        return if is_too_long { Err(TOO_LONG) } else { Ok(None) };
    };
    if end > longest {
        return Err(TOO_LONG);
    }
    let mut line = read.split_to(end);
    read.advance(1);
    match line.split_last() {
        Some((b'\r', rest)) if !rest.contains(&b'\r') => {
            line.truncate(end - 1);
            Ok(Some(line))
        }
        _ => Err("a line of a chunked body does not end with CR LF"),
    }
}

/// Size of a chunk: hexadecimal digits; extensions behind them are passed over, and their length is told.
fn chunk_size(line: &[u8]) -> Result<(u64, usize), Fault> {
    let end = line.iter().position(|byte| matches!(byte, b';' | b' ' | b'\t')).unwrap_or(line.len());
    let (digits, rest) = line.split_at(end);
    let is_extension = |rest: &[u8]| rest.is_empty() || rest.starts_with(b";");
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) || !is_extension(rest.trim_ascii()) {
        return Err(NO_SIZE);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| NO_SIZE)?;
    let size = u64::from_str_radix(digits, 16).map_err(|_| NO_SIZE)?;
    Ok((size, rest.len()))
}

pub(super) fn invalid(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces of a chunked body whose chunks are all here.
    fn pieces(chunks: &[u8]) -> Vec<Bytes> {
        let (mut decoder, mut read, mut pieces) =
            (BodyDecoder::chunked(), BytesMut::from(chunks), Vec::new());
        while let Decoded::Data(data) = decoder.decode(&mut read).expect("chunks") {
            pieces.push(data);
        }
        assert!(decoder.is_ended());
        pieces
    }

    #[test]
    fn short_chunks_that_came_together_are_one_piece_and_long_ones_are_not_copied() {
        let many = format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(10_000));
        assert_eq!(pieces(many.as_bytes()), ["x".repeat(10_000)]);
        let (short, long) = ("ab".to_owned(), "y".repeat(5000));
        let mixed =
            [&short, &short, &long, &long, &short].map(|data| format!("{:x}\r\n{data}\r\n", data.len()));
        let found = pieces(format!("{}0\r\n\r\n", mixed.concat()).as_bytes());
        assert_eq!(found, ["abab", &*long, &*long, "ab"]);
    }

    #[test]
    fn what_is_wrong_behind_short_chunks_is_told_behind_their_data() {
        let mut read = BytesMut::from(&b"1\r\na\r\n1\r\nb\r\nx\r\n"[..]);
        let mut decoder = BodyDecoder::chunked();
        assert!(matches!(decoder.decode(&mut read), Ok(Decoded::Data(data)) if data == "ab"));
        let error = decoder.decode(&mut read).expect_err("no size of a chunk");
        assert_eq!(error.to_string(), NO_SIZE);
        for wrong in ["1\r\nab", "1\r\na\n"] {
            let (mut read, mut decoder) = (BytesMut::from(wrong), BodyDecoder::chunked());
            assert!(matches!(decoder.decode(&mut read), Ok(Decoded::Data(data)) if data == "a"));
            let error = decoder.decode(&mut read).expect_err("no end of a chunk");
            assert_eq!(error.to_string(), LONGER_THAN_SIZE);
        }
    }
}
