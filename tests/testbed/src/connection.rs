//! One connection of a stand-in: its requests, and the misbehaviour that the server is switched to.

use std::error::Error;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::flow::Flow;
use crate::reset::ResetOnDrop;
use crate::wire::{Handler, Manners, Panics, Seen};

/// Reason why a request gets no answer.
#[derive(Debug)]
enum Broken {
    Io(io::Error),
    Refused(h2::Error),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no answer")
    }
}

impl Error for Broken {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Refused(error) => Some(error),
        }
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// State of one connection.
pub(crate) struct Connection<H: Handler> {
    pub(crate) handler: Arc<H>,
    pub(crate) manners: Arc<Manners>,
    pub(crate) panics: Panics,
    pub(crate) requests: Arc<Mutex<Vec<AbortHandle>>>,
}

impl<H: Handler> Connection<H> {
    pub(crate) async fn serve(self, stream: TcpStream) {
        let _best_effort = stream.set_nodelay(true);
        let resets = Arc::clone(&self.manners.resets);
        if resets.load(Ordering::SeqCst) {
            drop(ResetOnDrop::new(stream, resets));
            return;
        }
        let io = TokioIo::new(ResetOnDrop::new(stream, resets));
        let connection = Arc::new(self);
        let streams = u32::try_from(connection.manners.http2.load(Ordering::SeqCst)).unwrap_or(u32::MAX);
        let mut goodbye = connection.manners.goodbye.subscribe();
        let service = service_fn(move |request| {
            let connection = Arc::clone(&connection);
            async move { connection.answer(request).await }
        });
        if streams > 0 {
            let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(streams)
                .serve_connection(io, service);
            tokio::pin!(served);
            loop {
                tokio::select! {
                    _ended = &mut served => return,
                    Ok(()) = goodbye.changed() => served.as_mut().graceful_shutdown(),
                }
            }
        }
        // A peer that breaks off is no error here.
        let _ended = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .max_buf_size(1 << 20)
            .serve_connection(io, service)
            .await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Flow>, Broken> {
        let (head, body) = request.into_parts();
        let left = |left: usize| left.checked_sub(1);
        if self.manners.refuses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok() {
            return Err(Broken::Refused(h2::Reason::REFUSED_STREAM.into()));
        }
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let is_http2 = head.version == http::Version::HTTP_2;
        let authority = head.uri.authority().filter(|_| is_http2).map(ToString::to_string);
        let target = head.uri.path_and_query().filter(|_| is_http2).map(ToString::to_string);
        let target = target.unwrap_or_else(|| head.uri.to_string());
        let seen = Seen { method: head.method, target, authority, headers: head.headers, body };
        let (chosen, works) =
            (self.manners.choice.of(&seen), self.manners.choice.works.load(Ordering::SeqCst));
        let chosen = match chosen {
            Some(answer) if !works => return Ok(answer),
            chosen => chosen,
        };
        // A task of its own, as in a servlet container: a client who leaves stops nothing (upstream.md "Ways back to life").
        let task = tokio::spawn(Arc::clone(&self.handler).answer(seen));
        {
            let mut requests = self.requests.lock().unwrap();
            requests.retain(|request| !request.is_finished());
            requests.push(task.abort_handle());
        }
        let answer = task.await.map_err(|error| self.broken(error))?;
        let answer = chosen.unwrap_or(answer);
        self.manners.gate.pass().await;
        if self.manners.resets.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
        }
        Ok(match self.manners.cut.load(Ordering::SeqCst) {
            0 => answer,
            cut => answer.map(|body| body.cut_after(cut - 1)),
        })
    }

    fn broken(&self, error: tokio::task::JoinError) -> io::Error {
        if error.is_panic() {
            let payload = error.into_panic();
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            self.panics.note(text.unwrap_or_else(|| "a panic without words".to_owned()));
        }
        io::ErrorKind::BrokenPipe.into()
    }
}
