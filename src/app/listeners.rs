//! Public listeners: bind, change TLS and PROXY mode, and close while serving.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::StartError;
use super::services::Services;
use crate::config::settings::{Listen, ServerSettings};
use crate::listen::inherited::InheritedSockets;
use crate::listen::tls::{CertificateResolver, Certificates};
use crate::listen::{ConnectionLimits, Listener, ListenerGroup, Shutdown, SocketProtocol};

/// An address that is served.
#[derive(Debug)]
struct BoundListener {
    wanted: SocketAddr,
    address: SocketAddr,
    /// Socket, kept for a successor.
    socket: TcpListener,
    protocol: Arc<ArcSwap<SocketProtocol>>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<usize>,
}

/// All addresses that are served.
pub(super) struct PublicListeners {
    group: Arc<ListenerGroup>,
    services: Arc<ArcSwap<Services>>,
    tls: Option<(Arc<CertificateResolver>, TlsAcceptor)>,
    open: Vec<BoundListener>,
    /// Closed, with requests in flight.
    closing: Vec<JoinHandle<usize>>,
}

/// Resources of a change, acquired before anything is changed.
pub(super) struct PreparedListeners {
    bounds: ConnectionLimits,
    listen: Vec<Listen>,
    certificates: Option<Certificates>,
    fresh: Vec<(SocketAddr, Listener)>,
}

impl PublicListeners {
    /// Creates a set without open listeners.
    pub(super) fn new(group: Arc<ListenerGroup>, services: Arc<ArcSwap<Services>>) -> Self {
        Self { group, services, tls: None, open: Vec::new(), closing: Vec::new() }
    }

    /// Reads certificates and binds the addresses that are new; nothing else is touched.
    pub(super) fn prepare(
        &self,
        server: &ServerSettings,
        inherited: &mut InheritedSockets,
    ) -> Result<PreparedListeners, StartError> {
        let certificates = server.tls.as_ref().map(|files| Certificates::read(&files.pairs())).transpose()?;
        let mut fresh = Vec::new();
        for Listen { address, .. } in &server.listen {
            if self.open.iter().any(|bound| bound.wanted == *address) {
                continue;
            }
            // Without an IPv4 address of its own in the configuration, [::] serves IPv4 as well.
            let v6_only = server.listen.iter().any(|other| {
                let other = other.address;
                other.port() == address.port() && other.is_ipv4() && other.ip().is_unspecified()
            });
            let listener = listener(*address, v6_only, inherited, &self.group).map_err(StartError::listen)?;
            fresh.push((*address, listener));
        }
        Ok(PreparedListeners {
            bounds: ConnectionLimits::from(server),
            listen: server.listen.clone(),
            certificates,
            fresh,
        })
    }

    /// Opens the prepared listeners and closes those no longer configured. True: the certificates changed.
    pub(super) fn apply(&mut self, prepared: PreparedListeners) -> Result<bool, StartError> {
        let PreparedListeners { bounds, listen, certificates, fresh } = prepared;
        let others = match (certificates, &self.tls) {
            (None, _) => false,
            (Some(certificates), Some((resolver, _))) => resolver.replace(certificates),
            (Some(certificates), None) => {
                self.tls = Some(CertificateResolver::new(certificates, None)?);
                true
            }
        };
        let protocol = |listen: &Listen, has_tls: bool| SocketProtocol {
            tls: self.tls.as_ref().filter(|_| has_tls && !listen.plain).map(|(_, tls)| tls.clone()),
            proxy_protocol: listen.proxy_protocol,
        };
        let has_tls = self.tls.is_some();
        self.group.set_limits(bounds);
        let mut listeners = Vec::new();
        for bound in std::mem::take(&mut self.open) {
            if let Some(listen) = listen.iter().find(|listen| listen.address == bound.wanted) {
                bound.protocol.store(Arc::new(protocol(listen, has_tls)));
                listeners.push(bound);
            } else {
                tracing::info!(address = %bound.address, "no longer serving");
                bound.stop.send_replace(true);
                self.closing.push(bound.serving);
            }
        }
        for (wanted, listener) in fresh {
            let Some(listen) = listen.iter().find(|listen| listen.address == wanted) else { continue };
            listener.protocol().store(Arc::new(protocol(listen, has_tls)));
            let bound = self.serve(wanted, listener).map_err(StartError::listen)?;
            listeners.push(bound);
        }
        self.open = listeners;
        Ok(others)
    }

    fn serve(&self, wanted: SocketAddr, listener: Listener) -> std::io::Result<BoundListener> {
        let (address, socket, protocol) = (listener.address()?, listener.socket()?, listener.protocol());
        let (sender, stop) = Shutdown::new();
        let services = Arc::clone(&self.services);
        let service = move |viewer, request| {
            let proxy = services.load().proxy.clone();
            // Boxed: hyper moves a request's future several times before it rests, and keeps room for it as long as the
            // connection lives.
            Box::pin(proxy.handle(viewer, request))
        };
        let serving = tokio::spawn(listener.serve(service, stop));
        tracing::info!(%address, "serving");
        Ok(BoundListener { wanted, address, socket, protocol, stop: sender, serving })
    }

    /// Public addresses in the order of the configuration.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.open.iter().map(|bound| bound.address).collect()
    }

    /// Duplicates of the sockets, for a successor process.
    pub(super) fn sockets(&self) -> std::io::Result<Vec<TcpListener>> {
        self.open.iter().map(|bound| bound.socket.try_clone()).collect()
    }

    /// Closes all listeners. The tasks return how many connections were cut.
    pub(super) fn shutdown(&mut self) -> Vec<JoinHandle<usize>> {
        for bound in self.open.drain(..) {
            drop(bound.socket);
            bound.stop.send_replace(true);
            self.closing.push(bound.serving);
        }
        std::mem::take(&mut self.closing)
    }
}

/// Makes a listener on the socket that this process inherited for the address, or on a new one.
pub(super) fn listener(
    address: SocketAddr,
    v6_only: bool,
    inherited: &mut InheritedSockets,
    group: &Arc<ListenerGroup>,
) -> std::io::Result<Listener> {
    match inherited.take(address) {
        Some(socket) => Listener::on(socket, group),
        None => Listener::bind(address, v6_only, group),
    }
}
