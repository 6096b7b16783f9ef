//! Builds the rooms from settings, and builds them again from others.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::StartError;
use crate::admin;
use crate::batch::command::Rooms;
use crate::cluster::Cluster;
use crate::config::settings::Store;
use crate::config::{Reload, Settings};
use crate::heal::{Healer, SendRequest};
use crate::index::Index;
use crate::index::keeper::Keeper;
use crate::index::learn::Learner;
use crate::index::press::Press;
use crate::index::recover;
use crate::observe::Metrics;
use crate::presentation::Presenter;
use crate::proxy::Proxy;
use crate::upstream::fetch::Web;
use crate::upstream::{Budget, Upstream};

/// All rooms under one configuration. A request that has begun ends in the house in which it began.
#[derive(Debug)]
pub(super) struct House {
    pub(super) settings: Arc<Settings>,
    pub(super) upstreams: Vec<Arc<Upstream>>,
    /// The other nodes.
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) healer: Healer,
    presenter: Presenter,
    learner: Option<Learner>,
    pub(super) budget: Budget,
    pub(super) proxy: Proxy,
}

impl House {
    /// The first.
    pub(super) fn build(
        settings: Arc<Settings>,
        index: &Arc<Index>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let upstreams = Upstream::of_routes(&settings, &metrics.upstream, None)?;
        let cluster = Cluster::start(&settings.cluster, metrics);
        let (own, nodes) = (Arc::clone(&settings), cluster.clone());
        let healer = Healer::new(own, servers(&upstreams), Arc::clone(index), nodes, Arc::clone(metrics));
        let longest = settings.presentation.max_body;
        let start = || Learner::start(Arc::clone(index), cluster.clone(), longest, Arc::clone(metrics));
        let learner = settings.index.learn.then(start);
        let budget = Budget::new(settings.server.max_held_total, metrics.held_bytes.clone());
        let presenter = Presenter::new(
            Arc::clone(&settings),
            upstreams.clone(),
            healer.clone(),
            Arc::clone(index),
            learner.clone(),
            budget.clone(),
            Arc::clone(metrics),
        );
        let (own, metrics) = (Arc::clone(&settings), Arc::clone(metrics));
        let rooms = (upstreams.clone(), healer.clone(), presenter.clone());
        let proxy = Proxy::new(own, rooms.0, rooms.1, rooms.2, budget.clone(), metrics);
        Ok(Self { settings, upstreams, cluster, healer, presenter, learner, budget, proxy })
    }

    /// Keeps the index up to date, from its sources or from what other nodes publish.
    pub(super) fn keep_index(&self, index: &Arc<Index>, metrics: &Arc<Metrics>) -> JoinHandle<()> {
        let (index, settings) = (Arc::clone(index), Arc::clone(&self.settings));
        match &self.cluster {
            Some(cluster) if settings.index.store == Store::Redis => {
                tokio::spawn(Press::new(index, settings, Arc::clone(cluster), Arc::clone(metrics)).run())
            }
            _ => tokio::spawn(Keeper::new(index, settings, Arc::clone(metrics)).run()),
        }
    }

    /// What the admin pages look into.
    pub(super) fn for_operators(
        &self,
        index: &Arc<Index>,
        metrics: &Arc<Metrics>,
        reload: Option<Reload>,
        diary: &admin::Diary,
        stop: &watch::Sender<bool>,
    ) -> admin::Rooms {
        admin::Rooms {
            settings: Arc::clone(&self.settings),
            metrics: Arc::clone(metrics),
            index: Arc::clone(index),
            healer: self.healer.clone(),
            upstreams: self.upstreams.clone(),
            reload,
            diary: diary.clone(),
            stopping: stop.subscribe(),
        }
    }

    /// The next: connections to servers that stay, everything under way and everything remembered go over.
    pub(super) fn under(
        &self,
        settings: Arc<Settings>,
        index: &Arc<Index>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let before = Some((&*self.settings, &*self.upstreams));
        let upstreams = Upstream::of_routes(&settings, &metrics.upstream, before)?;
        let same_nodes = self.settings.cluster == settings.cluster;
        let cluster =
            if same_nodes { self.cluster.clone() } else { Cluster::start(&settings.cluster, metrics) };
        let healer = self.healer.reconfigure(Arc::clone(&settings), servers(&upstreams), cluster.clone());
        let longest = settings.presentation.max_body;
        let start = || Learner::start(Arc::clone(index), cluster.clone(), longest, Arc::clone(metrics));
        let same_bound = self.settings.presentation.max_body == longest;
        let kept = self.learner.clone().filter(|_| same_nodes && same_bound);
        let learner = settings.index.learn.then(|| kept.unwrap_or_else(start));
        let budget = self.budget.clone();
        let (own, listening, held) = (Arc::clone(&settings), learner.clone(), budget.clone());
        let presenter = self.presenter.under(own, upstreams.clone(), healer.clone(), listening, held);
        let (own, shown, held) = (Arc::clone(&settings), presenter.clone(), budget.clone());
        let proxy = self.proxy.under(own, upstreams.clone(), healer.clone(), shown, held);
        Ok(Self { settings, upstreams, cluster, healer, presenter, learner, budget, proxy })
    }
}

/// The same servers, as the healer asks them.
fn servers(upstreams: &[Arc<Upstream>]) -> Vec<Arc<dyn SendRequest>> {
    upstreams.iter().map(|upstream| Arc::clone(upstream) as Arc<dyn SendRequest>).collect()
}

/// The index, with all that it needs to look at its sources. One that cannot be used is begun anew.
pub(super) fn open_index(settings: &Arc<Settings>, metrics: &Metrics) -> Result<Arc<Index>, StartError> {
    let web = Web::new(Arc::clone(settings))?;
    let (index, trouble) = Index::open_in_any_case(&settings.index.path, settings.index.cache)?;
    if let Some(trouble) = trouble {
        metrics.event("index_begun_anew");
        metrics.edge.degraded.begins(recover::PART, &trouble.told());
    }
    Ok(Arc::new(index.with_names(settings).with_web(web, Handle::current())))
}

/// The rooms that the batch commands need, without a socket of our own.
pub fn batch_rooms(settings: Settings) -> Result<Rooms, StartError> {
    let settings = Arc::new(settings);
    let index = Index::open(&settings.index.path, settings.index.cache)?.with_names(&settings);
    let index = Arc::new(index);
    let metrics = Arc::new(Metrics::new());
    let upstreams = Upstream::of_routes(&settings, &metrics.upstream, None)?;
    let cluster = Cluster::start(&settings.cluster, &metrics);
    let nodes = cluster.clone();
    let healer = Healer::new(Arc::clone(&settings), servers(&upstreams), Arc::clone(&index), nodes, metrics);
    let web = Web::new(Arc::clone(&settings))?;
    Ok(Rooms { settings, index, healer, cluster, web })
}
