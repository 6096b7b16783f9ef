//! The listener for operators.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::metrics::gauge::Gauge;
use tokio::task::JoinHandle;

use super::{StartError, doors};
use crate::admin::{Admin, Operator};
use crate::config::Settings;
use crate::config::settings::Tls;
use crate::listen::inherit::Inherited;
use crate::listen::tls::{CertificateError, Certificates, Showcase};
use crate::listen::{Bounds, Crew, Hall, Listener, Manner, Stop};
use crate::observe::Metrics;
use crate::proxy::Viewer;
use crate::upstream::Clients;

/// Where operators are served.
pub(super) struct Operators {
    pub(super) address: SocketAddr,
    /// Kept to be handed to a successor.
    socket: TcpListener,
    showcase: Option<Arc<Showcase>>,
}

impl Operators {
    /// Binds the socket; `None`: there is to be none.
    pub(super) fn open(
        settings: &Settings,
        inherited: &mut Inherited,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<(Self, Listener)>, StartError> {
        let admin = &settings.admin;
        let Some(address) = admin.listen else { return Ok(None) };
        let bounds = Bounds {
            max_connections: admin.max_connections,
            max_per_address: 0,
            explains: false,
            ..Bounds::from(&settings.server)
        };
        let hall = Hall::new(bounds, Clients::default(), Crew::here(), Gauge::default(), Arc::clone(metrics));
        let listener = doors::listener(address, false, inherited, &hall).map_err(StartError::Listen)?;
        let tls = admin.tls.as_ref().map(|pair| {
            Showcase::open(Certificates::read(std::slice::from_ref(pair))?, admin.client_ca.as_deref())
        });
        let (showcase, tls) = tls.transpose()?.unzip();
        listener.manner().store(Arc::new(Manner { tls, proxy_protocol: false }));
        let address = listener.address().map_err(StartError::Listen)?;
        let socket = listener.socket().map_err(StartError::Listen)?;
        Ok(Some((Self { address, socket, showcase }, listener)))
    }

    /// The socket once more.
    pub(super) fn socket(&self) -> io::Result<TcpListener> {
        self.socket.try_clone()
    }

    /// Another certificate from now on. True: it really is another one.
    pub(super) fn show(&self, pair: &Tls) -> Result<bool, CertificateError> {
        let Some(showcase) = &self.showcase else { return Ok(false) };
        Ok(showcase.show(Certificates::read(std::slice::from_ref(pair))?))
    }
}

/// Serves the pages that are in use at the time.
pub(super) fn serve(listener: Listener, pages: &Arc<ArcSwap<Admin>>, stop: Stop) -> JoinHandle<usize> {
    let pages = Arc::clone(pages);
    let service = move |viewer: Viewer, request| {
        let pages = pages.load_full();
        let operator = Operator { peer: viewer.peer, certified: viewer.certified };
        async move { pages.handle(operator, request).await }
    };
    tokio::spawn(listener.serve(service, stop))
}
