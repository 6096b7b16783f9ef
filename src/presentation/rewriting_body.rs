//! Answers under another host: which ones are rewritten, and the fields that change.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame};

use super::buffer::mark_changed;
use super::rewrite::{RewriteRule, Rewriter};
use crate::index::learn::traffic::is_json;
use crate::upstream::coding::{ContentCoding, Unpacker};
use crate::upstream::{Body, BodyError};

/// Fields whose values are URLs, or hold some.
const LINKING: [HeaderName; 3] = [header::LOCATION, header::CONTENT_LOCATION, header::LINK];

/// Marks an answer that was rewritten as a whole, for all who share it.
#[derive(Debug, Clone, Copy)]
pub(super) struct AlreadyRewritten;

impl RewriteRule {
    /// Asks for a document in a form that can be rewritten: unpacked and whole.
    pub fn prepare(&self, onward: &mut HeaderMap) {
        onward.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        onward.remove(header::RANGE);
        onward.remove(header::IF_RANGE);
    }

    /// Tells the server behind us its public name (upstream.md "Headers").
    ///
    /// Cantaloupe builds absolute URLs from these fields; with another host name configured, every URL gets that name,
    /// whichever name the request came by.
    pub fn set_forwarded_host(&self, onward: &mut HeaderMap) {
        for (name, value) in &self.told {
            onward.insert(name, value.clone());
        }
    }

    /// Rewrites the URLs of an answer. Anything but JSON keeps its body.
    ///
    /// `no-transform` is not heeded: for its viewers this gateway is the origin, and an operator who configures another
    /// host name wants its URLs (RFC 9110 section 7.7 is about intermediaries that the origin did not choose).
    pub fn apply(self: &Arc<Self>, mut answer: Response<Body>) -> Response<Body> {
        if answer.extensions().get::<AlreadyRewritten>().is_some() {
            return answer;
        }
        self.links(answer.headers_mut());
        // Nearly all answers are images: these are not taken apart.
        if !is_json(answer.headers()) {
            return answer;
        }
        let (mut head, body) = answer.into_parts();
        let is_whole = head.status != StatusCode::PARTIAL_CONTENT;
        let (true, Ok(coding)) = (is_whole, ContentCoding::of(&head.headers)) else {
            return Response::from_parts(head, body);
        };
        mark_changed(&mut head.headers);
        let body = match body {
            // HEAD or 304: there is nothing to unpack.
            Body::Empty => Body::Empty,
            Body::Full(bytes) if coding == ContentCoding::Identity => Bytes::from(self.whole(&bytes)).into(),
            Body::Full(bytes) => match coding.unpack(&bytes, self.longest) {
                Ok(bytes) => Bytes::from(self.whole(&bytes)).into(),
                Err(_) => Body::shaped(RewritingBody::new(bytes.into(), coding, self)),
            },
            body => Body::shaped(RewritingBody::new(body, coding, self)),
        };
        head.headers.remove(header::CONTENT_ENCODING);
        Response::from_parts(head, body)
    }

    /// Rewrites a document that is held for several viewers.
    pub(super) fn apply_whole(self: &Arc<Self>, head: &mut http::response::Parts, body: &mut Bytes) {
        let answer = Response::from_parts(head.clone(), Body::from(body.clone()));
        let (mut rewritten, shaped) = self.apply(answer).into_parts();
        if let Body::Full(bytes) = shaped {
            rewritten.extensions.insert(AlreadyRewritten);
            (*head, *body) = (rewritten, bytes);
        }
    }

    fn links(self: &Arc<Self>, fields: &mut HeaderMap) {
        // One pass over the fields: nearly no image has one of these.
        let links =
            |name: &HeaderName| matches!(*name, header::LOCATION | header::CONTENT_LOCATION | header::LINK);
        if !fields.keys().any(links) {
            return;
        }
        for name in LINKING {
            let values = fields.get_all(&name).iter();
            let rewritten = values.map(|value| HeaderValue::from_bytes(&self.whole(value.as_bytes())));
            let Ok(rewritten) = rewritten.collect::<Result<Vec<_>, _>>() else { continue };
            fields.remove(&name);
            for value in rewritten {
                fields.append(&name, value);
            }
        }
    }
}

/// Length from which on what was rewritten goes out.
const PIECE: usize = 64 << 10;

/// Body that is rewritten as it streams; of each piece only a few bytes are kept back.
#[derive(Debug)]
struct RewritingBody {
    body: Body,
    /// Bytes that came and are not rewritten yet: unpacked at once, they may be very many.
    came: Bytes,
    rewriter: Rewriter,
    unpacker: Unpacker,
    is_over: bool,
}

impl RewritingBody {
    fn new(body: Body, coding: ContentCoding, rewrite: &Arc<RewriteRule>) -> Self {
        let unpacker = Unpacker::new(coding, rewrite.longest);
        let rewriter = Rewriter::new(Arc::clone(rewrite));
        Self { body, came: Bytes::new(), rewriter, unpacker, is_over: false }
    }

    fn take(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        while !self.came.is_empty() && out.len() < PIECE {
            let part = self.unpacker.part(&mut self.came);
            out.reserve(part.len() + part.len() / 16);
            self.unpacker.push(&part, &mut |plain| self.rewriter.push(plain, out))?;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.unpacker.finish(&mut |plain| self.rewriter.push(plain, out))?;
        self.rewriter.finish(out);
        Ok(())
    }
}

impl HttpBody for RewritingBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while !self.is_over {
            let mut out = Vec::new();
            let taken = if self.came.is_empty() {
                match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        self.came = frame.into_data().unwrap_or_default();
                        continue;
                    }
                    Some(Err(error)) => {
                        self.is_over = true;
                        return Poll::Ready(Some(Err(error)));
                    }
                    None => {
                        self.is_over = true;
                        self.end(&mut out)
                    }
                }
            } else {
                self.take(&mut out)
            };
            if let Err(error) = taken {
                self.is_over = true;
                return Poll::Ready(Some(Err(BodyError::Unreadable(error))));
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::presentation::rewrite::tests::rewrite;

    #[tokio::test]
    async fn a_short_piece_that_unpacks_to_a_very_long_one_goes_out_in_pieces() {
        let plain = vec![b' '; 8 << 20];
        let (mut gzip, mut zlib) = (
            GzEncoder::new(Vec::new(), Compression::best()),
            ZlibEncoder::new(Vec::new(), Compression::best()),
        );
        gzip.write_all(&plain).and_then(|()| zlib.write_all(&plain)).expect("memory");
        for (coding, packed) in
            [(ContentCoding::Gzip, gzip.finish()), (ContentCoding::Deflate, zlib.finish())]
        {
            let packed = Bytes::from(packed.expect("memory"));
            let mut body = RewritingBody::new(packed.into(), coding, &rewrite());
            let mut size = 0;
            while let Some(frame) = body.frame().await {
                let piece = frame.expect("it can be unpacked").into_data().expect("no trailers");
                assert!(piece.len() <= 6 * PIECE, "{} bytes at once", piece.len());
                size += piece.len();
            }
            assert_eq!(size, plain.len());
        }
    }
}
