//! Parts of a healer: state that lives as long as the process, and the owners under one configuration.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::config::Settings;
use crate::config::settings::{RouteKind, RouteSettings, UpstreamUrl};
use crate::heal::background::book::Books;
use crate::heal::background::keep_warm::KeepWarm;
use crate::heal::background::mass_expiry::MassExpiry;
use crate::heal::background::mass_expiry_detector::MassExpiryDetector;
use crate::heal::background::prefetch::Prefetch;
use crate::heal::background::reading::ReadingActivity;
use crate::heal::background::start_heal::{BackgroundContext, StartHeal};
use crate::heal::background::sweep::{Sweep, SweepState};
use crate::heal::broken_images::BrokenImages;
use crate::heal::callback::Callbacks;
use crate::heal::canvas_service::ask::AskCanvasService;
use crate::heal::canvas_service::priority_semaphore::PrioritySemaphore;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::services::{CanvasServices, ImageDoubts};
use crate::heal::canvas_service::shared_heals::SharedHeals;
use crate::heal::canvas_service::shared_request::CanvasRequests;
use crate::heal::canvas_service::{CanvasService, ServiceContext};
use crate::heal::cooldowns::{CanvasRequestKey, Cooldowns};
use crate::heal::file_urls::FileUrls;
use crate::heal::first_requests::FirstRequestLimiter;
use crate::heal::heals::Heals;
use crate::heal::image::{ImageKey, IndexedImage};
use crate::heal::image_address::ImageAddresses;
use crate::heal::image_lookup::ImageLookup;
use crate::heal::image_server::{AskImageServer, ImageServers, TruthfulProbe};
use crate::heal::knowledge::{ImageKnowledge, ProofsOfLife};
use crate::heal::ladder::{HealOutcome, Ladder, Visits};
use crate::heal::missing_files::MissingFiles;
use crate::heal::missing_images::MissingImages;
use crate::heal::repair::Repairs;
use crate::heal::repair::documents::DocumentRepairs;
use crate::heal::server::SendRequest;
use crate::heal::single_flight::SingleFlight;
use crate::heal::timed_cache::TimedCache;
use crate::heal::viewer_limits::{ViewerCounts, ViewerLimits};
use crate::index::Index;
use crate::index::history::Retention;
use crate::index::history::writer::HistoryWriter;
use crate::observe::Metrics;
use crate::upstream::guard::CanvasGuard;

/// Addresses remembered as a source of echoes, at most.
const ADDRESSES: u64 = 64;

/// Images whose last heal is remembered, at most.
const HEALED: u64 = 200_000;

/// Images in doubt at once, at most.
const DOUBTED: u64 = 20_000;

/// Canvases whose last visit is remembered, at most.
const VISITS: u64 = 200_000;

/// `HealState` lives as long as the process: all work under way, and all memory. So a reload of the configuration never
/// causes a second canvas request.
#[derive(Debug)]
pub(in crate::heal) struct HealState {
    index: Arc<Index>,
    metrics: Arc<Metrics>,
    /// Runtime of background work.
    home: Handle,
    history: Mutex<(Retention, HistoryWriter)>,
    /// Services as last configured.
    services: Mutex<Vec<Arc<CanvasService>>>,
    /// Truthful probes, by the marks of their routes.
    probes: Mutex<HashMap<u64, Arc<TruthfulProbe>>>,
    proofs: ProofsOfLife,
    /// Images that the canvas service calls alive, while the image server finds nothing.
    doubted: TimedCache<ImageKey>,
    /// Times at which images were healed.
    healed: TimedCache<ImageKey, Instant>,
    heals: SingleFlight<ImageKey, HealOutcome>,
    requests: SingleFlight<CanvasRequestKey, CanvasResponse>,
    firsts: Arc<FirstRequestLimiter>,
    viewers: Arc<ViewerCounts>,
    cooldowns: Cooldowns,
    missing: MissingFiles,
    broken: Arc<BrokenImages>,
    visits: Visits,
    callers: TimedCache<IpAddr>,
    repairs: Arc<DocumentRepairs>,
    readers: Arc<ReadingActivity>,
    expiries: Arc<MassExpiryDetector>,
    sweep: Arc<SweepState>,
}

impl HealState {
    /// An empty state. Heals run on the caller's runtime.
    pub(in crate::heal) fn here(
        settings: &Settings,
        index: Arc<Index>,
        metrics: Arc<Metrics>,
        history: HistoryWriter,
    ) -> Self {
        Self {
            index,
            metrics,
            home: Handle::current(),
            history: Mutex::new((bounds_of(settings), history)),
            services: Mutex::default(),
            probes: Mutex::default(),
            proofs: ProofsOfLife::here(),
            doubted: TimedCache::new(DOUBTED),
            healed: TimedCache::new(HEALED),
            heals: SingleFlight::here(),
            requests: SingleFlight::here(),
            firsts: Arc::default(),
            viewers: Arc::default(),
            cooldowns: Cooldowns::new(&settings.heal),
            missing: MissingFiles::new(&settings.heal),
            broken: Arc::default(),
            visits: TimedCache::new(VISITS),
            callers: TimedCache::new(ADDRESSES),
            repairs: Arc::new(DocumentRepairs::here()),
            readers: Arc::default(),
            expiries: Arc::default(),
            sweep: Arc::default(),
        }
    }

    /// The recorder of history, with these settings.
    fn history(&self, settings: &Settings) -> HistoryWriter {
        let bounds = bounds_of(settings);
        let mut history = self.history.lock();
        if history.0 != bounds {
            let (index, metrics) = (Arc::clone(&self.index), Arc::clone(&self.metrics));
            *history = (bounds, HistoryWriter::start(index, bounds, metrics));
        }
        history.1.clone()
    }

    /// Probes of each image server, in the order of the routes.
    fn probes(&self, settings: &Settings) -> Vec<Arc<TruthfulProbe>> {
        let mut probes = self.probes.lock();
        let marks: Vec<u64> = settings.routes.iter().map(RouteSettings::mark).collect();
        probes.retain(|mark, _| marks.contains(mark));
        marks.into_iter().map(|mark| Arc::clone(probes.entry(mark).or_default())).collect()
    }

    /// Services of the presentation routes, one each. A service that was there before keeps its state.
    fn services(
        &self,
        settings: &Arc<Settings>,
        servers: &[Arc<dyn SendRequest>],
        cluster: Option<&Arc<Cluster>>,
    ) -> Vec<Arc<CanvasService>> {
        let mut before = self.services.lock();
        let mut lanes: Vec<(&UpstreamUrl, Arc<PrioritySemaphore>)> = Vec::new();
        let mut services = Vec::new();
        for (route, of) in settings.routes.iter().enumerate() {
            if of.kind != RouteKind::Presentation {
                continue;
            }
            let old = before.iter().find(|service| service.mark == of.mark()).map(|old| &**old);
            // Two routes to one server share its lanes: the limits are for the server.
            let server = &of.upstream;
            let is_same = |other: &UpstreamUrl| {
                (&other.scheme, &other.authority) == (&server.scheme, &server.authority)
            };
            let own = lanes.iter().find(|(other, _)| is_same(other)).map(|(_, lanes)| Arc::clone(lanes));
            let own = own.unwrap_or_else(|| {
                let fresh = || PrioritySemaphore::new(settings.heal.concurrency);
                let own = old.map_or_else(fresh, |old| Arc::clone(&old.lanes));
                own.resize(settings.heal.concurrency);
                lanes.push((server, Arc::clone(&own)));
                own
            });
            let context = ServiceContext {
                server: Arc::clone(&servers[route]),
                index: Arc::clone(&self.index),
                cluster: cluster.cloned(),
                metrics: Arc::clone(&self.metrics),
            };
            services.push(Arc::new(CanvasService::new(route, settings, context, own, old)));
        }
        before.clone_from(&services);
        services
    }
}

/// Retention of the history.
pub(in crate::heal) fn bounds_of(settings: &Settings) -> Retention {
    Retention { age: settings.index.history_age, rows: settings.index.history_rows }
}

/// `HealParts` are the owners that do the healing, under one configuration.
#[derive(Debug)]
pub(in crate::heal) struct HealParts {
    pub(in crate::heal) state: Arc<HealState>,
    pub(in crate::heal) settings: Arc<Settings>,
    pub(in crate::heal) lookup: Arc<ImageLookup>,
    pub(in crate::heal) images: Arc<ImageServers>,
    pub(in crate::heal) services: Arc<CanvasServices>,
    pub(in crate::heal) requests: Arc<CanvasRequests>,
    pub(in crate::heal) missing: Arc<MissingImages>,
    pub(in crate::heal) broken: Arc<BrokenImages>,
    pub(in crate::heal) knowledge: ImageKnowledge,
    pub(in crate::heal) ladder: Arc<Ladder>,
    pub(in crate::heal) repairs: Arc<Repairs>,
    pub(in crate::heal) heals: Arc<Heals>,
    /// Starts heals, for background work.
    pub(in crate::heal) starts: Arc<dyn StartHeal>,
    pub(in crate::heal) limits: ViewerLimits,
    pub(in crate::heal) callbacks: Callbacks,
    pub(in crate::heal) prefetch: Arc<Prefetch>,
    pub(in crate::heal) sweep: Arc<Sweep>,
    pub(in crate::heal) warm: KeepWarm,
    pub(in crate::heal) metrics: Arc<Metrics>,
}

/// `HealDependencies` are the servers, and the knowledge about their answers.
struct HealDependencies {
    lookup: Arc<ImageLookup>,
    images: Arc<ImageServers>,
    services: Arc<CanvasServices>,
    requests: Arc<CanvasRequests>,
    missing: Arc<MissingImages>,
    knowledge: ImageKnowledge,
    fleet: Arc<SharedHeals>,
    history: HistoryWriter,
}

impl HealDependencies {
    fn new(
        state: &HealState,
        settings: &Arc<Settings>,
        servers: Vec<Arc<dyn SendRequest>>,
        cluster: Option<Arc<Cluster>>,
    ) -> Self {
        let (own, metrics) = (|| Arc::clone(settings), || Arc::clone(&state.metrics));
        let history = state.history(settings);
        // Routes may have other numbers now.
        let is_service = |route: &&RouteSettings| route.kind == RouteKind::Presentation;
        let services = settings.routes.iter().filter(is_service).count();
        let addresses = Arc::new(ImageAddresses::new(settings.routes.len(), services));
        let index = Arc::clone(&state.index);
        let lookup = Arc::new(ImageLookup::new(own(), Arc::clone(&addresses), index, metrics()));
        let services = (state.services(settings, &servers, cluster.as_ref()), CanvasGuard::new(own()));
        let fleet = Arc::new(SharedHeals::new(cluster));
        let shared = || Arc::clone(&fleet);
        let probes = state.probes(settings);
        let images = Arc::new(ImageServers::new(own(), servers, probes, addresses, metrics()));
        let files = FileUrls::new(Arc::clone(&state.index), history.clone(), shared());
        let cooldowns = state.cooldowns.under(&settings.heal);
        let doubts = ImageDoubts {
            images: state.doubted.clone(),
            healed: state.healed.clone(),
            lasts: settings.heal.timeout * 2,
            readers: Arc::clone(&state.readers),
        };
        let services =
            Arc::new(CanvasServices::new(services, shared(), files, (cooldowns, doubts), metrics()));
        let missing = state.missing.under(&settings.heal);
        let missing = Arc::new(MissingImages::new(own(), Arc::clone(&services), shared(), missing));
        let requests = state.requests.clone();
        let requests = CanvasRequests::new(Arc::clone(&services), Arc::clone(&images), shared(), requests);
        let knowledge = ImageKnowledge::new(
            Arc::clone(&services),
            Arc::clone(&images),
            Arc::clone(&missing),
            own(),
            state.proofs.clone(),
        );
        Self { lookup, images, services, requests: Arc::new(requests), missing, knowledge, fleet, history }
    }

    fn background(&self, state: &HealState, settings: &Arc<Settings>) -> Arc<BackgroundContext> {
        let books = Books::new(
            Arc::clone(settings),
            Arc::clone(&self.requests),
            Arc::clone(&self.lookup),
            self.knowledge.clone(),
        );
        Arc::new(BackgroundContext {
            settings: Arc::clone(settings),
            lookup: Arc::clone(&self.lookup),
            knowledge: self.knowledge.clone(),
            books,
            home: state.home.clone(),
            metrics: Arc::clone(&state.metrics),
        })
    }
}

impl HealParts {
    /// True if the file of an image that is reported alive, and is 404, is gone.
    pub(in crate::heal) async fn is_missing(&self, image: &IndexedImage) -> bool {
        self.knowledge.is_missing(image, self.ladder.look_at_file(image)).await
    }

    /// The parts. `servers` are in the order of `settings.routes`; `cluster` is the connection to the other nodes.
    pub(in crate::heal) fn new(
        state: Arc<HealState>,
        settings: Arc<Settings>,
        servers: Vec<Arc<dyn SendRequest>>,
        cluster: Option<Arc<Cluster>>,
    ) -> Self {
        let own = || Arc::clone(&settings);
        let asking = HealDependencies::new(&state, &settings, servers, cluster);
        let background = asking.background(&state, &settings);
        let HealDependencies { lookup, images, services, requests, missing, knowledge, fleet, history } =
            asking;
        let asks: (Arc<dyn AskImageServer>, Arc<dyn AskCanvasService>) =
            (Arc::<ImageServers>::clone(&images), Arc::<CanvasRequests>::clone(&requests));
        let visits = state.visits.clone();
        let ladder = Arc::new(Ladder::new(own(), asks, Arc::clone(&services), Arc::clone(&missing), visits));
        let repairs = Arc::new(Repairs::new(
            own(),
            (Arc::clone(&ladder), Arc::clone(&requests)),
            (Arc::clone(&images), Arc::clone(&lookup)),
            Arc::clone(&missing),
            (Arc::clone(&state.repairs), state.home.clone()),
        ));
        let sweep = Arc::new(Sweep::new(Arc::clone(&background), Arc::clone(&state.sweep)));
        let mass_expiry = Arc::new(MassExpiry::new(
            Arc::clone(&background),
            Arc::clone(&state.readers),
            Arc::clone(&state.expiries),
            Arc::clone(&sweep),
            Arc::clone(&fleet),
        ));
        let heals = Arc::new(Heals {
            ladder: Arc::clone(&ladder),
            repairs: Arc::clone(&repairs),
            services: Arc::clone(&services),
            mass_expiry,
            firsts: Arc::clone(&state.firsts),
            flights: state.heals.clone(),
            most: settings.heal.max_flights,
            broken: Arc::clone(&state.broken),
            history,
            metrics: Arc::clone(&state.metrics),
        });
        let callers = state.callers.clone();
        Self {
            limits: ViewerLimits::new(&settings.heal, fleet, Arc::clone(&state.viewers)),
            callbacks: Callbacks::new(own(), Arc::clone(&lookup), Arc::clone(&requests), callers),
            prefetch: Arc::new(Prefetch::new(Arc::clone(&background), Arc::clone(&state.readers))),
            warm: KeepWarm::new(background),
            starts: Arc::<Heals>::clone(&heals),
            sweep,
            heals,
            repairs,
            ladder,
            knowledge,
            missing,
            broken: Arc::clone(&state.broken),
            requests,
            services,
            images,
            lookup,
            metrics: Arc::clone(&state.metrics),
            settings,
            state,
        }
    }
}
