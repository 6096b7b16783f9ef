//! Server of the stand-ins: one hyper server, on port 0 unless told otherwise, with the faults that every server can show.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

use crate::flow::Flow;
use crate::gate::Gate;
use crate::reset::ResetOnDrop;

/// Request as a stand-in saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method.
    pub method: Method,
    /// Raw request target, as in the request line; in HTTP/2 the value of `:path`.
    pub target: String,
    /// `:authority`, where the request came by HTTP/2.
    pub authority: Option<String>,
    /// The fields, in the order sent, their names in lower case (use [`crate::raw`] for exact bytes).
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Seen {
    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&*self.target, |(path, _)| path)
    }

    /// The query, without `?`.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// A field as text; empty where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Handler of requests.
pub(crate) trait Handler: Send + Sync + 'static {
    fn answer(self: Arc<Self>, seen: Seen) -> impl Future<Output = Response<Flow>> + Send;
}

/// The panics that happened inside the stand-ins; a test must not pass over them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Panics(Arc<Mutex<Vec<String>>>);

impl Panics {
    pub(crate) fn note(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// Raises the recorded panics, unless the thread panics already.
    pub(crate) fn raise(&self) {
        let noted = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        assert!(std::thread::panicking() || noted.is_empty(), "a stand-in panicked: {}", noted.join("; "));
    }
}

/// An answer of a test's choice; `None`: the stand-in's own.
type Chosen = dyn Fn(&Seen) -> Option<Response<Flow>> + Send + Sync;

/// Answers of a test's choice, in the place of the stand-in's own.
#[derive(Default)]
struct Choice {
    answers: Mutex<Option<Arc<Chosen>>>,
    /// True if the request is still carried out.
    works: AtomicBool,
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a closure")
    }
}

impl Choice {
    fn of(&self, seen: &Seen) -> Option<Response<Flow>> {
        let answers = self.answers.lock().unwrap().clone();
        answers.and_then(|answers| answers(seen))
    }
}

/// The misbehaviour that any server can be switched to.
#[derive(Debug, Default)]
pub(crate) struct Manners {
    choice: Choice,
    gate: Gate,
    resets: Arc<AtomicBool>,
    /// 0 = whole bodies; else one more than the bytes that get through.
    cut: AtomicUsize,
    connections: AtomicUsize,
    /// Requests at once on an HTTP/2 connection; 0: HTTP/1.1 is spoken.
    http2: AtomicUsize,
    /// Number of HTTP/2 requests that are still to be refused.
    refuses: AtomicUsize,
    /// Every HTTP/2 connection that is older says GOAWAY.
    goodbye: tokio::sync::watch::Sender<()>,
}

/// Default listening address of a stand-in: a port of its own.
pub(crate) const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A server; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Server<H: Handler> {
    address: SocketAddr,
    handler: Arc<H>,
    manners: Arc<Manners>,
    panics: Panics,
    requests: Arc<Mutex<Vec<AbortHandle>>>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    /// Keeps the port while the server is down: a bound socket that does not listen refuses.
    parked: Mutex<Option<TcpSocket>>,
}

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.expect("a socket");
    socket.set_reuseaddr(true).expect("SO_REUSEADDR");
    socket.bind(address).expect("the port of a stand-in");
    socket
}

impl<H: Handler> Server<H> {
    pub(crate) fn start(handler: Arc<H>, panics: Panics) -> Self {
        Self::start_at(ANYWHERE, handler, panics)
    }

    pub(crate) fn start_at(address: SocketAddr, handler: Arc<H>, panics: Panics) -> Self {
        let listener = socket(address).listen(1024).expect("listen");
        let address = listener.local_addr().expect("a bound address");
        let server = Self {
            address,
            handler,
            manners: Arc::default(),
            panics,
            requests: Arc::default(),
            accepting: Mutex::default(),
            parked: Mutex::default(),
        };
        server.accept(listener);
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn connections(&self) -> usize {
        self.manners.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn panics(&self) -> &Panics {
        &self.panics
    }

    pub(crate) fn hangs(&self, hangs: bool) {
        if hangs { self.manners.gate.shut() } else { self.manners.gate.open() }
    }

    pub(crate) fn resets(&self, resets: bool) {
        self.manners.resets.store(resets, Ordering::SeqCst);
    }

    /// Answers these requests so; `works`: and carries them out, too.
    pub(crate) fn answers(
        &self,
        works: bool,
        answers: impl Fn(&Seen) -> Option<Response<Flow>> + Send + Sync + 'static,
    ) {
        self.manners.choice.works.store(works, Ordering::SeqCst);
        *self.manners.choice.answers.lock().unwrap() = Some(Arc::new(answers));
    }

    /// Ends [`Server::answers`].
    pub(crate) fn answers_as_ever(&self) {
        *self.manners.choice.answers.lock().unwrap() = None;
    }

    pub(crate) fn cuts_body_after(&self, count: Option<usize>) {
        self.manners.cut.store(count.map_or(0, |count| count + 1), Ordering::SeqCst);
    }

    pub(crate) fn speaks_http2(&self, streams: usize) {
        self.manners.http2.store(streams, Ordering::SeqCst);
    }

    pub(crate) fn refuses_streams(&self, count: usize) {
        self.manners.refuses.store(count, Ordering::SeqCst);
    }

    pub(crate) fn says_goodbye(&self) {
        self.manners.goodbye.send_replace(());
    }

    /// Closes listener and connections; the port refuses from here on.
    pub(crate) async fn goes_down(&self) {
        let task = self.accepting.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ended = task.await;
            *self.parked.lock().unwrap() = Some(socket(self.address));
        }
    }

    pub(crate) fn comes_up(&self) {
        if let Some(socket) = self.parked.lock().unwrap().take() {
            self.accept(socket.listen(1024).expect("listen again"));
        }
    }

    fn accept(&self, listener: TcpListener) {
        let (handler, manners) = (Arc::clone(&self.handler), Arc::clone(&self.manners));
        let (panics, requests) = (self.panics.clone(), Arc::clone(&self.requests));
        let task = tokio::spawn(async move {
            // Dropped with this task: so every connection ends with it.
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                manners.connections.fetch_add(1, Ordering::SeqCst);
                let desk = Desk {
                    handler: Arc::clone(&handler),
                    manners: Arc::clone(&manners),
                    panics: panics.clone(),
                    requests: Arc::clone(&requests),
                };
                connections.spawn(desk.serve(stream));
                while connections.try_join_next().is_some() {}
            }
        });
        *self.accepting.lock().unwrap() = Some(task);
    }
}

impl<H: Handler> Drop for Server<H> {
    fn drop(&mut self) {
        if let Some(task) = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        for request in self.requests.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            request.abort();
        }
    }
}

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
struct Desk<H: Handler> {
    handler: Arc<H>,
    manners: Arc<Manners>,
    panics: Panics,
    requests: Arc<Mutex<Vec<AbortHandle>>>,
}

impl<H: Handler> Desk<H> {
    async fn serve(self, stream: TcpStream) {
        let _best_effort = stream.set_nodelay(true);
        let resets = Arc::clone(&self.manners.resets);
        if resets.load(Ordering::SeqCst) {
            drop(ResetOnDrop::new(stream, resets));
            return;
        }
        let io = TokioIo::new(ResetOnDrop::new(stream, resets));
        let desk = Arc::new(self);
        let streams = u32::try_from(desk.manners.http2.load(Ordering::SeqCst)).unwrap_or(u32::MAX);
        let mut goodbye = desk.manners.goodbye.subscribe();
        let service = service_fn(move |request| {
            let desk = Arc::clone(&desk);
            async move { desk.answer(request).await }
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

/// A response with a length.
pub(crate) fn reply(status: u16, body: impl Into<Bytes>) -> Response<Flow> {
    response(status, Flow::sized(body))
}

/// A response with this body.
pub(crate) fn response(status: u16, body: Flow) -> Response<Flow> {
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    response
}
