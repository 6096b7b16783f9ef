//! Builds the rooms, binds the sockets, serves, drains: the only file that knows them all.
//!
//! `rooms` builds the rooms from settings, `doors` opens and closes the sockets, `run` is a process that serves: it
//! listens to signals, watches the configuration (`files`) and hands its sockets to a successor (`handover`).

mod doors;
mod files;
mod handover;
mod rooms;
pub mod run;
mod spans;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::metrics::gauge::Gauge;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::{self, Admin, Diary, Gate};
use crate::config::{Changes, Reload, ReloadError, Settings, differences, keep_until_restart};
use crate::index::keeper::Keeper;
use crate::index::shared::Follower;
use crate::index::{Index, IndexError};
use crate::listen::inherit::Inherited;
use crate::listen::tls::CertificateError;
use crate::listen::{Bounds, Crew, Hall, Stop};
use crate::observe::{self, Metrics, SAMPLE_EVERY};
use crate::proxy::Viewer;
use crate::upstream::fetch::Web;
use crate::upstream::{TlsError, Upstream};
use doors::Doors;
use rooms::House;
use spans::Exporting;

pub use rooms::batch_rooms;

/// Why it could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket could not be bound.
    #[error("{0}; is another process listening there? See [server] listen and [admin] listen")]
    Listen(#[source] io::Error),
    /// We were given a socket for an address that we know nothing of.
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
    /// Our own certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The token of the admin pages.
    #[error(transparent)]
    Gate(#[from] admin::GateError),
    /// Signals, or standard output.
    #[error("cannot start: {0}")]
    Process(#[source] io::Error),
}

/// A running proxy.
pub struct App {
    /// Where viewers are served.
    pub addresses: Vec<SocketAddr>,
    /// Where the admin pages are.
    pub admin: Option<SocketAddr>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The index in use.
    pub index: Arc<Index>,
    house: Arc<ArcSwap<House>>,
    pages: Arc<ArcSwap<Admin>>,
    doors: Doors,
    /// How the admin pages ask for the configuration to be read anew.
    reload: Option<Reload>,
    admin_socket: Option<TcpListener>,
    stop: watch::Sender<bool>,
    serving: Vec<JoinHandle<usize>>,
    lasting: [JoinHandle<()>; 3],
    diary: Diary,
    chores: Chores,
    export: Option<Exporting>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Rarely anything is to be done; then it is cheap.
const CHORES_EVERY: Duration = Duration::from_secs(5);

/// Operators at once at most.
const OPERATORS: usize = 64;

impl App {
    /// Starts everything; returns as soon as the sockets are bound. Sources are indexed in the background:
    /// traffic passes from the first moment.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        Self::start_on(settings, Inherited::default()).await
    }

    /// The same on sockets that were open before us, where they are for our addresses.
    #[expect(clippy::unused_async, reason = "it must be called in a runtime")]
    pub async fn start_on(settings: Settings, mut inherited: Inherited) -> Result<Self, StartError> {
        let settings = Arc::new(settings);
        let metrics = Arc::new(Metrics::new());
        let export = Exporting::start(&settings, &metrics)?;
        let index = rooms::open_index(&settings)?;
        let house = House::build(Arc::clone(&settings), &index, &metrics)?;
        let (stop_button, stop) = Stop::new();
        let diary = Diary::default();
        let rooms = house.for_operators(&index, &metrics, None, &diary, &stop_button);
        let pages = Arc::new(ArcSwap::from_pointee(Admin::new(rooms, Gate::open(&settings.admin)?)));
        let house = Arc::new(ArcSwap::from_pointee(house));

        let bounds = Bounds::from(&settings.server);
        let operators = Bounds { max_connections: OPERATORS, max_per_address: 0, ..bounds.clone() };
        let crew = Crew::start(settings.server.workers).map_err(StartError::Workers)?;
        let hall = Hall::new(bounds, crew, metrics.connections.clone(), Arc::clone(&metrics));
        let mut doors = Doors::new(hall, Arc::clone(&house));
        let prepared = doors.prepare(&settings.server, &mut inherited)?;
        let hall = Hall::new(operators, Crew::here(), Gauge::default(), Arc::clone(&metrics));
        let operators =
            settings.admin.listen.map(|address| doors::listener(address, false, &mut inherited, &hall));
        let operators = operators.transpose().map_err(StartError::Listen)?;
        if let Some(address) = inherited.left().first() {
            return Err(StartError::Passed(*address));
        }

        doors.change(prepared)?;
        let mut serving = Vec::new();
        let (mut admin, mut admin_socket) = (None, None);
        if let Some(operators) = operators {
            admin = Some(operators.address().map_err(StartError::Listen)?);
            admin_socket = Some(operators.socket().map_err(StartError::Listen)?);
            let pages = Arc::clone(&pages);
            let service = move |viewer: Viewer, request| {
                let pages = pages.load_full();
                async move { pages.handle(viewer.peer, request).await }
            };
            serving.push(tokio::spawn(operators.serve(service, stop)));
        }
        let chores = Chores::start(&house.load(), &index, &metrics);
        let tidying = tokio::spawn(keep_tidy(Arc::clone(&house)));
        let points = tokio::spawn(keep_points(Arc::clone(&metrics)));
        let lasting = [tidying, points, tokio::spawn(diary.clone().keep(Arc::clone(&metrics)))];
        metrics.edge.config_is_loaded();
        Ok(Self {
            addresses: doors.addresses(),
            admin,
            metrics,
            index,
            house,
            pages,
            doors,
            reload: None,
            admin_socket,
            stop: stop_button,
            serving,
            lasting,
            diary,
            chores,
            export,
        })
    }

    /// Lives by other settings from now on. What cannot be used changes nothing; requests in flight end under the
    /// old ones. Certificates are read anew in any case.
    pub fn apply(&mut self, settings: Settings) -> Result<Changes, ReloadError> {
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

    fn try_apply(&mut self, mut settings: Settings) -> Result<Changes, ReloadError> {
        let unusable = |error: StartError| ReloadError::Unusable(error.to_string());
        let before = self.house.load_full();
        let wanted = differences(&before.settings, &settings);
        keep_until_restart(&mut settings, &before.settings);
        let keys = differences(&before.settings, &settings);
        let after_restart: Vec<String> = wanted.into_iter().filter(|key| !keys.contains(key)).collect();
        let settings = Arc::new(settings);

        // All that can fail comes first.
        let prepared = self.doors.prepare(&settings.server, &mut Inherited::default()).map_err(unusable)?;
        let web = Web::new(Arc::clone(&settings)).map_err(|error| unusable(error.into()))?;
        let house = before.under(Arc::clone(&settings), &self.index, &self.metrics).map_err(unusable)?;
        let gate = Gate::open(&settings.admin).map_err(|error| unusable(error.into()))?;
        let certificates = self.doors.change(prepared).map_err(unusable)?;
        self.addresses = self.doors.addresses();
        if keys.is_empty() {
            self.open_pages(Some(gate));
            return Ok(Changes { keys, after_restart, certificates });
        }
        if let Err(error) = observe::set_log_filter(&settings.log.filter) {
            tracing::warn!(%error, "the log filter stays as it was");
        }
        self.index.knows(web, Handle::current());
        let house = Arc::new(house);
        self.house.store(Arc::clone(&house));
        self.open_pages(Some(gate));
        self.chores.change(&before, &house, &self.index, &self.metrics);
        Ok(Changes { keys, after_restart, certificates })
    }

    /// The admin pages ask here for the configuration to be read anew.
    pub fn reloads_by(&mut self, reload: Reload) {
        self.reload = Some(reload);
        self.open_pages(None);
    }

    /// The admin pages of the house in use, behind another gate where there is one.
    fn open_pages(&self, gate: Option<Gate>) {
        let (house, reload) = (self.house.load(), self.reload.clone());
        let rooms = house.for_operators(&self.index, &self.metrics, reload, &self.diary, &self.stop);
        let pages = self.pages.load().over(rooms, gate);
        self.pages.store(Arc::new(pages));
    }

    /// The settings in use.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.house.load().settings)
    }

    /// The sockets once more, for a successor: those of viewers, then that of the admin pages.
    fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        let mut sockets = self.doors.sockets()?;
        if let Some(socket) = &self.admin_socket {
            sockets.push(socket.try_clone()?);
        }
        Ok(sockets)
    }

    /// How long requests in flight have to end.
    pub fn drain(&self) -> Duration {
        self.house.load().settings.server.drain
    }

    /// Stops accepting, lets requests in flight end, and returns how many had to be cut at the deadline.
    pub async fn stop(mut self) -> usize {
        drop(self.admin_socket);
        self.stop.send_replace(true);
        let mut serving = self.doors.close();
        serving.append(&mut self.serving);
        let mut cut = 0;
        for serving in serving {
            cut += serving.await.unwrap_or(0);
        }
        self.lasting.iter().for_each(JoinHandle::abort);
        self.chores.end();
        if let Some(export) = self.export.take() {
            export.end().await;
        }
        cut
    }
}

/// What is done in the background.
struct Chores {
    keeping_warm: JoinHandle<()>,
    sweeping: JoinHandle<()>,
    keeping_index: JoinHandle<()>,
    checking: JoinHandle<()>,
    heeding: JoinHandle<()>,
}

impl Chores {
    fn start(house: &House, index: &Arc<Index>, metrics: &Arc<Metrics>) -> Self {
        let (warm, sweep) = (house.healer.clone(), house.healer.clone());
        let keeper = Keeper::new(Arc::clone(index), Arc::clone(&house.settings), Arc::clone(metrics));
        Self {
            keeping_warm: tokio::spawn(async move { warm.keep_warm().await }),
            sweeping: tokio::spawn(async move { sweep.resume_sweep().await }),
            keeping_index: tokio::spawn(keeper.run()),
            checking: tokio::spawn(keep_checked(&house.upstreams)),
            heeding: tokio::spawn(heed_others(house, index, metrics)),
        }
    }

    /// Begins anew what is concerned: rounds that go on for hours are not begun again for nothing.
    fn change(&mut self, old: &House, new: &House, index: &Arc<Index>, metrics: &Arc<Metrics>) {
        let (before, after) = (&old.settings, &new.settings);
        let others = before.routes != after.routes
            || before.upstream != after.upstream
            || before.server.public_hosts != after.server.public_hosts;
        if others {
            self.checking.abort();
            self.checking = tokio::spawn(keep_checked(&new.upstreams));
        }
        if before != after {
            self.heeding.abort();
            self.heeding = tokio::spawn(heed_others(new, index, metrics));
        }
        if others || before.index != after.index || before.heal != after.heal {
            self.keeping_warm.abort();
            let healer = new.healer.clone();
            self.keeping_warm = tokio::spawn(async move { healer.keep_warm().await });
        }
        if others || before.index != after.index {
            self.keeping_index.abort();
            let keeper = Keeper::new(Arc::clone(index), Arc::clone(after), Arc::clone(metrics));
            self.keeping_index = tokio::spawn(keeper.run());
        }
    }

    fn end(&self) {
        for chore in [&self.keeping_warm, &self.sweeping, &self.keeping_index, &self.checking, &self.heeding]
        {
            chore.abort();
        }
    }
}

/// What a live page shows of the last half hour.
async fn keep_points(metrics: Arc<Metrics>) {
    let mut every = tokio::time::interval(SAMPLE_EVERY);
    loop {
        every.tick().await;
        metrics.sample();
    }
}

/// What other nodes find out and learn is known here, too.
fn heed_others(
    house: &House,
    index: &Arc<Index>,
    metrics: &Arc<Metrics>,
) -> impl Future<Output = ()> + use<> {
    let healer = house.healer.clone();
    let follower = house.cluster.clone().map(|cluster| {
        Follower::new(Arc::clone(index), Arc::clone(&house.settings), cluster, Arc::clone(metrics))
    });
    async move {
        if let Some(follower) = follower {
            futures_util::future::join(healer.heed_the_fleet(), follower.run()).await;
        }
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

async fn keep_tidy(house: Arc<ArcSwap<House>>) {
    let mut every = tokio::time::interval(CHORES_EVERY);
    loop {
        every.tick().await;
        let house = house.load_full();
        for upstream in &house.upstreams {
            upstream.prune();
        }
        house.healer.prune();
    }
}
