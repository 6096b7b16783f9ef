//! Plays one case: the real healer over the model, in virtual time.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Request;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::canvas_service::SimCanvasService;
use super::case::{Case, ImageWant, SimAct, SimFault};
use super::check::{ReaderResult, SimExchange};
use super::image_server::{SimImageServer, StrayServer};
use super::library::{IMAGES, Image, SERVICES};
use super::model::Model;
use super::settings::settings;
use super::world::Cache;
use crate::cluster::{Cluster, RedisHealth, SimulatedRedis};
use crate::config::Settings;
use crate::config::settings::{RouteSettings, Timeouts};
use crate::heal::{
    ExchangeError, HealedExchange, Healer, ImageCheck, ImageExchange, ImageHealResult, Priority, RoutedImage,
    SendRequest,
};
use crate::iiif::ImageRequest;
use crate::index::Index;
use crate::index::history::writer::HistoryWriter;
use crate::observe::{Metrics, RequestTrace};
use crate::upstream::{Caller, MemoryBudget};

/// `Node` is one of us.
#[derive(Debug)]
pub(super) struct Node {
    healer: Mutex<Healer>,
    cluster: Option<Arc<Cluster>>,
    pub(super) metrics: Arc<Metrics>,
}

/// `CaseRun` is a case that is being played.
#[derive(Debug)]
pub(super) struct CaseRun {
    pub(super) model: Arc<Model>,
    pub(super) nodes: Vec<Node>,
    /// Requests so far: each goes to the next node.
    requests: AtomicUsize,
    pub(super) servers: Vec<Arc<dyn SendRequest>>,
    /// Positions of the image routes, by site.
    routes: [usize; 2],
    /// Positions of the canvas services' routes.
    pub(super) services: [usize; 2],
    pub(super) settings: Arc<Settings>,
    manifests: PathBuf,
    pub(super) index: Arc<Index>,
    shared: Arc<SimulatedRedis>,
    pub(super) budget: MemoryBudget,
}

impl Node {
    fn new(settings: &Arc<Settings>, servers: &[Arc<dyn SendRequest>], index: &Arc<Index>) -> Self {
        let metrics = Arc::new(Metrics::new());
        let cluster = Cluster::start(&settings.cluster, &metrics);
        let healer = Healer::simulated(
            Arc::clone(settings),
            servers.to_vec(),
            Arc::clone(index),
            cluster.clone(),
            Arc::clone(&metrics),
            HistoryWriter::idle(Arc::clone(&metrics)),
        );
        Self { healer: Mutex::new(healer), cluster, metrics }
    }

    fn healer(&self) -> Healer {
        self.healer.lock().clone()
    }
}

impl CaseRun {
    fn new(case: &Case, logs: bool) -> Arc<Self> {
        let world = &case.world;
        let model = Model::new(case.clone(), logs);
        let plain = settings(world, 1_000_000, Path::new("."));
        let (manifests, index) = model.library.index(world.stale_owners, world.files_known, &plain);
        let settings = settings(world, 1_000_000, &manifests);
        let server = |route: &RouteSettings| -> Arc<dyn SendRequest> {
            let site_of = |prefixes: [&str; 2]| prefixes.iter().position(|prefix| *prefix == &*route.prefix);
            match (site_of(IMAGES), site_of(SERVICES)) {
                (Some(site), _) => Arc::new(SimImageServer(Arc::clone(&model), site)),
                (_, Some(site)) => Arc::new(SimCanvasService(Arc::clone(&model), site)),
                _ => Arc::new(StrayServer(Arc::clone(&model))),
            }
        };
        let servers: Vec<_> = settings.routes.iter().map(server).collect();
        let route_of = |prefix: &str| settings.routes.iter().position(|route| &*route.prefix == prefix);
        let routes = IMAGES.map(|prefix| route_of(prefix).unwrap_or_default());
        let services = SERVICES.map(|prefix| route_of(prefix).unwrap_or_default());
        let shared = SimulatedRedis::of_this_thread();
        // The first case of a process creates the settings and the index, too; and names of nodes are random.
        fastrand::seed(1);
        let nodes: Vec<_> = (0..world.nodes).map(|_| Node::new(&settings, &servers, &index)).collect();
        model.set_healers(nodes.iter().map(Node::healer).collect(), routes);
        let budget = MemoryBudget::new(1 << 26, Gauge::default());
        let requests = AtomicUsize::new(0);
        Arc::new(Self {
            model,
            nodes,
            requests,
            servers,
            routes,
            services,
            settings,
            manifests,
            index,
            shared,
            budget,
        })
    }

    /// Healer of the next node, round robin.
    pub(super) fn healer(&self) -> Healer {
        self.nodes[self.requests.fetch_add(1, Ordering::Relaxed) % self.nodes.len()].healer()
    }

    /// Sends a reader's request to the healer, as the proxy does. `None`: the reader left.
    async fn asks(
        &self,
        image: usize,
        want: ImageWant,
        patience: Duration,
        cookie: bool,
    ) -> Option<ReaderResult> {
        let Image { id, leaf } = &self.model.library.images[image];
        let route = self.routes[self.model.library.site_of(*leaf)];
        let tail = match want {
            ImageWant::Info => "info.json".to_owned(),
            ImageWant::Tile(width) => format!("full/{width},/0/default.jpg"),
        };
        let mut request = Request::get(format!("/iiif/2/{id}/{tail}")).header("host", "images.invalid");
        if cookie {
            request = request.header("cookie", "session=1");
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let (trace, rest) = (RequestTrace::generate(), format!("{id}/{tail}"));
        let request = ImageRequest::parse(&rest).expect("an image request");
        let of = RoutedImage { route, request, trace: &trace };
        let caller = Caller::default();
        let exchange = ImageExchange {
            image: &of,
            head: &head,
            client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            lane: |_| Priority::Viewer,
            budget: &self.budget,
            caller: &caller,
            waited: Duration::ZERO,
        };
        let healer = self.healer();
        let times: Timeouts = self.settings.timeouts(route);
        let send = || self.servers[route].send(&caller, &head, times);
        let answered = timeout(patience, healer.answer(&exchange, send)).await.ok()?;
        Some(match answered {
            Ok(HealedExchange { response, outcome, healed }) => {
                ReaderResult::Answer { status: response.status().as_u16(), outcome, healed: healed.is_some() }
            }
            Err(ExchangeError::Pending(after)) => ReaderResult::Later { crowded: false, after },
            Err(ExchangeError::Crowded(after)) => ReaderResult::Later { crowded: true, after },
            Err(ExchangeError::Failed(_)) => ReaderResult::Failed,
        })
    }

    /// Sends a reader's request, and checks the result.
    pub(super) async fn reads(
        &self,
        image: usize,
        want: ImageWant,
        patience: u64,
        cookie: bool,
    ) -> Option<ReaderResult> {
        let exchange = SimExchange::begins(&self.model, image, want, cookie);
        let seen = self.asks(image, want, Duration::from_millis(patience), cookie).await;
        self.model.log(|| format!("reader {seen:?} of image {image} {want:?}"));
        if let Some(seen) = &seen {
            exchange.ends(&self.model, seen);
        }
        seen
    }

    fn acts(self: &Arc<Self>, act: SimAct) {
        let model = &self.model;
        model.log(|| format!("---- {act:?}"));
        match act {
            SimAct::Ask { image, want, readers, patience, cookie } => {
                for _ in 0..readers {
                    let run = Arc::clone(self);
                    tokio::spawn(async move { run.reads(image, want, patience, cookie).await });
                }
            }
            SimAct::Opened(book) => {
                self.healer().record_manifest_view(&model.library.book_path(book), &RequestTrace::generate());
            }
            SimAct::Fetch { document, viewers, patience } => {
                for _ in 0..viewers {
                    let run = Arc::clone(self);
                    tokio::spawn(async move { run.fetches(document, patience).await });
                }
            }
            SimAct::Flush => {
                model.loses_all();
                model.state().documents.clear();
            }
            SimAct::EvictKeys => model.loses_all(),
            SimAct::EvictDocuments => model.state().documents.clear(),
            SimAct::Expire(leaf) => model.loses(leaf),
            SimAct::ImagesRestart => model.images_restart(),
            SimAct::Reload => {
                let settings = settings(model.world(), 1_000_001, &self.manifests);
                for node in &self.nodes {
                    let cluster = node.cluster.clone();
                    let healer =
                        node.healer().reconfigure(Arc::clone(&settings), self.servers.clone(), cluster);
                    *node.healer.lock() = healer;
                }
                model.set_healers(self.nodes.iter().map(Node::healer).collect(), self.routes);
            }
            SimAct::FlushShared => self.shared.flush(),
            SimAct::Mend(image) => {
                let run = Arc::clone(self);
                tokio::spawn(async move { run.mends(image).await });
            }
        }
    }

    /// Heals an image as batch does.
    async fn mends(&self, image: usize) {
        let (healer, of) = (self.healer(), &self.model.library.images[image]);
        let owners = self.index.owners(&of.id).expect("an index");
        let Some(known) = healer.image_by_key(&of.id, owners.first().cloned()) else { return };
        if healer.check_image(&known, false).await != ImageCheck::Expired {
            return;
        }
        let began = self.model.now();
        let mended = healer.heal_image(&healer.with_owners(&known)).await;
        self.model.log(|| format!("batch  {mended:?} of image {image}"));
        let gone = &self.model.case.gone;
        let all_the_time =
            gone.iter().any(|gone| gone.leaf == of.leaf && gone.from <= began && self.model.now() < gone.to);
        // In a fault, or behind a login, the image cannot be seen; out of a source cache it is served nevertheless.
        let troubled = self.model.case.troubled(began, self.model.now(), |_| true)
            || self.model.world().login
            || self.model.world().cache == Cache::Source;
        if all_the_time && !troubled && matches!(mended.ending, ImageHealResult::Healed(_)) {
            self.model
                .breaks(format!("(8) batch says {:?} of image {image}, whose file is gone", mended.ending));
        }
    }

    /// Two seconds after the last fault: everything heals at the first request.
    async fn ends(self: &Arc<Self>) {
        let model = &self.model;
        let rest = Duration::from_millis(2_100) + model.world().canvas();
        sleep_until(model.start + Duration::from_millis(model.case.end()) + rest).await;
        self.documents_are_whole().await;
        for round in 0..2 {
            model.log(|| format!("---- all images, round {round}"));
            let readers = model.case.last.iter().map(|image| {
                let image = *image;
                let run = Arc::clone(self);
                tokio::spawn(async move { run.reads_to_the_end(image, ImageWant::Tile(200 + round)).await })
            });
            for reader in readers.collect::<Vec<_>>() {
                reader.await.expect("a reader");
            }
            if round == 0 {
                model.loses_all(); // once more, with every canvas still stored
            }
        }
    }

    /// Sends a reader's request again after `Retry-After`, until it has a final answer.
    async fn reads_to_the_end(&self, image: usize, want: ImageWant) {
        let all = u32::try_from(self.model.library.images.len()).expect("few");
        let deadline = Instant::now() + self.model.world().canvas() * all * 2 + Duration::from_mins(3);
        while let Some(ReaderResult::Later { after, .. }) =
            self.reads(image, want, u64::MAX >> 20, true).await
        {
            if Instant::now() > deadline {
                // Where a heal takes longer than a reader waits, a reader of a missing file is told to come again.
                let (leaf, now) = (self.model.library.images[image].leaf, self.model.now());
                let site = self.model.library.site_of(leaf);
                if self.model.file_is_gone(leaf) && SimExchange::may_take_long(&self.model, site, now, now) {
                    return;
                }
                self.model.breaks(format!("(5) image {image} is never back"));
                return;
            }
            sleep(after).await;
        }
    }
}

/// Plays a case; returns the broken promises, and the log if it is wanted.
pub(super) fn play(case: &Case, logs: bool) -> (Vec<String>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let model = runtime.block_on(async {
        let run = CaseRun::new(case, logs);
        fastrand::seed(1);
        // Ends at once where no source is kept warm. (A reload begins another one; here the first goes on.)
        let mut always = Vec::new();
        for healer in run.nodes.iter().map(Node::healer) {
            let fleet = healer.clone();
            always.push(tokio::spawn(async move { healer.keep_warm().await }));
            always.push(tokio::spawn(async move { fleet.follow_cluster().await }));
        }
        for trouble in case.troubles.iter().filter(|_| case.world.nodes > 1) {
            let SimFault::Shared(hangs) = trouble.fault else { continue };
            let (run, trouble) = (Arc::clone(&run), *trouble);
            tokio::spawn(async move {
                sleep_until(run.model.start + Duration::from_millis(trouble.from)).await;
                run.shared.set_health(if hangs { RedisHealth::Hangs } else { RedisHealth::Away });
                sleep_until(run.model.start + Duration::from_millis(trouble.to)).await;
                run.shared.set_health(RedisHealth::Well);
            });
        }
        for at in &case.acts {
            sleep_until(run.model.start + Duration::from_millis(at.ms)).await;
            run.acts(at.act);
        }
        run.ends().await;
        always.iter().for_each(tokio::task::JoinHandle::abort);
        run.check_at_rest().await;
        let model = Arc::clone(&run.model);
        model.set_healers(Vec::new(), [0; 2]);
        // The nodes leave, and with them the tasks that keep them joined.
        drop(run);
        SimulatedRedis::ends();
        sleep(Duration::from_millis(10)).await;
        let alive = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        if alive > 0 {
            model.breaks(format!("(7) {alive} tasks are alive at the end"));
        }
        model
    });
    let state = model.state();
    (state.broken.clone(), state.log.clone())
}
