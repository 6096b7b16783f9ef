//! The application: builds all services, binds the sockets, serves, reloads, drains.
//!
//! `services` builds everything that settings decide, `listeners` opens and closes the public sockets, `process` is a
//! process that serves: signals are handled, the configuration is watched (`file_watcher`) and the sockets go to a
//! successor (`handover`).

mod accessories;
mod admin_server;
mod background;
mod file_watcher;
mod handover;
mod listeners;
pub mod process;
mod services;
mod setup_check;
mod trace_export;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::{self, Admin, AdminAuth, HealStepLog};
use crate::config::{ConfigChanges, Reload, ReloadError, Settings, differences, keep_until_restart};
use crate::index::{Index, IndexError, keep_filter, recover};
use crate::listen::inherited::InheritedSockets;
use crate::listen::tls::CertificateError;
use crate::listen::{ConnectionLimits, ListenerGroup, Shutdown, WorkerPool};
use crate::observe::{self, Metrics};
use crate::upstream::fetch::FetcherFactory;
use crate::upstream::{Clients, TlsError};
use admin_server::AdminServer;
use background::{BackgroundTasks, prune_periodically, sample_periodically};
use listeners::PublicListeners;
use services::{ProcessState, Services};
use trace_export::TraceExport;

pub use services::batch_services;

/// Errors that keep the process from starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket could not be bound.
    #[error("{0}; is another process listening there? See [server] listen and [admin] listen")]
    Listen(#[source] io::Error),
    /// A port below 1024, without the privilege for it.
    #[error(
        "{0}: this user may not listen on ports below 1024. Run it under systemd (AmbientCapabilities=CAP_NET_BIND_SERVICE, as \
         the packages do), or once: setcap cap_net_bind_service=+ep $(command -v iiif-mender); or choose another port in \
         [server] listen or [admin] listen"
    )]
    Privileged(#[source] io::Error),
    /// A socket was passed for an address that is not configured.
    #[error("a socket was passed to us for {0}, which is none of [server] listen and [admin] listen")]
    Passed(SocketAddr),
    /// A thread could not be started.
    #[error("cannot start the threads that serve: {0}; see [server] workers")]
    Workers(#[source] io::Error),
    /// The index could not be opened.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// TLS towards upstreams.
    #[error(transparent)]
    Upstream(#[from] TlsError),
    /// The server certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The token of the admin pages.
    #[error(transparent)]
    Auth(#[from] admin::AdminAuthError),
    /// Signals, or standard output.
    #[error("cannot start: {0}")]
    Process(#[source] io::Error),
}

impl StartError {
    /// A socket that cannot be bound.
    fn listen(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied {
            Self::Privileged(error)
        } else {
            Self::Listen(error)
        }
    }
}

/// A running proxy.
pub struct App {
    /// Public addresses.
    pub addresses: Vec<SocketAddr>,
    /// Address of the admin listener.
    pub admin: Option<SocketAddr>,
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
    /// The index in use.
    pub index: Arc<Index>,
    state: ProcessState,
    services: Arc<ArcSwap<Services>>,
    pages: Arc<ArcSwap<Admin>>,
    listeners: PublicListeners,
    /// Channel by which the admin pages ask for a reload.
    reload: Option<Reload>,
    operators: Option<AdminServer>,
    stop: watch::Sender<bool>,
    serving: Vec<JoinHandle<usize>>,
    lasting: [JoinHandle<()>; 5],
    step_log: HealStepLog,
    clients: Clients,
    tasks: BackgroundTasks,
    export: Option<TraceExport>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl App {
    /// Starts everything; returns as soon as the sockets are bound. Sources are indexed in the background:
    /// traffic passes from the first moment.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        Self::start_on(settings, InheritedSockets::default()).await
    }

    /// Starts on inherited sockets, where they are for configured addresses.
    #[expect(clippy::unused_async, reason = "it must be called in a runtime")]
    pub async fn start_on(settings: Settings, mut inherited: InheritedSockets) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let settings = Arc::new(accessories::leave_out_unusable(settings, &metrics)?);
        let export = accessories::spans(&settings, &metrics);
        let index = services::open_index(&settings, &metrics)?;
        let state = ProcessState::new(&settings, Arc::clone(&index), Arc::clone(&metrics));
        let services = Services::build(Arc::clone(&settings), &state, None)?;
        let (stop_sender, stop) = Shutdown::new();
        let step_log = HealStepLog::default();
        let admin_state = services.admin_state(&state, None, &step_log, &stop_sender);
        let pages =
            Arc::new(ArcSwap::from_pointee(Admin::new(admin_state, accessories::auth(&settings, &metrics))));
        let services = Arc::new(ArcSwap::from_pointee(services));

        let bounds = ConnectionLimits::from(&settings.server);
        let workers = WorkerPool::start(settings.server.workers).map_err(StartError::Workers)?;
        let clients = {
            let (budget, ended) = (state.budget.clone(), metrics.upstream.ended.clone());
            Clients::new(budget, settings.upstream.max_requests, ended)
        };
        let open = metrics.connections.clone();
        let group = ListenerGroup::new(bounds, clients.clone(), workers, open, Arc::clone(&metrics));
        let mut listeners = PublicListeners::new(group, Arc::clone(&services));
        let prepared = listeners.prepare(&settings.server, &mut inherited)?;
        let operators = AdminServer::open_or_later(&services, &mut inherited, &metrics, &pages, stop);
        if let Some(address) = inherited.unclaimed().first() {
            return Err(StartError::Passed(*address));
        }

        listeners.apply(prepared)?;
        let (operators, serving) = operators.unzip();
        let tasks = BackgroundTasks::start(&services.load(), &state);
        let tidying = tokio::spawn(prune_periodically(Arc::clone(&services), state.cache.clone()));
        let points = tokio::spawn(sample_periodically(Arc::clone(&metrics)));
        let recording_steps = tokio::spawn(step_log.clone().run(Arc::clone(&metrics)));
        let watching = tokio::spawn(recover::watch_over(Arc::clone(&index), Arc::clone(&metrics)));
        let filtering = tokio::spawn(keep_filter(Arc::clone(&index)));
        let lasting = [tidying, points, recording_steps, watching, filtering];
        metrics.edge.config_is_loaded();
        Ok(Self {
            addresses: listeners.addresses(),
            admin: operators.as_ref().and_then(AdminServer::address),
            metrics,
            index,
            state,
            services,
            pages,
            listeners,
            reload: None,
            operators,
            stop: stop_sender,
            serving: serving.into_iter().collect(),
            lasting,
            step_log,
            clients,
            tasks,
            export,
        })
    }

    /// Applies other settings. A mistake in them changes nothing; requests in flight end under the old ones. Certificates
    /// are read anew in any case.
    pub fn apply(&mut self, settings: Settings) -> Result<ConfigChanges, ReloadError> {
        let outcome = self.try_apply(settings);
        let result = match &outcome {
            Ok(changes) if changes.is_nothing() => "unchanged",
            Ok(_) => "applied",
            Err(_) => "refused",
        };
        self.metrics.edge.config_reload(result);
        if result == "applied" {
            self.metrics.edge.config_is_loaded();
        }
        outcome
    }

    fn try_apply(&mut self, settings: Settings) -> Result<ConfigChanges, ReloadError> {
        let unusable = |error: StartError| ReloadError::Unusable(error.to_string());
        let settings = accessories::leave_out_again(settings, &self.metrics);
        let mut settings = settings.map_err(|error| unusable(error.into()))?;
        let before = self.services.load_full();
        let wanted = differences(&before.settings, &settings);
        keep_until_restart(&mut settings, &before.settings);
        let keys = differences(&before.settings, &settings);
        let after_restart: Vec<String> = wanted.into_iter().filter(|key| !keys.contains(key)).collect();
        let settings = Arc::new(settings);

        // Everything that can fail comes first.
        let prepared =
            self.listeners.prepare(&settings.server, &mut InheritedSockets::default()).map_err(unusable)?;
        let web = FetcherFactory::new(Arc::clone(&settings)).map_err(|error| unusable(error.into()))?;
        let services =
            Services::build(Arc::clone(&settings), &self.state, Some(&*before)).map_err(unusable)?;
        let auth = accessories::auth_again(&settings, &self.metrics);
        let auth = auth.map_err(|error| unusable(error.into()))?;
        let shown = match (&self.operators, &settings.admin.tls) {
            (Some(operators), Some(files)) => {
                operators.replace_certificate(files).map_err(|error| unusable(error.into()))?
            }
            _ => false,
        };
        let certificates = self.listeners.apply(prepared).map_err(unusable)? | shown;
        self.addresses = self.listeners.addresses();
        if keys.is_empty() {
            self.publish_admin(Some(auth));
            return Ok(ConfigChanges { keys, after_restart, certificates });
        }
        if let Err(error) = observe::set_log_filter(&settings.log.filter) {
            tracing::warn!(%error, "the log filter stays as it was");
        }
        self.index.reconfigure(web, Handle::current());
        self.clients.resize(settings.upstream.max_requests);
        self.state.budget.resize(settings.server.max_held_total);
        self.state.cache.resize(settings.cache.memory);
        let services = Arc::new(services);
        self.services.store(Arc::clone(&services));
        self.publish_admin(Some(auth));
        self.tasks.restart_affected(&before, &services, &self.state);
        Ok(ConfigChanges { keys, after_restart, certificates })
    }

    /// Sets the channel by which the admin pages ask for a reload.
    pub fn set_reload_handle(&mut self, reload: Reload) {
        self.reload = Some(reload);
        self.publish_admin(None);
    }

    /// Publishes the admin pages of the services in use, behind new authentication if there is any.
    fn publish_admin(&self, auth: Option<AdminAuth>) {
        let (services, reload) = (self.services.load(), self.reload.clone());
        let admin_state = services.admin_state(&self.state, reload, &self.step_log, &self.stop);
        let pages = self.pages.load().with(admin_state, auth);
        self.pages.store(Arc::new(pages));
    }

    /// The settings in use.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.services.load().settings)
    }

    /// Duplicates of the sockets, for a successor: those of viewers, then that of the admin pages.
    fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        let mut sockets = self.listeners.sockets()?;
        if let Some(operators) = &self.operators {
            sockets.extend(operators.socket()?);
        }
        Ok(sockets)
    }

    /// Time that requests in flight have to end.
    pub fn drain(&self) -> Duration {
        self.services.load().settings.server.drain
    }

    /// Stops accepting, lets requests in flight end, and returns how many had to be cut at the deadline.
    pub async fn stop(mut self) -> usize {
        if let Some(operators) = self.operators.take() {
            operators.close();
        }
        self.stop.send_replace(true);
        let mut serving = self.listeners.shutdown();
        serving.append(&mut self.serving);
        let mut cut = 0;
        for serving in serving {
            cut += serving.await.unwrap_or(0);
        }
        self.lasting.iter().for_each(JoinHandle::abort);
        self.tasks.abort();
        if let Some(export) = self.export.take() {
            export.end().await;
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_needs_a_privilege_is_told_from_one_that_is_taken() {
        let told = |kind: io::ErrorKind| {
            StartError::listen(io::Error::new(kind, "cannot listen on [::]:81")).to_string()
        };
        let privileged = told(io::ErrorKind::PermissionDenied);
        assert!(
            privileged.contains("[::]:81") && privileged.contains("CAP_NET_BIND_SERVICE"),
            "{privileged}"
        );
        assert!(told(io::ErrorKind::AddrInUse).contains("another process"));
    }
}
