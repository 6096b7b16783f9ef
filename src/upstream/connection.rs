//! An HTTP/1.1 connection to an upstream.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use http::request::Parts;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper::rt::{Read, Write};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio_util::io::InspectReader;

use super::body::Body;
use super::error::BodyError;
use super::request_body::{IdleTimer, UploadProgress};
use crate::config::settings::Timeouts;

/// What is read at once, in bytes; a head must fit as well. hyper's own buffer begins at 8 KiB and grows to 400 KiB:
/// too little for a tile, and too much for hundreds of connections (docs/decisions/0004-the-data-path.md).
pub(super) const READ_BUFFER: usize = 64 * 1024;

/// An HTTP/1.1 connection; at most one request at a time.
#[derive(Debug)]
pub(super) struct Http1Connection {
    sender: http1::SendRequest<Body>,
    driver: AbortHandle,
    /// A request is under way whose answer was not read to its end.
    busy: bool,
    /// Bytes came since its last request was sent.
    heard: Arc<AtomicBool>,
    /// The answer that is waited for. hyper closes the connection when this is dropped.
    answer: Option<PendingResponse>,
    /// How far the body of its last request is.
    upload: Option<Arc<UploadProgress>>,
    /// How long it waits for the head of an answer, or the next piece of its body.
    pub(super) waits: IdleTimer,
    /// The connection carries a single request, and no other one after that.
    pub(super) alone: bool,
    /// When it was last given back to the pool.
    pub(super) idle_since: Instant,
    /// When it was opened.
    pub(super) born: Instant,
}

/// An answer that is waited for.
struct PendingResponse(Pin<Box<dyn Future<Output = ResponseResult> + Send>>);

type ResponseResult = Result<Response<Incoming>, TrySendError<Request<Body>>>;

impl fmt::Debug for PendingResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

/// How a request failed before the head of an answer.
#[derive(Debug)]
pub(super) enum SendFailure {
    /// Nothing was written; the body is whole again.
    Unsent,
    /// The connection was closed under a request without a body before any byte of an answer.
    Stale,
    /// The connection was closed after some bytes of an answer.
    Ended,
    /// No answer in time.
    Late,
    /// The viewer did not send its whole body.
    Viewer(BodyError),
    /// The target cannot be written as a request of HTTP/2.
    Target,
    /// Anything else.
    Broken(hyper::Error),
}

impl Http1Connection {
    /// Starts HTTP/1.1 on a fresh stream; a task of its own drives it.
    pub(super) async fn open<I>(io: I) -> hyper::Result<Self>
    where
        I: Read + Write + Send + Unpin + 'static,
    {
        let heard = Arc::<AtomicBool>::default();
        let notes = Arc::clone(&heard);
        // At the end of the stream it is called with nothing.
        let io = InspectReader::new(TokioIo::new(io), move |bytes| {
            if !bytes.is_empty() {
                notes.store(true, Ordering::Relaxed);
            }
        });
        let io = TokioIo::new(io);
        let (sender, driver) =
            http1::Builder::new().read_buf_exact_size(Some(READ_BUFFER)).handshake(io).await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = driver.with_upgrades().await {
                tracing::debug!(%error, "a connection to an upstream ended badly");
            }
        })
        .abort_handle();
        let (born, waits) = (Instant::now(), IdleTimer::new(Duration::MAX));
        Ok(Self {
            sender,
            driver,
            busy: false,
            heard,
            answer: None,
            upload: None,
            waits,
            alone: false,
            idle_since: born,
            born,
        })
    }

    /// True while the last request has no answer.
    pub(super) fn is_awaited(&self) -> bool {
        self.answer.is_some()
    }

    /// Waits for the answer to it.
    pub(super) async fn answer(&mut self) -> Option<Incoming> {
        let answer = self.answer.as_mut()?.0.as_mut().await;
        self.answer = None;
        answer.ok().map(Response::into_body)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Marks the connection idle; true: it may carry the next request. It may not while the last request's body still goes
    /// up (the upstream answered early): the next request would wait for that.
    pub(super) fn mark_idle(&mut self, now: Instant) -> bool {
        self.busy = false;
        self.idle_since = now;
        self.upload.take().is_none_or(|upload| upload.is_whole()) && !self.is_closed() && !self.alone
    }

    /// Sends a request and waits for the head of its answer: as long as its body goes up (which may be silent
    /// for `times.body`), and then for `times.first_byte`. The body is taken; where nothing was written it is put back.
    pub(super) async fn send(
        &mut self,
        head: &Parts,
        body: &mut Body,
        times: &Timeouts,
    ) -> Result<Response<Incoming>, SendFailure> {
        let bodyless = matches!(body, Body::Empty);
        // The last answer was read to its end, so this waits at most for the driver to notice.
        if !self.sender.is_ready() {
            let ready = pin!(self.sender.ready());
            match in_time(None, &mut self.waits, times.first_byte, ready).await {
                Some(Ok(())) => {}
                Some(Err(_)) => return Err(SendFailure::Unsent),
                None => return Err(SendFailure::Late),
            }
        }
        self.busy = true;
        self.upload = body.watch_upload(times.body);
        self.heard.store(false, Ordering::Relaxed);
        let request = Request::from_parts(head.clone(), std::mem::take(body));
        let answer = self.answer.insert(PendingResponse(Box::pin(self.sender.try_send_request(request))));
        let answer =
            in_time(self.upload.as_deref(), &mut self.waits, times.first_byte, answer.0.as_mut()).await;
        self.answer = None;
        answer.ok_or(SendFailure::Late)?.map_err(|failure| match failed(failure, bodyless, body) {
            // An answer that has begun, be it with a hint of 1xx or with half a head, is not asked for again.
            SendFailure::Stale if self.heard.load(Ordering::Relaxed) => SendFailure::Ended,
            failure => failure,
        })
    }
}

impl Drop for Http1Connection {
    fn drop(&mut self) {
        // The viewer left, or the upstream took too long. The driver would notice only when something happens
        // on the connection; the upstream is to know now.
        if self.busy {
            self.driver.abort();
        }
    }
}

/// Awaits the answer; `None`: timeout. The clock starts when the request has been sent. The future is passed pinned: moved
/// in, it would take its memory twice.
pub(super) async fn in_time<A>(
    upload: Option<&UploadProgress>,
    waits: &mut IdleTimer,
    patience: Duration,
    mut answer: Pin<&mut (impl Future<Output = A> + ?Sized)>,
) -> Option<A> {
    if let Some(upload) = upload {
        tokio::select! {
            biased;
            // An upstream may answer before it has everything.
            answer = answer.as_mut() => return Some(answer),
            () = upload.over() => {}
        }
    }
    waits.begin(patience);
    poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => waits.poll_over(cx).map(|()| None),
    })
    .await
}

/// How it failed. Where nothing was written the body is put back.
pub(super) fn failed(
    mut failure: TrySendError<Request<Body>>,
    bodyless: bool,
    body: &mut Body,
) -> SendFailure {
    match failure.take_message() {
        Some(request) => {
            *body = request.into_body();
            SendFailure::Unsent
        }
        None if bodyless && is_stale(failure.error()) => SendFailure::Stale,
        None => is_client_error(failure.into_error()),
    }
}

/// Did the request break, or its answer?
fn is_client_error(error: hyper::Error) -> SendFailure {
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        match error.downcast_ref::<BodyError>() {
            Some(BodyError::ViewerStalled) => return SendFailure::Viewer(BodyError::ViewerStalled),
            Some(BodyError::ViewerTooLong) => return SendFailure::Viewer(BodyError::ViewerTooLong),
            Some(BodyError::Viewer(_)) => return SendFailure::Viewer(BodyError::ViewerCut),
            _ => cause = error.source(),
        }
    }
    SendFailure::Broken(error)
}

/// UPSTREAM: a keep-alive timeout that races with our write shows as an incomplete message or a reset.
fn is_stale(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let http2 = source.and_then(|source| source.downcast_ref::<h2::Error>()).and_then(h2::Error::get_io);
    let io = source.and_then(|source| source.downcast_ref::<std::io::Error>()).or(http2);
    error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || io.is_some_and(|io| {
            matches!(io.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
        })
}
