//! A server that we call: dialling, a pool of kept-alive connections, bounds and deadlines.
//!
//! Only this room opens connections. [`Upstream`] is one server, [`guard`] decides which canvas URLs may be
//! asked for at all, [`Body`] is the one body type of the whole program.

mod body;
mod connection;
mod dial;
mod error;
pub mod fetch;
pub mod guard;
mod held;
mod pool;
mod upload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use hyper::Response;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

pub use body::{Body, BodyError, Break};
pub use dial::{TlsError, client_tls};
pub use error::{Chain, UpstreamError};
pub use held::Held;

use crate::config::settings;
use crate::observe::Gauged;
use connection::{Connection, SendFailure};
use dial::Dialer;
use pool::Pool;

/// One of the requests that an upstream gets at once. Held until the end of its answer.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    _counted: Gauged,
}

/// One server that we call. Shared by all routes that lead to it; cheap to use from many tasks.
#[derive(Debug)]
pub struct Upstream {
    scheme: Scheme,
    authority: Authority,
    dialer: Dialer,
    pool: Arc<Pool>,
    places: Arc<Semaphore>,
    busy: Gauge,
    connect_timeout: Duration,
    body_timeout: Duration,
    queue_wait: Duration,
}

impl Upstream {
    /// An upstream at `url`; connections go to `connect` instead, where it is set. Nothing is dialled yet.
    pub fn new(
        url: &settings::UpstreamUrl,
        connect: Option<&Authority>,
        bounds: &settings::Upstream,
        tls: &Arc<rustls::ClientConfig>,
        busy: Gauge,
    ) -> Self {
        Self {
            scheme: url.scheme.clone(),
            authority: url.authority.clone(),
            dialer: Dialer::new(url, connect.cloned(), tls),
            pool: Arc::new(Pool::new(bounds.pool_idle, bounds.max_requests)),
            places: Arc::new(Semaphore::new(bounds.max_requests)),
            busy,
            connect_timeout: bounds.connect_timeout,
            body_timeout: bounds.body_timeout,
            queue_wait: bounds.queue_wait,
        }
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Host and optional port as configured; what `Host` says unless the viewer's is preserved.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Sends one request and gives its answer as soon as the head is there; the body streams.
    ///
    /// `head` carries an origin-form target and a `Host`. A request whose kept-alive connection turns out to
    /// have been closed under it is sent once more on a new one: always if it was never written, and if it was,
    /// then only when its body is [`Body::Empty`] and no byte of an answer came (RFC 9110 section 9.2.2;
    /// [`Body::from_viewer`] says `Empty` for GET and HEAD only).
    pub async fn send(
        &self,
        head: &Parts,
        body: Body,
        first_byte: Duration,
    ) -> Result<Response<Body>, UpstreamError> {
        let place = self.place().await?;
        let body = match self.pool.take() {
            None => body,
            Some(connection) => match self.exchange(connection, head, body, first_byte).await? {
                Ok(answer) => return Ok(self.stream(answer, place)),
                Err(unsent) => unsent,
            },
        };
        let connection = timeout(self.connect_timeout, self.dialer.dial())
            .await
            .map_err(|_| UpstreamError::ConnectTimeout)??;
        match self.exchange(connection, head, body, first_byte).await? {
            Ok(answer) => Ok(self.stream(answer, place)),
            Err(_) => Err(UpstreamError::Closed),
        }
    }

    /// Closes connections that were not used for a while. Call it every few seconds.
    pub fn prune(&self) {
        self.pool.prune(Instant::now());
    }

    async fn place(&self) -> Result<Place, UpstreamError> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => match timeout(self.queue_wait, Arc::clone(&self.places).acquire_owned()).await {
                Ok(Ok(permit)) => permit,
                _ => return Err(UpstreamError::Busy),
            },
        };
        Ok(Place { _permit: permit, _counted: Gauged::one(&self.busy) })
    }

    /// One request on one connection. The inner `Err` gives the body back: nothing was answered, and the same
    /// request may go out once more.
    async fn exchange(
        &self,
        mut connection: Connection,
        head: &Parts,
        body: Body,
        first_byte: Duration,
    ) -> Result<Result<(Response<hyper::body::Incoming>, Connection), Body>, UpstreamError> {
        let may_repeat = connection.is_reused();
        match connection.send(head, body, self.body_timeout, first_byte).await {
            Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => Err(UpstreamError::Switched),
            Ok(answer) => Ok(Ok((answer, connection))),
            Err(SendFailure::Unsent(body)) if may_repeat => Ok(Err(body)),
            Err(SendFailure::Stale) if may_repeat => Ok(Err(Body::Empty)),
            Err(SendFailure::Unsent(_) | SendFailure::Stale) => Err(UpstreamError::Closed),
            Err(SendFailure::Late) => Err(UpstreamError::FirstByteTimeout),
            Err(SendFailure::Viewer(error)) => Err(UpstreamError::Viewer(error)),
            Err(SendFailure::Broken(error)) => Err(UpstreamError::Exchange(error)),
        }
    }

    fn stream(
        &self,
        (mut answer, connection): (Response<hyper::body::Incoming>, Connection),
        place: Place,
    ) -> Response<Body> {
        // SECURITY: where both stand, the length is wrong (RFC 9112 section 6.3), and hyper would believe it.
        if answer.headers().contains_key(TRANSFER_ENCODING) {
            answer.headers_mut().remove(CONTENT_LENGTH);
        }
        answer.map(|incoming| {
            Body::from_upstream(incoming, self.pool.lease(connection), place, self.body_timeout)
        })
    }
}
