//! Heads of HTTP/1.1 messages: requests as they are written, answers as they are read (RFC 9112 sections 3 to 6).

use std::io::{Error, ErrorKind};
use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use httparse::{Header, ParserConfig, Status};
use hyper::Response;
use hyper::ext::ReasonPhrase;

use super::body::{BodyDecoder, invalid};
use crate::upstream::error::SendFailure;
use crate::upstream::fields::connection_options;
use crate::upstream::framing::{self, StatedLength};

/// Fields of one answer at most.
const FIELDS: usize = 100;

/// Room for fields that are added on the way to the viewer. hyper uses the same map for the viewer's next request.
const ADDED: usize = 12;

/// Interim answers (1xx) before one answer at most.
const INTERIM: u32 = 16;

/// `RequestFraming` is the way in which the end of a request's body is signalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestFraming {
    /// The request has no body.
    Bodyless,
    /// The body has this many bytes.
    Length(u64),
    /// The body comes in chunks.
    Chunked,
}

/// Writes the head of a request.
///
/// SECURITY: the length and the transfer coding are those of the body that follows, whatever the head says: else the rest of a
/// body could be read as another request. A body that turns out longer or shorter than it said ends the connection.
pub(super) fn write(to: &mut Vec<u8>, head: &Parts, body: RequestFraming) {
    let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    to.extend_from_slice(head.method.as_str().as_bytes());
    to.push(b' ');
    to.extend_from_slice(target.as_bytes());
    to.extend_from_slice(b" HTTP/1.1\r\n");
    let mut states_length = false;
    for (name, value) in &head.headers {
        if name == CONTENT_LENGTH {
            states_length = true;
        } else if name != TRANSFER_ENCODING {
            write_field(to, name.as_str(), value.as_bytes());
        }
    }
    match body {
        RequestFraming::Bodyless if states_length => write_field(to, "content-length", b"0"),
        RequestFraming::Bodyless => {}
        RequestFraming::Length(length) => write_field(to, "content-length", length.to_string().as_bytes()),
        RequestFraming::Chunked => write_field(to, "transfer-encoding", b"chunked"),
    }
    to.extend_from_slice(b"\r\n");
}

fn write_field(to: &mut Vec<u8>, name: &str, value: &[u8]) {
    to.extend_from_slice(name.as_bytes());
    to.extend_from_slice(b": ");
    to.extend_from_slice(value);
    to.extend_from_slice(b"\r\n");
}

/// `AnswerHead` is the head of a final answer, and the framing of the bytes after it.
#[derive(Debug)]
pub(super) struct AnswerHead {
    pub(super) answer: Response<()>,
    pub(super) body: BodyDecoder,
    /// True if the connection may carry another request after the body.
    pub(super) keeps_alive: bool,
}

/// `HeadReader` finds the end of a head, and reads each byte once: a head that comes byte by byte costs no more.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    /// Bytes that hold no end of a head.
    searched: usize,
    interim: u32,
}

impl HeadReader {
    /// Takes the head of the final answer from `read`. `None`: incomplete. Interim answers are skipped.
    pub(super) fn take(
        &mut self,
        read: &mut BytesMut,
        is_head: bool,
    ) -> Result<Option<AnswerHead>, SendFailure> {
        loop {
            let Some(length) = self.end(read) else { return Ok(None) };
            self.searched = 0;
            let (mut answer, fields) = parse(&read.split_to(length).freeze()).map_err(SendFailure::Broken)?;
            let status = answer.status();
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                self.interim += 1;
                if self.interim > INTERIM {
                    return Err(SendFailure::Broken(invalid("more interim answers than are read")));
                }
                continue;
            }
            *answer.headers_mut() = fields;
            return frame(answer, is_head).map(Some);
        }
    }

    /// Length of the head with the empty line behind it. Lines may end with a bare LF (RFC 9112 section 2.2).
    fn end(&mut self, read: &[u8]) -> Option<usize> {
        while let Some(at) = memchr::memchr(b'\n', read.get(self.searched..)?) {
            let next = self.searched + at + 1;
            match read.get(next..)? {
                [b'\n', ..] => return Some(next + 1),
                [b'\r', b'\n', ..] => return Some(next + 2),
                // The line end is looked at again when more bytes have come.
                [] | [b'\r'] => return None,
                _ => self.searched = next,
            }
        }
        self.searched = read.len();
        None
    }
}

fn parse(head: &Bytes) -> Result<(Response<()>, HeaderMap), Error> {
    let mut room = [const { MaybeUninit::<Header<'_>>::uninit() }; FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, &mut room);
    match status.map_err(|error| Error::new(ErrorKind::InvalidData, error))? {
        Status::Complete(length) if length == head.len() => {}
        _ => return Err(invalid("an empty line within the head")),
    }
    let mut fields = HeaderMap::with_capacity(parsed.headers.len() + ADDED);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| invalid("a field name"))?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
        fields.append(name, value.map_err(|_| invalid("a field value"))?);
    }
    let mut answer = Response::new(());
    let code = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    *answer.status_mut() = code.ok_or_else(|| invalid("a status"))?;
    *answer.version_mut() = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let reason = parsed.reason.unwrap_or_default();
    if !reason.is_empty()
        && answer.status().canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        answer.extensions_mut().insert(reason);
    }
    Ok((answer, fields))
}

/// Framing of the bytes after the head (RFC 9112 section 6.3).
fn frame(mut answer: Response<()>, is_head: bool) -> Result<AnswerHead, SendFailure> {
    let (status, version) = (answer.status(), answer.version());
    let fields = answer.headers_mut();
    let keeps_alive = match version {
        Version::HTTP_10 => says(fields, "keep-alive"),
        _ => !says(fields, "close"),
    };
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(AnswerHead { answer, body: BodyDecoder::Ended, keeps_alive: false });
    }
    let length = framing::settle(fields).map_err(SendFailure::Framing)?;
    if length == StatedLength::Chunked && version == Version::HTTP_10 {
        return Err(SendFailure::Broken(invalid("a transfer coding in HTTP/1.0")));
    }
    let is_bodyless = is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = match length {
        _ if is_bodyless => BodyDecoder::Ended,
        StatedLength::Bytes(0) => BodyDecoder::Ended,
        StatedLength::Bytes(length) => BodyDecoder::Length(length),
        StatedLength::Chunked => BodyDecoder::chunked(),
        StatedLength::Unstated => BodyDecoder::UntilClose,
    };
    Ok(AnswerHead { answer, body, keeps_alive })
}

/// True if `Connection` has this option.
fn says(fields: &HeaderMap, option: &str) -> bool {
    connection_options(fields).any(|named| named.eq_ignore_ascii_case(option.as_bytes()))
}
