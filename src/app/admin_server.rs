//! The listener for operators.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use hyper::Request;
use hyper::body::Incoming;
use prometheus_client::metrics::gauge::Gauge;
use tokio::task::JoinHandle;

use super::accessories::ADMIN;
use super::services::Services;
use super::{StartError, listeners};
use crate::admin::{Admin, Operator};
use crate::config::Settings;
use crate::config::settings::TlsFiles;
use crate::listen::inherited::InheritedSockets;
use crate::listen::tls::{CertificateError, CertificateResolver, Certificates};
use crate::listen::{ConnectionLimits, Listener, ListenerGroup, Shutdown, SocketProtocol, WorkerPool};
use crate::observe::Metrics;
use crate::proxy::{self, ClientInfo};
use crate::upstream::Clients;

/// Retry interval of a listener that cannot be opened.
const RETRY: Duration = Duration::from_secs(5);

/// Admin listener, once it is open.
pub(super) struct AdminServer(Arc<ArcSwapOption<OpenAdminListener>>);

/// An open listener.
struct OpenAdminListener {
    address: SocketAddr,
    /// Socket, kept for a successor.
    socket: TcpListener,
    resolver: Option<Arc<CertificateResolver>>,
}

impl AdminServer {
    /// Binds the socket and serves. `None`: no admin listener is configured. If the socket cannot be bound or its
    /// certificate cannot be read, tries again until it can: viewers are served meanwhile.
    pub(super) fn open_or_later(
        services: &Arc<ArcSwap<Services>>,
        inherited: &mut InheritedSockets,
        metrics: &Arc<Metrics>,
        pages: &Arc<ArcSwap<Admin>>,
        mut stop: Shutdown,
    ) -> Option<(Self, JoinHandle<usize>)> {
        let address = services.load().settings.admin.listen?;
        let own = Self(Arc::default());
        let opened = open(address, &services.load().settings, inherited, metrics);
        if let Some(listener) = own.keep(opened, metrics) {
            return Some((own, serve(listener, pages, stop)));
        }
        let (later, services) = (Self(Arc::clone(&own.0)), Arc::clone(services));
        let (metrics, pages) = (Arc::clone(metrics), Arc::clone(pages));
        let opening = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.requested() => return 0,
                    () = tokio::time::sleep(RETRY) => {}
                }
                let settings = Arc::clone(&services.load().settings);
                let opened = open(address, &settings, &mut InheritedSockets::default(), &metrics);
                if let Some(listener) = later.keep(opened, &metrics) {
                    return serve(listener, &pages, stop).await.unwrap_or(0);
                }
            }
        });
        Some((own, opening))
    }

    fn keep(
        &self,
        opened: Result<(OpenAdminListener, Listener), StartError>,
        metrics: &Metrics,
    ) -> Option<Listener> {
        match opened {
            Ok((open, listener)) => {
                metrics.edge.degraded.ends(ADMIN);
                self.0.store(Some(Arc::new(open)));
                Some(listener)
            }
            Err(error) => {
                let why = format!(
                    "{error}. Viewers are served without it; it is tried again every {} s",
                    RETRY.as_secs()
                );
                metrics.edge.degraded.begins(ADMIN, &why);
                None
            }
        }
    }

    /// Current address of the admin listener.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.0.load().as_ref().map(|open| open.address)
    }

    /// A duplicate of the socket, for a successor process.
    pub(super) fn socket(&self) -> io::Result<Option<TcpListener>> {
        self.0.load().as_ref().map(|open| open.socket.try_clone()).transpose()
    }

    /// Replaces the certificate. True if it differs from the one before.
    pub(super) fn replace_certificate(&self, files: &TlsFiles) -> Result<bool, CertificateError> {
        let open = self.0.load();
        let Some(resolver) = open.as_ref().and_then(|open| open.resolver.as_ref()) else { return Ok(false) };
        Ok(resolver.replace(Certificates::read(&files.pairs())?))
    }

    /// Drops the socket.
    pub(super) fn close(self) {
        self.0.store(None);
    }
}

fn open(
    address: SocketAddr,
    settings: &Settings,
    inherited: &mut InheritedSockets,
    metrics: &Arc<Metrics>,
) -> Result<(OpenAdminListener, Listener), StartError> {
    let admin = &settings.admin;
    let bounds = ConnectionLimits {
        max_connections: admin.max_connections,
        max_per_address: 0,
        explains: false,
        ..ConnectionLimits::from(&settings.server)
    };
    let group = ListenerGroup::new(
        bounds,
        Clients::default(),
        WorkerPool::on_current_runtime(),
        Gauge::default(),
        Arc::clone(metrics),
    );
    let listener = listeners::listener(address, false, inherited, &group).map_err(StartError::listen)?;
    let tls = admin.tls.as_ref().map(|files| {
        CertificateResolver::new(Certificates::read(&files.pairs())?, admin.client_ca.as_deref())
    });
    let (resolver, tls) = tls.transpose()?.unzip();
    listener.protocol().store(Arc::new(SocketProtocol { tls, proxy_protocol: false }));
    let address = listener.address().map_err(StartError::listen)?;
    let socket = listener.socket().map_err(StartError::listen)?;
    Ok((OpenAdminListener { address, socket, resolver }, listener))
}

/// Serves the pages that are in use at the time.
fn serve(listener: Listener, pages: &Arc<ArcSwap<Admin>>, stop: Shutdown) -> JoinHandle<usize> {
    let pages = Arc::clone(pages);
    let service = move |viewer: ClientInfo, request: Request<Incoming>| {
        let pages = pages.load_full();
        let client = proxy::client(request.headers(), &viewer, pages.trusted_proxies());
        let peer = SocketAddr::new(client, viewer.peer.port());
        let operator = Operator { peer, certified: viewer.certified };
        async move { pages.handle(operator, request).await }
    };
    tokio::spawn(listener.serve(service, stop))
}
