//! Builds the rooms, binds the sockets, serves, drains: the only file that knows them all.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::Admin;
use crate::config::{Settings, settings};
use crate::heal::Healer;
use crate::index::learn::Learner;
use crate::index::sources::Options;
use crate::index::{Index, IndexError, Stats};
use crate::listen::{Bounds, Listener, Stop};
use crate::observe::Metrics;
use crate::presentation::Presenter;
use crate::proxy::Proxy;
use crate::upstream::{TlsError, Upstream, client_tls};

/// Why it could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket could not be bound.
    #[error("{0}; is another process listening there? See [server] listen and [admin] listen")]
    Listen(#[source] io::Error),
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
}

/// Rarely anything is to be done; then it is cheap.
const CHORES_EVERY: Duration = Duration::from_secs(5);

impl App {
    /// Starts everything; returns as soon as the sockets are bound. Sources are indexed in the background:
    /// traffic passes from the first moment.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let settings = Arc::new(settings);
        let metrics = Arc::new(Metrics::new());
        let index = Arc::new(Index::open(&settings.index.path, settings.index.cache)?);
        let upstreams = upstreams(&settings)?;
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
        let viewers = Listener::bind(&settings.server.listen, tls, bounds.clone(), open).await;
        let viewers = viewers.map_err(StartError::Listen)?;
        let operators = match settings.admin.listen {
            None => None,
            Some(address) => {
                let bounds = Bounds { max_connections: 64, ..bounds };
                let bound = Listener::bind(&[address], None, bounds, Gauge::default()).await;
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
            let pages = Admin::new(Arc::clone(&metrics));
            serving.push(tokio::spawn(operators.serve(
                move |_, request| {
                    let pages = pages.clone();
                    async move { pages.handle(&request) }
                },
                stop.clone(),
            )));
        }
        let chores = vec![
            tokio::spawn(keep_tidy(upstreams, healer.clone())),
            tokio::spawn(async move { healer.resume_sweep().await }),
            tokio::spawn(keep_index(Arc::clone(&index), Arc::clone(&settings), Arc::clone(&metrics))),
        ];
        Ok(Self { addresses, admin, metrics, index, stop: stop_button, serving, chores })
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
        cut
    }
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
    let presenter = Presenter::new(
        Arc::clone(settings),
        upstreams.to_vec(),
        healer.clone(),
        Arc::clone(index),
        learner,
        Arc::clone(metrics),
    );
    Proxy::new(Arc::clone(settings), upstreams.to_vec(), healer.clone(), presenter, Arc::clone(metrics))
}

/// One [`Upstream`] for each distinct server, in the order of the routes.
fn upstreams(settings: &Settings) -> Result<Vec<Arc<Upstream>>, TlsError> {
    let tls = client_tls(settings.upstream.ca.as_deref())?;
    let mut made: Vec<(&settings::Route, Arc<Upstream>)> = Vec::new();
    for route in &settings.routes {
        let same = made.iter().find(|(other, _)| {
            other.upstream.scheme == route.upstream.scheme
                && other.upstream.authority == route.upstream.authority
                && other.connect == route.connect
        });
        let upstream = match same {
            Some((_, upstream)) => Arc::clone(upstream),
            None => {
                Arc::new(Upstream::new(&route.upstream, route.connect.as_ref(), &settings.upstream, &tls))
            }
        };
        made.push((route, upstream));
    }
    Ok(made.into_iter().map(|(_, upstream)| upstream).collect())
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

/// Looks at the configured sources now and then. Traffic never waits for it.
async fn keep_index(index: Arc<Index>, settings: Arc<Settings>, metrics: Arc<Metrics>) {
    loop {
        let (of, configured) = (Arc::clone(&index), settings.index.sources.clone());
        let looked = tokio::task::spawn_blocking(move || look_at_sources(&of, &configured)).await;
        if let Ok(Some(stats)) = looked {
            let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            metrics.index_manifests.set(gauge(stats.manifests));
            metrics.index_canvases.set(gauge(stats.canvases));
            metrics.index_images.set(gauge(stats.images));
        }
        if settings.index.refresh.is_zero() {
            return;
        }
        tokio::time::sleep(settings.index.refresh).await;
    }
}

fn look_at_sources(index: &Index, configured: &[settings::Source]) -> Option<Stats> {
    match index.update(configured, &Options::default(), &mut |_, _| {}) {
        Ok(report) => {
            for problem in &report.problems {
                tracing::warn!(path = %problem.path, line = problem.line, column = problem.column,
                    hint = problem.hint, "a source cannot be read: {}", problem.message);
            }
            tracing::info!(
                files = report.files,
                manifests = report.manifests,
                unchanged = report.unchanged,
                problems = report.problems.len(),
                "sources looked at"
            );
        }
        Err(error) => tracing::error!(%error, "the sources cannot be looked at; the index stays as it is"),
    }
    match index.stats() {
        Ok(stats) => {
            tracing::info!(
                manifests = stats.manifests,
                canvases = stats.canvases,
                images = stats.images,
                "index"
            );
            Some(stats)
        }
        Err(error) => {
            tracing::error!(%error, "the index cannot be counted");
            None
        }
    }
}
