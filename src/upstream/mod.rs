//! Requests to upstream servers: load balancing, dialling, kept-alive connections, limits and deadlines.
//!
//! Only this module opens connections to upstreams. [`Upstream`] is one server or several under one name; [`guard`] decides
//! which canvas URLs may be requested at all; [`Body`] is the body type of the whole program.

mod active_health;
mod attempt;
mod balance;
mod body;
mod body_connection;
mod carrier;
mod client;
pub mod coding;
mod dial;
mod error;
mod exchange;
pub mod fetch;
mod fields;
mod framing;
pub mod guard;
mod held_response;
mod http1;
mod http2;
mod internal_request;
mod memory_budget;
mod otlp_client;
mod passive_health;
mod permits;
mod pool;
mod request_body;
mod response_body;
mod routes;
mod server;
mod tee;
mod transfer;
mod upgrade;
pub mod whole;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::uri::{Authority, Scheme};
use hyper::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

pub use body::{Body, BodyAbort};
pub use client::{Caller, Client, ClientConnection, ClientUpgrade, Clients, one_client};
pub use dial::{TlsError, client_tls};
pub use error::{BodyError, ErrorChain, UpstreamError};
pub(crate) use fields::{PARTIAL, connection_options};
pub use held_response::HeldResponse;
#[doc(hidden)]
pub use http1::read_answer;
pub use internal_request::{internal_request, server_of};
pub use memory_budget::{BudgetPermit, MemoryBudget};
pub use otlp_client::OtlpClient;
pub use request_body::{PIECE, pace};
pub use routes::Routing;
pub use server::ServerState;
pub use upgrade::{Tunnel, Upgrade};

use crate::config::settings::{self, Timeouts};
use crate::observe::{GaugeGuard, UpstreamMetrics};
use active_health::HealthCheck;
use attempt::Attempt;
use balance::TriedServers;
use dial::Dialer;
use permits::{ClientPermit, Permits};
use server::{SendError, UpstreamServer};
use transfer::{Release, Transfer};

/// The right to one request. Held until its answer was read to its end.
#[derive(Debug)]
struct RequestPermits {
    _upstream: UpstreamPermit,
    _client: Option<ClientPermit>,
    _counted: GaugeGuard,
}

/// A permit of an upstream.
#[derive(Debug)]
enum UpstreamPermit {
    /// A permit for a viewer's request.
    Viewer(#[expect(dead_code, reason = "free when dropped")] ClientPermit),
    /// A permit for a request of our own.
    Own(#[expect(dead_code, reason = "free when dropped")] OwnedSemaphorePermit),
}

/// Minimum of permits for our own requests (heals, probes, health checks), which have 1/4 as many as viewers.
const LEAST_OWN: usize = 4;

/// Upstream: one scheme, host and port, served by one server or several. Shared by all routes that lead there; cheap to use
/// from many tasks.
#[derive(Debug)]
pub struct Upstream {
    scheme: Scheme,
    authority: Authority,
    servers: Box<[Arc<UpstreamServer>]>,
    /// Position at which the choice among servers with the same load begins.
    turn: AtomicUsize,
    check: Option<HealthCheck>,
    permits: Arc<Permits>,
    own_permits: Arc<Semaphore>,
    queue_wait: Duration,
    /// The longest answer that is read at once, whether its client takes it or not.
    buffer: usize,
    meters: UpstreamMetrics,
}

impl Upstream {
    /// Makes an upstream for `url`; connections go to the servers at `connect` instead, where there are any. Does not dial.
    pub fn new(
        url: &settings::UpstreamUrl,
        connect: &[Authority],
        bounds: &settings::UpstreamSettings,
        tls: &Arc<rustls::ClientConfig>,
        meters: &UpstreamMetrics,
    ) -> Self {
        let server = |name: &Authority, connect: Option<&Authority>| {
            let dialer = Dialer::new(url, connect.cloned(), bounds, tls);
            Arc::new(UpstreamServer::new(
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
            permits: Permits::new(bounds.max_requests, meters.ended.clone()),
            own_permits: Arc::new(Semaphore::new((bounds.max_requests / 4).max(LEAST_OWN))),
            queue_wait: bounds.queue_wait,
            buffer: bounds.buffer,
            meters: meters.clone(),
        }
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Host and optional port as configured; the value of `Host` unless the viewer's is preserved.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// States of the servers, in the order of the configuration.
    pub fn servers(&self) -> Vec<ServerState> {
        self.servers.iter().map(|server| server.state()).collect()
    }

    /// Sends a request of our own. See [`send_for`](Self::send_for).
    pub async fn send(
        &self,
        head: &Parts,
        body: Body,
        times: Timeouts,
    ) -> Result<Response<Body>, UpstreamError> {
        self.send_for(&Caller::default(), head, body, times).await
    }

    /// Sends one request and returns its answer. For a viewer an answer of up to `upstream.buffer` bytes is read to its end
    /// first; any other answer is returned as soon as its head is there.
    ///
    /// `head` carries an origin-form target and a `Host`. If a server cannot be reached, the next one is tried: no byte was
    /// sent, so this holds for any request. A request whose connection turns out to be closed is sent once more, if its
    /// body is [`Body::Empty`] and no byte of an answer came (RFC 9110 section 9.2.2; [`Body::from_viewer`] says `Empty`
    /// for GET and HEAD only). After an answer the request is never repeated.
    pub async fn send_for(
        &self,
        caller: &Caller,
        head: &Parts,
        mut body: Body,
        times: Timeouts,
    ) -> Result<Response<Body>, UpstreamError> {
        if matches!(body, Body::Viewer(_)) {
            // Before the permit is taken: a slow upload would hold it without need.
            body = Box::pin(self.receive_upload(caller, body, times.body))
                .await
                .map_err(UpstreamError::Viewer)?;
        }
        let admission = self.admit(caller).await?;
        if let Some(transfer) = body.transfer() {
            self.watch(caller, &(Arc::clone(transfer) as _));
        }
        let mut attempt = Attempt::new(Some(admission));
        let mut tried = TriedServers::default();
        let mut last = UpstreamError::Closed;
        while let Some(load) = self.choose(&mut tried) {
            match attempt.ask(load, head, &mut body, &times).await {
                Ok(answer) => return Ok(self.receive(caller, answer, attempt, times.body).await),
                Err(SendError::Unreached(error)) => last = error,
                Err(SendError::Lost) => (last, attempt.is_repeated) = (UpstreamError::Closed, true),
                Err(SendError::Failed(error)) => return Err(error),
            }
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

    /// Waits for a permit of the caller's client, and keeps it for the caller's next request: a request without this permit
    /// must not hold anything else for which others wait.
    pub async fn admit_client(&self, caller: &Caller) -> Result<Caller, UpstreamError> {
        let (Some(client), Some(kind)) = (caller.bounded(), caller.kind()) else { return Ok(caller.clone()) };
        let permit = client.permits().acquire(kind, || None, self.queue_wait).await;
        Ok(caller.with_permit(permit.ok_or(UpstreamError::Busy)?))
    }

    /// Waits for the permits of one request: first for a permit of its client, so that a client with too many requests waits
    /// only for its own.
    async fn admit(&self, caller: &Caller) -> Result<RequestPermits, UpstreamError> {
        let Some(kind) = caller.kind() else {
            let own = Arc::clone(&self.own_permits).acquire_owned();
            let permit = timeout(self.queue_wait, own).await.ok().and_then(Result::ok);
            let permit = UpstreamPermit::Own(permit.ok_or(UpstreamError::Busy)?);
            return Ok(RequestPermits { _upstream: permit, _client: None, _counted: self.counted() });
        };
        let client = match caller.bounded() {
            None => None,
            Some(client) => {
                let permit = match caller.take_permit() {
                    own @ Some(_) => own,
                    None => client.permits().acquire(kind, || None, self.queue_wait).await,
                };
                Some(permit.ok_or(UpstreamError::Busy)?)
            }
        };
        let load = || caller.client().map(|client| Arc::clone(client) as _);
        let permit = self.permits.acquire(kind, load, self.queue_wait).await;
        let permit = UpstreamPermit::Viewer(permit.ok_or(UpstreamError::Busy)?);
        Ok(RequestPermits { _upstream: permit, _client: client, _counted: self.counted() })
    }

    fn counted(&self) -> GaugeGuard {
        GaugeGuard::inc(&self.meters.in_flight)
    }

    /// Registers a transfer to be ended when others wait for its permits while it waits for its client.
    fn watch(&self, caller: &Caller, transfer: &Arc<Transfer<dyn Release>>) {
        if caller.kind().is_some() {
            self.permits.watch(transfer);
        }
        if let Some(client) = caller.bounded() {
            client.permits().watch(transfer);
        }
    }
}
