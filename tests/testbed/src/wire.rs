//! Server of the stand-ins: one hyper server, on port 0 unless told otherwise, with the faults that every server can show.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

use crate::connection::Connection;
use crate::flow::Flow;
use crate::gate::Gate;

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
pub trait Handler: Send + Sync + 'static {
    /// Answers a request.
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
pub(crate) struct Choice {
    answers: Mutex<Option<Arc<Chosen>>>,
    /// True if the request is still carried out.
    pub(crate) works: AtomicBool,
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a closure")
    }
}

impl Choice {
    fn set(&self, works: bool, answers: Arc<Chosen>) {
        self.works.store(works, Ordering::SeqCst);
        *self.answers.lock().unwrap() = Some(answers);
    }

    pub(crate) fn of(&self, seen: &Seen) -> Option<Response<Flow>> {
        let answers = self.answers.lock().unwrap().clone();
        answers.and_then(|answers| answers(seen))
    }
}

/// The misbehaviour that any server can be switched to.
#[derive(Debug, Default)]
pub(crate) struct Manners {
    pub(crate) choice: Choice,
    pub(crate) gate: Gate,
    pub(crate) resets: Arc<AtomicBool>,
    /// 0 = whole bodies; else one more than the bytes that get through.
    pub(crate) cut: AtomicUsize,
    pub(crate) connections: AtomicUsize,
    /// Requests at once on an HTTP/2 connection; 0: HTTP/1.1 is spoken.
    pub(crate) http2: AtomicUsize,
    /// Number of HTTP/2 requests that are still to be refused.
    pub(crate) refuses: AtomicUsize,
    /// Every HTTP/2 connection that is older says GOAWAY.
    pub(crate) goodbye: tokio::sync::watch::Sender<()>,
}

/// Default listening address of a stand-in: a port of its own.
pub(crate) const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A server, and the misbehaviour that it can be switched to; it ends when dropped.
#[derive(Debug)]
pub struct Server<H: Handler> {
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

    /// Listening address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:{port}`
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.manners.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn panics(&self) -> &Panics {
        &self.panics
    }

    /// Takes requests (and works on them) and never answers, until it is released.
    pub fn hangs(&self) {
        self.manners.gate.shut();
    }

    /// Ends [`Server::hangs`].
    pub(crate) fn goes_on(&self) {
        self.manners.gate.open();
    }

    /// Every connection ends with RST instead of an answer.
    pub fn resets(&self) {
        self.manners.resets.store(true, Ordering::SeqCst);
    }

    /// Every body breaks off after so many bytes.
    pub fn cuts_body_after(&self, count: usize) {
        self.manners.cut.store(count + 1, Ordering::SeqCst);
    }

    /// Ends [`Server::resets`] and [`Server::cuts_body_after`].
    pub(crate) fn behaves(&self) {
        self.manners.resets.store(false, Ordering::SeqCst);
        self.manners.cut.store(0, Ordering::SeqCst);
    }

    /// Answers these requests so, and does nothing else for them, until [`Server::answers_as_ever`].
    pub fn answers(&self, answers: impl Fn(&Seen) -> Option<Response<Flow>> + Send + Sync + 'static) {
        self.manners.choice.set(false, Arc::new(answers));
    }

    /// Answers in this way, and does what the request asked for nevertheless.
    pub fn does_and_answers(
        &self,
        answers: impl Fn(&Seen) -> Option<Response<Flow>> + Send + Sync + 'static,
    ) {
        self.manners.choice.set(true, Arc::new(answers));
    }

    /// Ends [`Server::answers`].
    pub fn answers_as_ever(&self) {
        *self.manners.choice.answers.lock().unwrap() = None;
    }

    /// Makes new connections HTTP/2 with prior knowledge, with so many requests at once.
    pub fn speaks_http2(&self, streams: usize) {
        self.manners.http2.store(streams, Ordering::SeqCst);
    }

    /// Refuses the next `count` requests by HTTP/2 (`REFUSED_STREAM`), unprocessed.
    pub fn refuses_streams(&self, count: usize) {
        self.manners.refuses.store(count, Ordering::SeqCst);
    }

    /// Every HTTP/2 connection ends as soon as its requests do (GOAWAY).
    pub fn says_goodbye(&self) {
        self.manners.goodbye.send_replace(());
    }

    /// Refuses connections; those open are closed.
    pub async fn goes_down(&self) {
        let task = self.accepting.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ended = task.await;
            *self.parked.lock().unwrap() = Some(socket(self.address));
        }
    }

    /// Listens again, at the same port. What the server knows is as it was.
    pub fn comes_up(&self) {
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
                let connection = Connection {
                    handler: Arc::clone(&handler),
                    manners: Arc::clone(&manners),
                    panics: panics.clone(),
                    requests: Arc::clone(&requests),
                };
                connections.spawn(connection.serve(stream));
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
