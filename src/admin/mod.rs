//! Endpoints for operators: health, metrics, the API and the dashboard.
//!
//! [`Admin::handle`] takes a request through `auth` (rights) and `route` (endpoint); `queries` and `actions` answer as
//! JSON, `pages` as HTML, `broken` as both and as CSV. `events` is a live stream (SSE), `step_log` keeps the steps of the
//! last heals.

mod actions;
mod answer;
mod auth;
mod broken;
mod chart;
mod collections;
mod events;
mod format;
mod health;
mod labels;
mod overview;
mod pages;
mod queries;
mod route;
mod step_log;
mod token_attempts;

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use ipnet::IpNet;
use tokio::sync::{Semaphore, watch};

pub use auth::{AdminAuth, AdminAuthError};
pub use step_log::HealStepLog;

use crate::cache::CacheState;
use crate::config::{Reload, Settings};
use crate::heal::Healer;
use crate::index::Index;
use crate::observe::{EventKind, Metrics, ScrapeFormat};
use crate::setup::SetupStatus;
use crate::upstream::{Body, Upstream};
use answer::{ApiProblem, text};
use route::AdminRoute;

/// The description of the API (OpenAPI 3.1).
const OPENAPI: &str = include_str!("openapi.json");

/// Services and settings that the admin pages read.
#[derive(Debug, Clone)]
pub struct AdminState {
    /// The settings in use.
    pub settings: Arc<Settings>,
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
    /// The index.
    pub index: Arc<Index>,
    /// The healer.
    pub healer: Healer,
    /// Cache of image servers' answers.
    pub cache: CacheState,
    /// Upstreams in the order of `settings.routes`.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Findings of the last setup check.
    pub setup: SetupStatus,
    /// Reload of the configuration.
    pub reload: Option<Reload>,
    /// Steps of the last heals.
    pub step_log: HealStepLog,
    /// Turns true when live streams must end.
    pub stopping: watch::Receiver<bool>,
}

/// Operator that sends a request.
#[derive(Debug, Clone, Copy)]
pub struct Operator {
    /// Address of the peer, or of the client behind a trusted proxy.
    pub peer: SocketAddr,
    /// True with a certificate of `[admin] client_ca`.
    pub certified: bool,
}

/// The admin pages. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    state: Arc<AdminState>,
    auth: Arc<AdminAuth>,
    live_streams: Arc<Semaphore>,
}

impl Admin {
    /// Creates the admin pages over this state, behind this authentication.
    pub fn new(state: AdminState, auth: AdminAuth) -> Self {
        let live_streams = Arc::new(Semaphore::new(state.settings.admin.max_live));
        Self { state: Arc::new(state), auth: Arc::new(auth), live_streams }
    }

    /// Replaces the state, and the authentication if there is a new one.
    #[must_use]
    pub fn with(&self, state: AdminState, auth: Option<AdminAuth>) -> Self {
        let auth = auth.map(|auth| Arc::new(auth.after(&self.auth)));
        let auth = auth.unwrap_or_else(|| Arc::clone(&self.auth));
        Self { state: Arc::new(state), auth, live_streams: Arc::clone(&self.live_streams) }
    }

    /// Proxies whose `X-Forwarded-*` and `Forwarded` fields are trusted.
    pub fn trusted_proxies(&self) -> &[IpNet] {
        &self.state.settings.server.trusted_proxies
    }

    /// Answers one request.
    pub async fn handle(&self, operator: Operator, request: Request<Incoming>) -> Response<Body> {
        let is_browser = accept(&request).contains("text/html");
        let mut response = match self.answer(operator, request).await {
            Ok(response) => response,
            Err(problem) if is_browser => {
                let page = pages::problem(&problem);
                problem.with_page(page)
            }
            Err(problem) => problem.into_response(),
        };
        let fields = response.headers_mut();
        fields.entry(header::CACHE_CONTROL).or_insert(answer::NO_STORE);
        fields.insert(header::X_CONTENT_TYPE_OPTIONS, answer::NOSNIFF);
        fields.insert(header::CONTENT_SECURITY_POLICY, answer::POLICY);
        fields.insert(header::REFERRER_POLICY, answer::SAME_ORIGIN);
        response
    }

    async fn answer(
        &self,
        operator: Operator,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, ApiProblem> {
        let asked = route::parse(request.uri().path());
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        match asked {
            Some(AdminRoute::Live) if is_read => return Ok(text(StatusCode::OK, "alive\n")),
            Some(AdminRoute::Ready) if is_read => return Ok(text(StatusCode::OK, &self.ready())),
            _ => {}
        }
        let counted = |problem: ApiProblem| {
            self.count(&problem);
            problem
        };
        self.auth.authorize(&request, &operator).map_err(counted)?;
        let query = request.uri().query().unwrap_or_default();
        match asked.ok_or_else(|| ApiProblem::not_found("there is no such page"))? {
            AdminRoute::Act(act) if *request.method() == Method::POST => {
                self.auth.authorize_action(&request).map_err(counted)?;
                self.act(act, operator.peer, request).await
            }
            AdminRoute::Act(_) => Err(ApiProblem::method("POST")),
            _ if !is_read => Err(ApiProblem::method("GET, HEAD")),
            AdminRoute::Metrics => {
                let format = ScrapeFormat::accepted(accept(&request));
                Ok(answer::typed(format.content_type(), self.state.metrics.scrape_as(format)))
            }
            AdminRoute::Description => Ok(answer::typed("application/json", OPENAPI)),
            AdminRoute::Events => self.events().map_err(counted),
            AdminRoute::Broken => broken::api(&self.state, query, accept(&request)).await,
            AdminRoute::Page(page) => self.page(page, query).await,
            AdminRoute::Asset(kind, text) => Ok(answer::typed(kind, text)),
            AdminRoute::Read(read) => self.read(read, query).await,
            AdminRoute::Live | AdminRoute::Ready => Err(ApiProblem::not_found("there is no such page")),
        }
    }

    /// Text of `/readyz`. A proxy whose sockets are bound passes traffic from the first moment, index or not.
    ///
    /// SECURITY: every client may read it, so it names degraded parts without reasons, which hold paths and addresses.
    fn ready(&self) -> String {
        let (mut text, AdminState { settings, metrics, .. }) = ("ready\n".to_owned(), &*self.state);
        let is_alone = !settings.cluster.urls.is_empty() && metrics.cluster_connected.get() == 0;
        let parts = metrics.edge.degraded.parts();
        for part in parts.keys().copied().chain(is_alone.then_some("cluster")) {
            text.push_str("degraded: ");
            text.push_str(part);
            text.push('\n');
        }
        text
    }

    /// Counts and logs a refusal: a wrong token, too many acts, another site's page.
    fn count(&self, problem: &ApiProblem) {
        let metrics = &self.state.metrics;
        if problem.status() == StatusCode::TOO_MANY_REQUESTS {
            metrics.event(EventKind::AdminTooMany);
        } else {
            metrics.event(EventKind::AdminRefused);
        }
    }
}

/// The field `Accept`, or an empty text.
fn accept(request: &Request<Incoming>) -> &str {
    request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
