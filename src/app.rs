//! Builds the rooms, binds the sockets, serves, drains: the only file that knows them all.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::admin::Admin;
use crate::batch::command::Rooms;
use crate::config::{Settings, settings};
use crate::heal::Healer;
use crate::index::keeper::Keeper;
use crate::index::learn::Learner;
use crate::index::{Index, IndexError};
use crate::listen::{Bounds, Crew, Listener, Stop};
use crate::observe::{Metrics, SAMPLE_EVERY};
use crate::presentation::Presenter;
use crate::proxy::Proxy;
use crate::upstream::fetch::Web;
use crate::upstream::{Budget, Collector, TlsError, Upstream};

/// Why it could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket could not be bound.
    #[error("{0}; is another process listening there? See [server] listen and [admin] listen")]
    Listen(#[source] io::Error),
    /// A thread could not be started.
    #[error("cannot start the threads that serve: {0}; see [server] workers")]
    Workers(#[source] io::Error),
    /// The index could not be opened.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// TLS towards upstreams.
    #[error(transparent)]
    Upstream(#[from] TlsError),
    /// Our own certificate.
    #[error("[server] tls: {path}: {source}; it must be a PEM file that this user can read")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate and key do not fit.
    #[error("[server] tls: {0}; do certificate and key belong together?")]
    Tls(#[from] rustls::Error),
}

/// A running proxy.
#[derive(Debug)]
pub struct App {
    /// Where viewers are served.
    pub addresses: Vec<SocketAddr>,
    /// Where the admin pages are.
    pub admin: Option<SocketAddr>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The index in use.
    pub index: Arc<Index>,
    stop: watch::Sender<bool>,
    serving: Vec<JoinHandle<usize>>,
    chores: Vec<JoinHandle<()>>,
    export: Option<Exporting>,
}

/// Spans on their way to a collector. Dropping the first makes the second send what still waits, and end.
type Exporting = (oneshot::Sender<()>, JoinHandle<()>);

/// Rarely anything is to be done; then it is cheap.
const CHORES_EVERY: Duration = Duration::from_secs(5);

impl App {
    /// Starts everything; returns as soon as the sockets are bound. Sources are indexed in the background:
    /// traffic passes from the first moment.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let settings = Arc::new(settings);
        let metrics = Arc::new(Metrics::new());
        let export = export(&settings, &metrics)?;
        let index = open_index(&settings)?;
        let upstreams = Upstream::of_routes(&settings, &metrics.upstream)?;
        let healer = Healer::new(Arc::clone(&settings), &upstreams, Arc::clone(&index), Arc::clone(&metrics));
        let proxy = proxy(&settings, &upstreams, &healer, &index, &metrics);
        let bounds = Bounds {
            head_timeout: settings.server.head_timeout,
            idle_timeout: settings.server.idle_timeout,
            max_head_bytes: settings.server.max_head_bytes,
            max_connections: settings.server.max_connections,
            drain: settings.server.drain,
        };
        let tls = settings.server.tls.as_ref().map(server_tls).transpose()?;
        let open = metrics.connections.clone();
        let crew = Crew::start(settings.server.workers).map_err(StartError::Workers)?;
        let viewers = Listener::bind(&settings.server.listen, tls, bounds.clone(), open, crew).await;
        let viewers = viewers.map_err(StartError::Listen)?;
        let operators = match settings.admin.listen {
            None => None,
            Some(address) => {
                let bounds = Bounds { max_connections: 64, ..bounds };
                let bound = Listener::bind(&[address], None, bounds, Gauge::default(), Crew::here()).await;
                Some(bound.map_err(StartError::Listen)?)
            }
        };

        let (stop_button, stop) = Stop::new();
        let addresses = viewers.addresses();
        let admin = operators.as_ref().and_then(|listener| listener.addresses().first().copied());
        let mut serving = vec![tokio::spawn(viewers.serve(
            move |viewer, request| {
                let proxy = proxy.clone();
                async move { proxy.handle(viewer, request).await }
            },
            stop.clone(),
        ))];
        if let Some(operators) = operators {
            let pages = Admin::new(Arc::clone(&metrics), healer.clone());
            serving.push(tokio::spawn(operators.serve(
                move |_, request| {
                    let pages = pages.clone();
                    async move { pages.handle(&request) }
                },
                stop.clone(),
            )));
        }
        let chores = vec![
            tokio::spawn(keep_checked(&upstreams)),
            tokio::spawn(keep_tidy(upstreams, healer.clone())),
            tokio::spawn(keep_points(Arc::clone(&metrics))),
            tokio::spawn(keep_warm(healer.clone())),
            tokio::spawn(async move { healer.resume_sweep().await }),
            tokio::spawn(Keeper::new(Arc::clone(&index), Arc::clone(&settings), Arc::clone(&metrics)).run()),
        ];
        Ok(Self { addresses, admin, metrics, index, stop: stop_button, serving, chores, export })
    }

    /// Stops accepting, lets requests in flight end, and returns how many had to be cut at the deadline.
    pub async fn stop(self) -> usize {
        self.stop.send_replace(true);
        let mut cut = 0;
        for serving in self.serving {
            cut += serving.await.unwrap_or(0);
        }
        for chore in self.chores {
            chore.abort();
        }
        if let Some((more, sending)) = self.export {
            drop(more);
            let _ = tokio::time::timeout(LAST_SPANS, sending).await;
        }
        cut
    }
}

/// How long the last spans may take, when everything else has ended.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Starts to send spans to the collector, where there is one.
fn export(settings: &Settings, metrics: &Metrics) -> Result<Option<Exporting>, StartError> {
    let telemetry = &settings.telemetry;
    let Some(url) = &telemetry.otlp else { return Ok(None) };
    let collector = Arc::new(Collector::new(url, settings)?);
    let Some(export) = metrics.spans.open(telemetry.sample, telemetry.queue) else { return Ok(None) };
    let (more, last) = oneshot::channel();
    let post = move |batch| {
        let collector = Arc::clone(&collector);
        async move { collector.post(batch).await }
    };
    Ok(Some((more, tokio::spawn(export.run(post, last)))))
}

/// The rooms that a viewer's request goes through.
fn proxy(
    settings: &Arc<Settings>,
    upstreams: &[Arc<Upstream>],
    healer: &Healer,
    index: &Arc<Index>,
    metrics: &Arc<Metrics>,
) -> Proxy {
    let learner = settings.index.learn.then(|| Learner::start(Arc::clone(index), Arc::clone(metrics)));
    let budget = Budget::new(settings.server.max_held_total, metrics.held_bytes.clone());
    let presenter = Presenter::new(
        Arc::clone(settings),
        upstreams.to_vec(),
        healer.clone(),
        Arc::clone(index),
        learner,
        budget.clone(),
        Arc::clone(metrics),
    );
    let (upstreams, healer) = (upstreams.to_vec(), healer.clone());
    Proxy::new(Arc::clone(settings), upstreams, healer, presenter, budget, Arc::clone(metrics))
}

/// The index, with all that it needs to look at its sources.
fn open_index(settings: &Arc<Settings>) -> Result<Arc<Index>, StartError> {
    let web = Web::new(Arc::clone(settings))?;
    let index = Index::open(&settings.index.path, settings.index.cache)?.with_names(settings);
    Ok(Arc::new(index.with_web(web, Handle::current())))
}

/// The rooms that the batch commands need, without a socket of our own.
pub fn batch_rooms(settings: Settings) -> Result<Rooms, StartError> {
    let settings = Arc::new(settings);
    let index = Index::open(&settings.index.path, settings.index.cache)?.with_names(&settings);
    let index = Arc::new(index);
    let metrics = Arc::new(Metrics::new());
    let upstreams = Upstream::of_routes(&settings, &metrics.upstream)?;
    let healer = Healer::new(Arc::clone(&settings), &upstreams, Arc::clone(&index), metrics);
    let web = Web::new(Arc::clone(&settings))?;
    Ok(Rooms { settings, index, healer, web })
}

/// TLS towards viewers: HTTP/2 and HTTP/1.1.
fn server_tls(tls: &settings::Tls) -> Result<Arc<rustls::ServerConfig>, StartError> {
    let refuse = |path: &PathBuf| {
        let path = path.clone();
        move |source| StartError::Pem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&tls.cert).map_err(refuse(&tls.cert))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(refuse(&tls.cert))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(refuse(&tls.key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What a live page shows of the last half hour.
async fn keep_points(metrics: Arc<Metrics>) {
    let mut every = tokio::time::interval(SAMPLE_EVERY);
    loop {
        every.tick().await;
        metrics.sample();
    }
}

/// Checks the servers that are to be checked.
fn keep_checked(upstreams: &[Arc<Upstream>]) -> impl Future<Output = ()> + use<> {
    // Routes that lead to the same servers share one upstream, which is checked once.
    let distinct = upstreams
        .iter()
        .enumerate()
        .filter(|(at, upstream)| !upstreams.iter().take(*at).any(|earlier| Arc::ptr_eq(earlier, upstream)));
    let checks: Vec<_> =
        distinct.map(|(_, upstream)| Upstream::keep_checked(Arc::downgrade(upstream))).collect();
    async move {
        futures_util::future::join_all(checks).await;
    }
}

async fn keep_warm(healer: Healer) {
    healer.keep_warm().await;
}

async fn keep_tidy(upstreams: Vec<Arc<Upstream>>, healer: Healer) {
    let mut every = tokio::time::interval(CHORES_EVERY);
    loop {
        every.tick().await;
        for upstream in &upstreams {
            upstream.prune();
        }
        healer.prune();
    }
}
