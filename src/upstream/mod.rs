//! Servers that we call: which of them, dialling, kept-alive connections, bounds and deadlines.
//!
//! Only this room opens connections. [`Upstream`] is what one name stands for, one server or several; [`guard`]
//! decides which canvas URLs may be asked for at all, [`Body`] is the one body type of the whole program.

mod body;
mod check;
mod choice;
pub mod coding;
mod collector;
mod connection;
mod dial;
mod error;
pub mod fetch;
pub mod guard;
mod health;
mod held;
mod lease;
mod own;
mod pool;
mod routes;
mod server;
mod tee;
mod trunk;
mod upload;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use hyper::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

pub use body::{Body, BodyError, Break};
pub use collector::Collector;
pub use dial::{TlsError, client_tls};
pub use error::{Chain, UpstreamError};
pub use health::Standing;
pub use held::{Budget, Held, Share};
pub use own::{own_request, server_of};
pub use server::ServerState;

use crate::config::settings::{self, Timeouts};
use crate::observe::{Gauged, UpstreamMeters};
use check::Check;
use choice::Tried;
use dial::Dialer;
use lease::Lease;
use server::{Answered, Load, Miss, Server};

/// One of the requests that an upstream gets at once. Held until the end of its answer.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    _counted: Gauged,
}

/// What one scheme, host and port stand for: one server or several. Shared by all routes that lead there; cheap to
/// use from many tasks.
#[derive(Debug)]
pub struct Upstream {
    scheme: Scheme,
    authority: Authority,
    servers: Box<[Arc<Server>]>,
    /// Where the choice among servers with the same load begins.
    turn: AtomicUsize,
    check: Option<Check>,
    places: Arc<Semaphore>,
    queue_wait: Duration,
    meters: UpstreamMeters,
}

impl Upstream {
    /// An upstream at `url`; connections go to the servers at `connect` instead, where there are any. Nothing is
    /// dialled yet.
    pub fn new(
        url: &settings::UpstreamUrl,
        connect: &[Authority],
        bounds: &settings::Upstream,
        tls: &Arc<rustls::ClientConfig>,
        meters: &UpstreamMeters,
    ) -> Self {
        let server = |name: &Authority, connect: Option<&Authority>| {
            let dialer = Dialer::new(url, connect.cloned(), bounds, tls);
            Arc::new(Server::new(
                name.clone(),
                (url.scheme.clone(), url.authority.clone()),
                dialer,
                bounds,
                meters.clone(),
            ))
        };
        let servers = if connect.is_empty() {
            Box::from([server(&url.authority, None)])
        } else {
            connect.iter().map(|address| server(address, Some(address))).collect()
        };
        Self {
            scheme: url.scheme.clone(),
            authority: url.authority.clone(),
            servers,
            turn: AtomicUsize::new(0),
            check: None,
            places: Arc::new(Semaphore::new(bounds.max_requests)),
            queue_wait: bounds.queue_wait,
            meters: meters.clone(),
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

    /// How its servers stand, in the order of the configuration.
    pub fn servers(&self) -> Vec<ServerState> {
        self.servers.iter().map(|server| server.state()).collect()
    }

    /// Sends one request and gives its answer as soon as the head is there; the body streams.
    ///
    /// `head` carries an origin-form target and a `Host`. A server that cannot be reached is passed over for the
    /// next one: nothing was sent, so that is so for any request. A request whose connection was closed under it
    /// is sent once more, if its body is [`Body::Empty`] and no byte of an answer came (RFC 9110 section 9.2.2;
    /// [`Body::from_viewer`] says `Empty` for GET and HEAD only). An answer is never asked for again.
    pub async fn send(
        &self,
        head: &Parts,
        mut body: Body,
        times: Timeouts,
    ) -> Result<Response<Body>, UpstreamError> {
        let place = self.place().await?;
        let (mut tried, mut repeated) = (Tried::default(), false);
        let mut last = UpstreamError::Closed;
        while let Some(load) = self.choose(&mut tried) {
            match load.ask(head, &mut body, &times, &mut repeated).await {
                Ok(answered) => return Ok(stream(answered, load, place, times.body)),
                Err(Miss::Unreached(error)) => last = error,
                Err(Miss::Lost) => (last, repeated) = (UpstreamError::Closed, true),
                Err(Miss::Failed(error)) => return Err(error),
            }
            self.meters.retried("next_server");
        }
        Err(last)
    }

    /// Closes connections that were not used for a while, and tries servers that are out. Call it every few seconds.
    pub fn prune(&self) {
        let now = Instant::now();
        for server in &self.servers {
            server.prune(now);
            server.try_again(now);
        }
    }

    async fn place(&self) -> Result<Place, UpstreamError> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => match timeout(self.queue_wait, Arc::clone(&self.places).acquire_owned()).await {
                Ok(Ok(permit)) => permit,
                _ => return Err(UpstreamError::Busy),
            },
        };
        Ok(Place { _permit: permit, _counted: Gauged::one(&self.meters.in_flight) })
    }
}

fn stream((mut answer, carrier): Answered, load: Load, place: Place, silence: Duration) -> Response<Body> {
    // SECURITY: where both stand, the length is wrong (RFC 9112 section 6.3), and hyper would believe it.
    if answer.headers().contains_key(TRANSFER_ENCODING) {
        answer.headers_mut().remove(CONTENT_LENGTH);
    }
    answer.map(|incoming| Body::from_upstream(incoming, Lease::new(carrier, load), Some(place), silence))
}
