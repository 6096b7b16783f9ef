//! A server of an upstream: its address, its connections and its health.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use http::request::Parts;
use http::uri::{Authority, Scheme};
use hyper::Response;
use tokio::time::timeout;

use super::body::Body;
use super::carrier::ActiveConnection;
use super::dial::Dialer;
use super::error::{SendFailure, UpstreamError};
use super::http1::Http1Connection;
use super::http2::Http2Pool;
use super::passive_health::{PassiveHealth, ServerStatus};
use super::pool::Pool;
use crate::config::settings::{self, Timeouts};
use crate::observe::UpstreamMetrics;

/// A server of an upstream.
#[derive(Debug)]
pub(super) struct UpstreamServer {
    /// `host:port` as configured: its name in metrics and logs.
    name: Authority,
    /// The upstream that it belongs to.
    upstream: Authority,
    dialer: Dialer,
    pool: Pool,
    http2: Http2Pool,
    /// Requests that it has, until the end of their answers.
    load: AtomicUsize,
    health: PassiveHealth,
    connect_timeout: Duration,
    pub(super) meters: UpstreamMetrics,
}

/// State of one server.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ServerState {
    /// The upstream that it belongs to: host and port of its URL.
    pub upstream: String,
    /// Address, `host:port`.
    pub server: String,
    /// Status: `up`, `trial` or `out`.
    pub standing: &'static str,
    /// Failures in a row.
    pub failures: u32,
    /// Requests that it has, until the end of their answers.
    pub in_flight: usize,
    /// HTTP/1.1 connections that wait for a request.
    pub idle_connections: usize,
    /// HTTP/2 connections.
    pub shared_connections: usize,
}

/// Reason why one server gave no answer, and what may be done.
#[derive(Debug)]
pub(super) enum SendError {
    /// Not sent: another server may have the request. Its body is whole.
    Unreached(UpstreamError),
    /// The connection broke under a request without a body before any byte of an answer: another server may have
    /// it, once (RFC 9110 section 9.2.2).
    Lost,
    /// The request fails.
    Failed(UpstreamError),
}

/// A request that a server has: counts until it is dropped.
#[derive(Debug)]
pub(super) struct InFlightGuard(Arc<UpstreamServer>);

impl InFlightGuard {
    pub(super) fn on(server: &Arc<UpstreamServer>) -> Self {
        server.load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(server))
    }
}

impl InFlightGuard {
    pub(super) fn server(&self) -> Arc<UpstreamServer> {
        Arc::clone(&self.0)
    }
}

impl Deref for InFlightGuard {
    type Target = Arc<UpstreamServer>;

    fn deref(&self) -> &Arc<UpstreamServer> {
        &self.0
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

impl UpstreamServer {
    pub(super) fn new(
        name: Authority,
        (scheme, upstream): (Scheme, Authority),
        dialer: Dialer,
        bounds: &settings::UpstreamSettings,
        meters: UpstreamMetrics,
    ) -> Self {
        meters.set_server_up(&upstream, &name, true);
        Self {
            name,
            upstream,
            dialer,
            pool: Pool::new(bounds.pool_idle, bounds.pool_max_age, bounds.max_requests),
            http2: Http2Pool::new(scheme, bounds),
            load: AtomicUsize::new(0),
            health: PassiveHealth::new(bounds.health),
            connect_timeout: bounds.connect_timeout,
            meters,
        }
    }

    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// True if the server may get a request. On trial it gets one at a time.
    pub(super) fn is_fit(&self) -> bool {
        match self.health.status() {
            ServerStatus::Up => true,
            ServerStatus::Trial => self.load() == 0,
            ServerStatus::Out => false,
        }
    }

    pub(super) fn state(&self) -> ServerState {
        ServerState {
            upstream: self.upstream.to_string(),
            server: self.name.to_string(),
            standing: self.health.status().as_str(),
            failures: self.health.failures(),
            in_flight: self.load(),
            idle_connections: self.pool.len(),
            shared_connections: self.http2.len(),
        }
    }

    /// Sends a request on a connection of its own, in HTTP/1.1, which may go on in another protocol.
    pub(super) async fn ask_alone(
        &self,
        head: &Parts,
        times: &Timeouts,
    ) -> Result<(Response<()>, Http1Connection), SendError> {
        let dialled = timeout(times.connect, self.dialer.dial_alone()).await;
        let dialled = dialled.unwrap_or(Err(UpstreamError::ConnectTimeout));
        let mut connection = dialled.map_err(|error| {
            self.record_failure();
            SendError::Unreached(error)
        })?;
        let sent = connection.send(head, &mut Body::Empty, times).await;
        let answer = sent.map_err(|failure| self.record_miss(failure))?;
        let changed = self.health.record_success();
        self.update_gauge(changed);
        Ok((answer, connection))
    }

    pub(super) fn answered(&self, answer: Response<()>) -> Result<Response<()>, SendError> {
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(SendError::Failed(UpstreamError::Switched));
        }
        let changed = self.health.record_success();
        self.update_gauge(changed);
        Ok(answer)
    }

    pub(super) fn record_miss(&self, failure: SendFailure) -> SendError {
        let error = match failure {
            SendFailure::Viewer(error) => return SendError::Failed(UpstreamError::Viewer(error)),
            SendFailure::Framing(error) => return SendError::Failed(error),
            SendFailure::Target => return SendError::Failed(UpstreamError::Target),
            SendFailure::Unsent | SendFailure::Stale | SendFailure::Ended => UpstreamError::Closed,
            SendFailure::Late => UpstreamError::FirstByteTimeout,
            SendFailure::Broken(error) => UpstreamError::Exchange(error),
        };
        self.record_failure();
        SendError::Failed(error)
    }

    /// A connection that is open already and may carry one more request.
    pub(super) fn checkout(&self) -> Option<ActiveConnection> {
        self.http2
            .take()
            .map(ActiveConnection::Shared)
            .or_else(|| self.pool.checkout().map(ActiveConnection::Own))
    }

    /// Takes a new connection, or one that becomes free in the meantime. A task opens it: when the request is given up, the
    /// connection serves the next one. (One client that resets its streams caused 12,000 dials in 5 s without that.)
    pub(super) async fn carrier(self: &Arc<Self>, time: Duration) -> Result<ActiveConnection, UpstreamError> {
        let (dialled, dial) = self.pool.wait();
        if let Some(dial) = dial {
            let server = Arc::clone(self);
            tokio::spawn(async move {
                let dialled = server.new_carrier(time).await;
                server.pool.dialled(dial, dialled);
            });
        }
        dialled.await.unwrap_or(Err(UpstreamError::Closed))
    }

    /// Opens a connection that carried no request yet.
    pub(super) async fn new_carrier(&self, time: Duration) -> Result<ActiveConnection, UpstreamError> {
        timeout(time, self.dial()).await.unwrap_or(Err(UpstreamError::ConnectTimeout))
    }

    /// Opens a connection, or shares one that another request has opened, where that is possible.
    async fn dial(&self) -> Result<ActiveConnection, UpstreamError> {
        if self.http2.may_be_used() {
            let dialling = self.http2.dialling.lock().await;
            if let Some(stream) = self.http2.take() {
                return Ok(ActiveConnection::Shared(stream));
            }
            if self.http2.may_be_used() {
                return self.dialer.dial(&self.http2).await;
            }
            drop(dialling);
        }
        self.dialer.dial(&self.http2).await
    }

    /// Returns a connection whose answer was read to its end.
    pub(super) fn give_back(&self, connection: Box<Http1Connection>) {
        self.pool.checkin(connection);
    }

    /// Closes connections that were not used for a while.
    pub(super) fn prune(&self, now: Instant) {
        self.pool.prune(now);
        self.http2.prune();
    }

    /// Dials a server that is out, if its pause is over; in the background, no request waits for it.
    pub(super) fn try_again(self: &Arc<Self>, now: Instant) {
        if !self.health.is_due(now) {
            return;
        }
        let server = Arc::clone(self);
        tokio::spawn(async move {
            let dialled = server.carrier(server.connect_timeout).await;
            let changed = server.health.record_dial(dialled.is_ok(), Instant::now());
            // A shared connection is kept already.
            if let Ok(ActiveConnection::Own(connection)) = dialled {
                server.pool.keep(connection);
            }
            server.update_gauge(changed);
        });
    }

    pub(super) fn record_failure(&self) {
        let changed = self.health.record_failure(Instant::now());
        self.update_gauge(changed);
    }

    /// Records the result of an active check.
    pub(super) fn checked(&self, good: bool) {
        let changed = self.health.record_check(good);
        self.update_gauge(changed);
    }

    fn update_gauge(&self, changed: Option<ServerStatus>) {
        let (upstream, server) = (&self.upstream, &self.name);
        match changed {
            None => return,
            Some(ServerStatus::Up) => tracing::info!(%upstream, %server, "the server is in again"),
            Some(ServerStatus::Trial) => {
                tracing::info!(%upstream, %server, "the server can be reached again and is tried");
                return;
            }
            Some(ServerStatus::Out) => {
                tracing::warn!(%upstream, %server, "the server only fails: it is passed over ([upstream.health])");
            }
        }
        self.meters.set_server_up(upstream, server, changed == Some(ServerStatus::Up));
    }
}
