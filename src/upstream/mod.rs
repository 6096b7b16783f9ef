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
mod pool;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::uri::{Authority, Scheme};
use hyper::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

pub use body::{Body, BodyError, Held};
pub use dial::{TlsError, client_tls};
pub use error::{Chain, UpstreamError};

use crate::config::settings;
use connection::{Connection, SendFailure};
use dial::Dialer;
use pool::Pool;

/// One server that we call. Shared by all routes that lead to it; cheap to use from many tasks.
#[derive(Debug)]
pub struct Upstream {
    scheme: Scheme,
    authority: Authority,
    dialer: Dialer,
    pool: Arc<Pool>,
    places: Arc<Semaphore>,
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
    ) -> Self {
        Self {
            scheme: url.scheme.clone(),
            authority: url.authority.clone(),
            dialer: Dialer::new(url, connect.cloned(), tls),
            pool: Arc::new(Pool::new(bounds.pool_idle, bounds.max_requests)),
            places: Arc::new(Semaphore::new(bounds.max_requests)),
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

    /// Requests in flight, waiting for a place not counted.
    pub fn in_flight(&self, bounds: &settings::Upstream) -> usize {
        bounds.max_requests.saturating_sub(self.places.available_permits())
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, UpstreamError> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        match timeout(self.queue_wait, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(UpstreamError::Busy),
        }
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
        match timeout(first_byte, connection.send(head, body)).await {
            Err(_) => Err(UpstreamError::FirstByteTimeout),
            Ok(Ok(answer)) => Ok(Ok((answer, connection))),
            Ok(Err(SendFailure::Unsent(body))) if may_repeat => Ok(Err(body)),
            Ok(Err(SendFailure::Stale)) if may_repeat => Ok(Err(Body::Empty)),
            Ok(Err(SendFailure::Unsent(_) | SendFailure::Stale)) => Err(UpstreamError::Closed),
            Ok(Err(SendFailure::Broken(error))) => Err(UpstreamError::Exchange(error)),
        }
    }

    fn stream(
        &self,
        (answer, connection): (Response<hyper::body::Incoming>, Connection),
        place: OwnedSemaphorePermit,
    ) -> Response<Body> {
        answer.map(|incoming| {
            Body::from_upstream(incoming, self.pool.lease(connection), place, self.body_timeout)
        })
    }
}
