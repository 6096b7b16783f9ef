//! How a ward is opened, and what goes over to it from the one before when the configuration is read anew.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use governor::{Quota, RateLimiter};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::cluster::Cluster;
use crate::config::Settings;
use crate::config::settings::{Route, RouteKind, UpstreamUrl};
use crate::heal::background::mass_expiry_detector::MassExpiryDetector;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::priority_semaphore::PrioritySemaphore;
use crate::heal::canvas_service::shared_heals::SharedHeals;
use crate::heal::cooldowns::Cooldowns;
use crate::heal::image_address::ImageAddresses;
use crate::heal::ladder::direct_support::DirectSupport;
use crate::heal::missing_files::MissingFiles;
use crate::heal::server::SendRequest;
use crate::heal::single_flight::SingleFlight;
use crate::heal::timed_cache::TimedCache;
use crate::heal::truthful_probe::TruthfulProbe;
use crate::heal::ward::Ward;
use crate::index::Index;
use crate::index::recorder::Recorder;
use crate::observe::Metrics;
use crate::upstream::guard::Guard;

/// UUIDs of which is remembered that their file URL is in the index; of others it is looked up.
const FILED: u64 = 20_000;

/// Addresses that echoes are known to come from, at most.
const ADDRESSES: u64 = 64;

/// Images that are remembered to be alive, at most.
const ALIVE: u64 = 200_000;

impl Ward {
    /// `before`: the ward under the settings that held until now. Everything that is under way or remembered
    /// goes over, so that a reload of the configuration never causes a second canvas request.
    pub(in crate::heal) fn new(
        settings: Arc<Settings>,
        servers: Vec<Arc<dyn SendRequest>>,
        index: Arc<Index>,
        cluster: Option<Arc<Cluster>>,
        metrics: Arc<Metrics>,
        history: Recorder,
        before: Option<&Self>,
    ) -> Self {
        let heal = &settings.heal;
        // What belongs to a bound is only as good as the bound.
        let same =
            |same: fn(&Settings, &Settings) -> bool| before.filter(|old| same(&old.settings, &settings));
        let expiries = same(|old, new| old.heal.mass_expiry == new.heal.mass_expiry);
        let clients = same(|old, new| old.heal.per_client == new.heal.per_client);
        let waiting = same(|old, new| old.heal.max_waiting == new.heal.max_waiting);
        let services = services(&settings, &servers, &index, cluster.as_ref(), &metrics, before);
        Self {
            history,
            // Routes may have other numbers now.
            addresses: ImageAddresses::new(settings.routes.len(), services.len()),
            services,
            probes: settings.routes.iter().map(|route| probe_of(before, route.mark())).collect(),
            alive: before.map_or_else(|| TimedCache::new(ALIVE), |before| before.alive.clone()),
            healed: before.map_or_else(|| TimedCache::new(ALIVE), |before| before.healed.clone()),
            doubted: before.map_or_else(|| TimedCache::new(ALIVE), |before| before.doubted.clone()),
            fleet: SharedHeals::new(cluster),
            servers,
            marks: settings.routes.iter().map(Route::mark).collect(),
            guard: Guard::new(Arc::clone(&settings)),
            index,
            metrics,
            home: before.map_or_else(Handle::current, |before| before.home.clone()),
            climbs: before.map_or_else(SingleFlight::here, |before| before.climbs.clone()),
            canvases: before.map_or_else(SingleFlight::here, |before| before.canvases.clone()),
            cures: before.map_or_else(SingleFlight::here, |before| before.cures.clone()),
            firsts: before.map(|before| Arc::clone(&before.firsts)).unwrap_or_default(),
            memory: before.map_or_else(|| Cooldowns::new(heal), |before| before.memory.under(heal)),
            missing: before.map_or_else(|| MissingFiles::new(heal), |before| before.missing.under(heal)),
            visited: before.map_or_else(|| TimedCache::new(ALIVE), |before| before.visited.clone()),
            callers: before.map_or_else(|| TimedCache::new(ADDRESSES), |before| before.callers.clone()),
            asked: before.map_or_else(SingleFlight::here, |before| before.asked.clone()),
            mends: before.map(|before| Arc::clone(&before.mends)).unwrap_or_default(),
            readers: before.map(|before| Arc::clone(&before.readers)).unwrap_or_default(),
            expiries: expiries.map_or_else(
                || Arc::new(MassExpiryDetector::new(heal.mass_expiry)),
                |before| Arc::clone(&before.expiries),
            ),
            sweeping: before.map(|before| Arc::clone(&before.sweeping)).unwrap_or_default(),
            base64: DirectSupport::default(),
            base64_with_slash: DirectSupport::default(),
            clients: clients.map_or_else(
                || {
                    let most = NonZeroU32::new(heal.per_client).unwrap_or(NonZeroU32::MIN);
                    Arc::new(RateLimiter::keyed(Quota::per_minute(most)))
                },
                |before| Arc::clone(&before.clients),
            ),
            waiting: waiting.map_or_else(
                || Arc::new(Semaphore::new(heal.max_waiting)),
                |before| Arc::clone(&before.waiting),
            ),
            filed: TimedCache::new(FILED),
            witness: Mutex::new(None),
            settings,
        }
    }
}

/// What is known of the probes of an image server stays.
fn probe_of(before: Option<&Ward>, mark: u64) -> Arc<TruthfulProbe> {
    let at = |ward: &Ward| ward.marks.iter().position(|other| *other == mark);
    before.and_then(|ward| Some(Arc::clone(&ward.probes[at(ward)?]))).unwrap_or_default()
}

/// One for each presentation route.
fn services(
    settings: &Settings,
    servers: &[Arc<dyn SendRequest>],
    index: &Arc<Index>,
    cluster: Option<&Arc<Cluster>>,
    metrics: &Arc<Metrics>,
    before: Option<&Ward>,
) -> Vec<Arc<CanvasService>> {
    let mut lanes: Vec<(&UpstreamUrl, Arc<PrioritySemaphore>)> = Vec::new();
    let mut services = Vec::new();
    for (route, of) in settings.routes.iter().enumerate() {
        if of.kind != RouteKind::Presentation {
            continue;
        }
        let old = before.and_then(|ward| ward.services.iter().find(|service| service.mark == of.mark()));
        // Two routes to one server share its lanes: politeness is owed to the server.
        let server = &of.upstream;
        let is_same =
            |other: &UpstreamUrl| (&other.scheme, &other.authority) == (&server.scheme, &server.authority);
        let own = lanes.iter().find(|(other, _)| is_same(other)).map(|(_, lanes)| Arc::clone(lanes));
        let own = own.unwrap_or_else(|| {
            let own = old.map_or_else(
                || PrioritySemaphore::new(settings.heal.concurrency),
                |old| Arc::clone(&old.lanes),
            );
            own.resize(settings.heal.concurrency);
            lanes.push((server, Arc::clone(&own)));
            own
        });
        let (upstream, metrics) = (Arc::clone(&servers[route]), Arc::clone(metrics));
        let (cluster, old) = (cluster.cloned(), old.map(|old| &**old));
        let upstream = (upstream, Arc::clone(index));
        let service = CanvasService::new(route, upstream, own, settings, cluster, metrics, old);
        services.push(Arc::new(service));
    }
    services
}
