//! A body that is copied while it streams, and detection of its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{Body, BodyError};

/// Body whose pieces are passed to a listener as they stream by. Pieces are shared, not copied.
pub struct TeeBody {
    body: Body,
    heard: Vec<Bytes>,
    /// Bytes that the listener may still get; beyond that it is dropped.
    left: usize,
    done: Option<BodyListener>,
}

pub(super) type BodyListener = Box<dyn FnOnce(Option<Vec<Bytes>>) + Send + Sync>;

impl std::fmt::Debug for TeeBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Teed").field("body", &self.body).field("left", &self.left).finish_non_exhaustive()
    }
}

/// True if this frame ends the body.
///
/// A body ends in one of three ways: its last piece is known to be the last (a length, HTTP/2 with `END_STREAM` on data), a
/// trailer section follows, or only the next poll brings nothing (chunked, until close). A body that hyper polls must
/// handle all three: hyper does not poll behind the first two.
pub(super) fn is_over<B: HttpBody>(body: &B, frame: Option<&Result<Frame<Bytes>, B::Error>>) -> bool {
    match frame {
        None => true,
        Some(Ok(frame)) => frame.is_trailers() || body.is_end_stream(),
        Some(Err(_)) => false,
    }
}

impl TeeBody {
    pub(super) fn new(body: Body, most: usize, done: BodyListener) -> Self {
        Self { body, heard: Vec::new(), left: most, done: Some(done) }
    }

    /// False until `done` was called at the end of the body, so that the end is polled for.
    pub(super) fn is_end_stream(&self) -> bool {
        self.done.is_none() && self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(bytes), true) = (frame.data_ref(), self.done.is_some()) {
                    self.observe(bytes.clone());
                }
            }
            Some(Err(_)) => self.done = None,
            None => {}
        }
        if is_over(&self.body, frame.as_ref())
            && let Some(done) = self.done.take()
        {
            done(Some(std::mem::take(&mut self.heard)));
        }
        Poll::Ready(frame)
    }

    fn observe(&mut self, bytes: Bytes) {
        if let Some(left) = self.left.checked_sub(bytes.len()) {
            self.left = left;
            self.heard.push(bytes);
        } else {
            self.heard = Vec::new();
            if let Some(done) = self.done.take() {
                done(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use std::sync::Arc;

    use http::HeaderMap;
    use http_body_util::BodyExt as _;
    use rstest::rstest;

    use super::*;

    /// End of a body, as the body signals it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum EndOfBody {
        /// Signalled with the last piece: a length, or `END_STREAM` on data.
        WithTheLast,
        /// Signalled by no further frame: chunked, until close, `END_STREAM` on an empty frame.
        WithNothing,
        /// Signalled by a trailer section, behind which hyper does not poll again.
        Trailers,
        /// No end: the body is cut.
        Cut,
    }

    struct TeePieces(std::vec::IntoIter<&'static str>, EndOfBody);

    impl HttpBody for TeePieces {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            if let Some(piece) = self.0.next() {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece.as_bytes())))));
            }
            Poll::Ready(match self.1 {
                EndOfBody::Trailers => {
                    self.1 = EndOfBody::WithNothing;
                    Some(Ok(Frame::trailers(HeaderMap::new())))
                }
                EndOfBody::Cut => Some(Err(BodyError::Stalled)),
                EndOfBody::WithTheLast | EndOfBody::WithNothing => None,
            })
        }

        fn is_end_stream(&self) -> bool {
            self.1 == EndOfBody::WithTheLast && self.0.as_slice().is_empty()
        }
    }

    /// Polls as hyper does: not after a body that reports its end, and not after trailers.
    async fn as_hyper_does(mut body: Body) {
        while !body.is_end_stream() {
            match body.frame().await {
                Some(Ok(frame)) if frame.is_data() => {}
                _ => return,
            }
        }
    }

    #[rstest]
    #[case::length(EndOfBody::WithTheLast, true)]
    #[case::chunked(EndOfBody::WithNothing, true)]
    #[case::trailers(EndOfBody::Trailers, true)]
    #[case::cut(EndOfBody::Cut, false)]
    #[tokio::test]
    async fn whoever_listens_to_a_body_hears_each_of_its_ends(#[case] end: EndOfBody, #[case] is_told: bool) {
        for pieces in [vec!["a", "b", "c"], vec!["a"], vec![]] {
            let heard = Arc::new(Mutex::new(Vec::new()));
            let told = Arc::clone(&heard);
            let whole = pieces.concat();
            let body = Body::shaped(TeePieces(pieces.into_iter(), end)).tee(3, move |heard| {
                let heard = heard.map(|pieces| String::from_utf8(pieces.concat()).expect("text"));
                told.lock().push(heard);
            });
            as_hyper_does(body).await;
            let expected = if is_told { vec![Some(whole)] } else { Vec::new() };
            assert_eq!(*heard.lock(), expected, "{end:?}");
        }
    }

    #[rstest]
    #[tokio::test]
    async fn of_one_that_is_too_long_it_is_told_once_and_that_only(
        #[values(EndOfBody::WithTheLast, EndOfBody::WithNothing, EndOfBody::Trailers)] end: EndOfBody,
    ) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&heard);
        let body = Body::shaped(TeePieces(vec!["ab", "cd", "ef"].into_iter(), end))
            .tee(3, move |heard| told.lock().push(heard.is_some()));
        as_hyper_does(body).await;
        assert_eq!(*heard.lock(), [false]);
    }
}
