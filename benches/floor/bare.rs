//! The least that a proxy made of hyper can be: what `benches/compare.py --bare` shows beside iiif-mender.
//!
//! One thread, a server and a client of hyper, the warmest connection first, read buffers as ours. No route, no rule for
//! any field, no deadline, no bound, no metric, no heal. What it costs is what no proxy of hyper's HTTP/1.1 can be under.
//!
//! ```text
//! bare LISTEN UPSTREAM          as in `bare 127.0.0.1:18085 127.0.0.1:18080`
//! ```

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// As in `src/upstream/connection.rs`.
const READ_BUFFER: usize = 64 * 1024;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Sender = SendRequest<Empty<Bytes>>;

struct Upstream {
    address: SocketAddr,
    idle: Mutex<Vec<Sender>>,
}

/// An answer's body; gives its connection back at its end.
struct Answer {
    body: Incoming,
    carrier: Option<(Arc<Upstream>, Sender)>,
}

impl Upstream {
    fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|sender| !sender.is_closed())
    }

    fn give_back(&self, sender: Sender) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
    }

    #[expect(clippy::disallowed_methods, reason = "it is all the upstream there is here")]
    async fn dial(&self) -> Result<Sender, Failure> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, driver) =
            Builder::new().read_buf_exact_size(Some(READ_BUFFER)).handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        Ok(sender)
    }

    async fn ask(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Answer>, Failure> {
        let (mut head, _) = request.into_parts();
        let target = head.uri.path_and_query().cloned();
        head.uri = target.map_or_else(|| Uri::from_static("/"), Uri::from);
        let mut sender = match self.take() {
            Some(sender) => sender,
            None => self.dial().await?,
        };
        sender.ready().await?;
        let answer = sender.send_request(Request::from_parts(head, Empty::new())).await?;
        Ok(answer.map(|body| Answer { body, carrier: Some((self, sender)) }))
    }
}

impl Answer {
    fn ends(&mut self) {
        if let Some((upstream, sender)) = self.carrier.take() {
            upstream.give_back(sender);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if self.body.is_end_stream() {
            self.ends();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let (Some(listen), Some(upstream)) = (words.next(), words.next()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "bare LISTEN UPSTREAM").into());
    };
    let upstream = Arc::new(Upstream { address: upstream.parse()?, idle: Mutex::default() });
    let listener = TcpListener::bind(&listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let upstream = Arc::clone(&upstream);
        tokio::spawn(async move {
            let service = service_fn(|request| Arc::clone(&upstream).ask(request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
