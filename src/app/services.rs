//! Builds the services from settings, and again after a reload.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::StartError;
use crate::admin;
use crate::batch::command::BatchServices;
use crate::cache::CacheState;
use crate::cluster::Cluster;
use crate::config::settings::IndexStore;
use crate::config::{Reload, Settings};
use crate::heal::{Healer, SendRequest};
use crate::index::Index;
use crate::index::learn::traffic::TrafficLearner;
use crate::index::recover;
use crate::index::shared::publisher::IndexReplicator;
use crate::index::sources::scheduler::SourceScheduler;
use crate::observe::{EventKind, Metrics};
use crate::presentation::{PresentationProxy, PresentationState};
use crate::proxy::{Proxy, ProxyState};
use crate::setup::SetupStatus;
use crate::upstream::fetch::FetcherFactory;
use crate::upstream::{MemoryBudget, Routing, Upstream};

/// All services under one configuration. A request keeps the `Services` with which it began.
#[derive(Debug)]
pub(super) struct Services {
    pub(super) settings: Arc<Settings>,
    pub(super) upstreams: Vec<Arc<Upstream>>,
    /// The other nodes.
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) healer: Healer,
    learner: Option<TrafficLearner>,
    pub(super) proxy: Proxy,
}

/// State that lasts as long as the process, and is built once.
#[derive(Debug)]
pub(super) struct ProcessState {
    pub(super) index: Arc<Index>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) budget: MemoryBudget,
    pub(super) setup: SetupStatus,
    pub(super) cache: CacheState,
    proxy: ProxyState,
    presentation: PresentationState,
}

impl ProcessState {
    pub(super) fn new(settings: &Settings, index: Arc<Index>, metrics: Arc<Metrics>) -> Self {
        let budget = MemoryBudget::new(settings.server.max_held_total, metrics.held_bytes.clone());
        let cache = CacheState::new(settings.cache.memory, &metrics);
        let proxy = ProxyState::new(budget.clone(), cache.clone(), Arc::clone(&metrics));
        let presentation = PresentationState::new(Arc::clone(&index), budget.clone(), Arc::clone(&metrics));
        Self { index, metrics, budget, setup: SetupStatus::default(), cache, proxy, presentation }
    }
}

impl Services {
    /// Builds everything that these settings decide. Connections to servers that stay, requests under way and all that is
    /// remembered are taken over from the services `before`.
    pub(super) fn build(
        settings: Arc<Settings>,
        state: &ProcessState,
        before: Option<&Self>,
    ) -> Result<Self, StartError> {
        let ProcessState { index, metrics, .. } = state;
        let old = before.map(|before| (&*before.settings, &*before.upstreams));
        let upstreams = Upstream::for_routes(&settings, &metrics.upstream, old)?;
        let same_nodes = before.filter(|before| before.settings.cluster == settings.cluster);
        let cluster = match same_nodes {
            Some(before) => before.cluster.clone(),
            None => Cluster::start(&settings.cluster, metrics),
        };
        let (own, servers) = (Arc::clone(&settings), servers(&upstreams));
        let healer = match before {
            Some(before) => before.healer.reconfigure(own, servers, cluster.clone()),
            None => Healer::new(own, servers, Arc::clone(index), cluster.clone(), Arc::clone(metrics)),
        };
        let longest = settings.presentation.max_body;
        let same_bound = same_nodes.filter(|before| before.settings.presentation.max_body == longest);
        let kept = same_bound.and_then(|before| before.learner.clone());
        let start =
            || TrafficLearner::start(Arc::clone(index), cluster.clone(), longest, Arc::clone(metrics));
        let learner = settings.index.learn.then(|| kept.unwrap_or_else(start));
        let routing = Routing { settings: Arc::clone(&settings), upstreams: upstreams.clone() };
        let presenter =
            PresentationProxy::new(routing.clone(), healer.clone(), learner.clone(), &state.presentation);
        let proxy = Proxy::new(routing, healer.clone(), presenter, &state.proxy);
        Ok(Self { settings, upstreams, cluster, healer, learner, proxy })
    }

    /// Spawns the task that keeps the index up to date, from its sources or from editions of other nodes.
    pub(super) fn spawn_index_task(&self, state: &ProcessState) -> JoinHandle<()> {
        let (index, settings) = (Arc::clone(&state.index), Arc::clone(&self.settings));
        let metrics = Arc::clone(&state.metrics);
        match &self.cluster {
            Some(cluster) if settings.index.store == IndexStore::Redis => {
                let cluster = Arc::clone(cluster);
                tokio::spawn(IndexReplicator { index, settings, cluster, metrics }.run())
            }
            _ => tokio::spawn(SourceScheduler::new(index, settings, metrics).run()),
        }
    }

    /// State that the admin pages read.
    pub(super) fn admin_state(
        &self,
        state: &ProcessState,
        reload: Option<Reload>,
        step_log: &admin::HealStepLog,
        stop: &watch::Sender<bool>,
    ) -> admin::AdminState {
        admin::AdminState {
            settings: Arc::clone(&self.settings),
            metrics: Arc::clone(&state.metrics),
            index: Arc::clone(&state.index),
            healer: self.healer.clone(),
            cache: state.cache.clone(),
            upstreams: self.upstreams.clone(),
            setup: state.setup.clone(),
            reload,
            step_log: step_log.clone(),
            stopping: stop.subscribe(),
        }
    }
}

/// Upstreams, in the form that the healer needs.
fn servers(upstreams: &[Arc<Upstream>]) -> Vec<Arc<dyn SendRequest>> {
    upstreams.iter().map(|upstream| Arc::clone(upstream) as Arc<dyn SendRequest>).collect()
}

/// Opens the index, with its access to sources. An unusable index is begun anew.
pub(super) fn open_index(settings: &Arc<Settings>, metrics: &Metrics) -> Result<Arc<Index>, StartError> {
    let web = FetcherFactory::new(Arc::clone(settings))?;
    let (index, trouble) = Index::open_in_any_case(&settings.index.path, settings.index.cache)?;
    if let Some(trouble) = trouble {
        metrics.event(EventKind::IndexBegunAnew);
        metrics.edge.degraded.begins(recover::PART, &trouble.told());
    }
    Ok(Arc::new(index.with_names(settings).with_web(web, Handle::current())))
}

/// Services that the batch commands need, without a listener.
pub fn batch_services(settings: Settings) -> Result<BatchServices, StartError> {
    let settings = Arc::new(settings);
    let index = Index::open(&settings.index.path, settings.index.cache)?.with_names(&settings);
    let index = Arc::new(index);
    let metrics = Arc::new(Metrics::new());
    let upstreams = Upstream::for_routes(&settings, &metrics.upstream, None)?;
    let cluster = Cluster::start(&settings.cluster, &metrics);
    let nodes = cluster.clone();
    let healer = Healer::new(Arc::clone(&settings), servers(&upstreams), Arc::clone(&index), nodes, metrics);
    let web = FetcherFactory::new(Arc::clone(&settings))?;
    Ok(BatchServices { settings, index, healer, cluster, web })
}
