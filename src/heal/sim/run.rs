//! Plays one case: the real healer over the model, in virtual time.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::{Request, Response};
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::canvas_service::{BY_VIEWER, CanvasService, LATE};
use super::case::{Act, Cache, Case, Document, WAIT, Want};
use super::check::{Exchange, Seen};
use super::image_server::{ImageServer, StrayServer};
use super::model::Model;
use super::settings::settings;
use crate::config::Settings;
use crate::config::settings::{Route, Timeouts};
use crate::heal::{
    Answered, Healer, ImageCheck, ImageExchange, ImageHealResult, Priority, RoutedImage, SendRequest,
    Unanswered,
};
use crate::iiif::ImageRequest;
use crate::index::Index;
use crate::index::recorder::Recorder;
use crate::observe::{Metrics, Trace};
use crate::upstream::{Body, Budget, Caller, UpstreamError};

/// `Run` is a case that is being played.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) model: Arc<Model>,
    healer: Mutex<Healer>,
    servers: Vec<Arc<dyn SendRequest>>,
    /// Position of the image route.
    route: usize,
    /// Position of the canvas service's route.
    service: usize,
    settings: Arc<Settings>,
    manifests: PathBuf,
    index: Arc<Index>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) budget: Budget,
}

impl Run {
    fn new(case: &Case, logs: bool) -> Arc<Self> {
        let world = &case.world;
        let model = Model::new(case.clone(), logs);
        let plain = settings(world, 1_000_000, Path::new("."));
        let (manifests, index) = model.library.index(world.stale_owners, world.files_known, &plain);
        let settings = settings(world, 1_000_000, &manifests);
        let metrics = Arc::new(Metrics::new());
        let history = Recorder::idle(Arc::clone(&metrics));
        let server = |route: &Route| -> Arc<dyn SendRequest> {
            match &*route.prefix {
                "/iiif/2/" => Arc::new(ImageServer(Arc::clone(&model))),
                "/iiif-service/" => Arc::new(CanvasService(Arc::clone(&model))),
                _ => Arc::new(StrayServer(Arc::clone(&model))),
            }
        };
        let servers: Vec<_> = settings.routes.iter().map(server).collect();
        let route_of = |prefix: &str| {
            settings.routes.iter().position(|route| &*route.prefix == prefix).expect("a route")
        };
        let (route, service) = (route_of("/iiif/2/"), route_of("/iiif-service/"));
        let healer = Healer::simulated(
            Arc::clone(&settings),
            servers.clone(),
            Arc::clone(&index),
            Arc::clone(&metrics),
            history,
        );
        model.set_healer(Some((healer.clone(), route)));
        let budget = Budget::new(1 << 26, Gauge::default());
        Arc::new(Self {
            model,
            healer: Mutex::new(healer),
            servers,
            route,
            service,
            settings,
            manifests,
            index,
            metrics,
            budget,
        })
    }

    pub(super) fn healer(&self) -> Healer {
        self.healer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One request of a reader, as the proxy sends it to the healer. `None`: the reader left.
    async fn asks(&self, image: usize, want: Want, patience: Duration, cookie: bool) -> Option<Seen> {
        let id = &self.model.library.images[image].id;
        let tail = match want {
            Want::Info => "info.json".to_owned(),
            Want::Tile(width) => format!("full/{width},/0/default.jpg"),
        };
        let mut request = Request::get(format!("/iiif/2/{id}/{tail}")).header("host", "images.invalid");
        if cookie {
            request = request.header("cookie", "session=1");
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let (trace, rest) = (Trace::fresh(), format!("{id}/{tail}"));
        let request = ImageRequest::parse(&rest).expect("an image request");
        let of = RoutedImage { route: self.route, request, trace: &trace };
        let caller = Caller::default();
        let exchange = ImageExchange {
            image: &of,
            head: &head,
            client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            lane: |_| Priority::Viewer,
            budget: &self.budget,
            caller: &caller,
        };
        let healer = self.healer();
        let times: Timeouts = self.settings.timeouts(self.route);
        let send = || self.servers[self.route].send(&caller, &head, times);
        let answered = timeout(patience, healer.answer(&exchange, send)).await.ok()?;
        Some(match answered {
            Ok(Answered { response, outcome, healed }) => {
                Seen::Answer { status: response.status().as_u16(), outcome, healed: healed.is_some() }
            }
            Err(Unanswered::Pending(after)) => Seen::Later { crowded: false, after },
            Err(Unanswered::Crowded(after)) => Seen::Later { crowded: true, after },
            Err(Unanswered::Failed(_)) => Seen::Failed,
        })
    }

    /// The same, and what it must have been.
    pub(super) async fn reads(&self, image: usize, want: Want, patience: u64, cookie: bool) -> Option<Seen> {
        let exchange = Exchange::begins(&self.model, image, want, cookie);
        let seen = self.asks(image, want, Duration::from_millis(patience), cookie).await;
        self.model.log(|| format!("reader {seen:?} of image {image} {want:?}"));
        if let Some(seen) = &seen {
            exchange.ends(&self.model, seen);
        }
        seen
    }

    /// One viewer's own request for a document, through the door, as the proxy sends it.
    async fn fetches(&self, document: Document, patience: u64) {
        let library = self.model.library;
        let path = match document {
            Document::Canvas(leaf) => format!("/iiif-service/fedora/canvas/{}", library.leaves[leaf].path),
            Document::Manifest(book) => format!("/iiif-service/fedora/presentation/{}", library.books[book]),
        };
        let (healer, from, began) = (self.healer(), self.model.now(), Instant::now());
        let has_document = |answer: &Result<Response<Body>, UpstreamError>| {
            answer.as_ref().is_ok_and(|answer| answer.status().is_success())
        };
        let fetched = timeout(Duration::from_millis(patience), async {
            let admitted = std::future::ready(Ok::<_, Duration>(()));
            let (request, ()) = healer.viewer_request(self.service, &path, admitted).await?;
            let late = if began.elapsed() < WAIT { "in time" } else { LATE };
            let head = Request::get(&path).header("host", "service.invalid").header(BY_VIEWER, late).body(());
            let (head, ()) = head.expect("a request").into_parts();
            let (caller, times) = (Caller::default(), self.settings.timeouts(self.service));
            let sent = self.servers[self.service].send(&caller, &head, times);
            Ok::<_, Duration>(match request {
                Some(request) => request.hold(sent, has_document).await,
                None => sent.await,
            })
        });
        let fetched = fetched.await;
        self.model.log(|| {
            format!(
                "viewer {:?} of {document:?}",
                fetched.as_ref().map(|got| got.as_ref().map(|got| got.as_ref().map(http::Response::status)))
            )
        });
        match fetched {
            Ok(Ok(Ok(answer))) if answer.status().is_success() => {
                healer.manifest_opened(&path, &Trace::fresh());
            }
            Ok(Err(_)) if began.elapsed() < WAIT => {
                self.model.breaks(format!("(1) {document:?} is refused after {:?}", began.elapsed()));
            }
            // Slow canvases fill all places, and so does what hangs.
            Ok(Err(_)) if !Exchange::may_take_long(&self.model, from, self.model.now()) => {
                self.model.breaks(format!("(1) {document:?} is refused after {:?}", began.elapsed()));
            }
            _ => {}
        }
    }

    fn acts(self: &Arc<Self>, act: Act) {
        let model = &self.model;
        model.log(|| format!("---- {act:?}"));
        match act {
            Act::Ask { image, want, readers, patience, cookie } => {
                for _ in 0..readers {
                    let run = Arc::clone(self);
                    tokio::spawn(async move { run.reads(image, want, patience, cookie).await });
                }
            }
            Act::Opened(book) => {
                let path = format!("/iiif-service/fedora/presentation/{}", model.library.books[book]);
                self.healer().manifest_opened(&path, &Trace::fresh());
            }
            Act::Fetch { document, viewers, patience } => {
                for _ in 0..viewers {
                    let run = Arc::clone(self);
                    tokio::spawn(async move { run.fetches(document, patience).await });
                }
            }
            Act::Flush => {
                model.loses_all();
                model.state().documents.clear();
            }
            Act::EvictKeys => model.loses_all(),
            Act::EvictDocuments => model.state().documents.clear(),
            Act::Expire(leaf) => model.loses(leaf),
            Act::ImagesRestart => model.images_restart(),
            Act::Reload => {
                let settings = settings(model.world(), 1_000_001, &self.manifests);
                let healer = self.healer().reconfigure(settings, self.servers.clone(), None);
                model.set_healer(Some((healer.clone(), self.route)));
                *self.healer.lock().unwrap_or_else(PoisonError::into_inner) = healer;
            }
            Act::Mend(image) => {
                let run = Arc::clone(self);
                tokio::spawn(async move { run.mends(image).await });
            }
        }
    }

    /// As batch does.
    async fn mends(&self, image: usize) {
        let (healer, of) = (self.healer(), &self.model.library.images[image]);
        let owners = self.index.owners(&of.id).expect("an index");
        let Some(known) = healer.image(&of.id, owners.first().cloned()) else { return };
        if healer.look(&known, false).await != ImageCheck::Expired {
            return;
        }
        let began = self.model.now();
        let mended = healer.mend(&healer.with_owners(&known)).await;
        self.model.log(|| format!("batch  {mended:?} of image {image}"));
        let gone = &self.model.case.gone;
        let all_the_time =
            gone.iter().any(|gone| gone.leaf == of.leaf && gone.from <= began && self.model.now() < gone.to);
        // In trouble, or behind a login, nobody sees it; out of a source cache it is served all the same.
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
        for round in 0..2 {
            model.log(|| format!("---- all images, round {round}"));
            let readers = model.case.last.iter().map(|image| {
                let image = *image;
                let run = Arc::clone(self);
                tokio::spawn(async move { run.reads_to_the_end(image, Want::Tile(200 + round)).await })
            });
            for reader in readers.collect::<Vec<_>>() {
                reader.await.expect("a reader");
            }
            if round == 0 {
                model.loses_all(); // once more, with every canvas still stored
            }
        }
    }

    /// A reader who comes again when he is told to.
    async fn reads_to_the_end(&self, image: usize, want: Want) {
        let all = u32::try_from(self.model.library.images.len()).expect("few");
        let deadline = Instant::now() + self.model.world().canvas() * all * 2 + Duration::from_mins(3);
        while let Some(Seen::Later { after, .. }) = self.reads(image, want, u64::MAX >> 20, true).await {
            if Instant::now() > deadline {
                // Where a heal takes longer than a reader waits, who asks for a file that is gone is told to come again.
                let (leaf, now) = (self.model.library.images[image].leaf, self.model.now());
                if self.model.file_is_gone(leaf) && Exchange::may_take_long(&self.model, now, now) {
                    return;
                }
                self.model.breaks(format!("(5) image {image} is never back"));
                return;
            }
            sleep(after).await;
        }
    }
}

/// What is broken in this case, and the log if it is wanted.
pub(super) fn play(case: &Case, logs: bool) -> (Vec<String>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let model = runtime.block_on(async {
        let run = Run::new(case, logs);
        // Whoever plays a world first has its settings and its index made, too.
        fastrand::seed(1);
        // Ends at once where no source is kept warm. (A reload begins another one; here the first goes on.)
        let warm = run.healer();
        let warm = tokio::spawn(async move { warm.keep_warm().await });
        for at in &case.acts {
            sleep_until(run.model.start + Duration::from_millis(at.ms)).await;
            run.acts(at.act);
        }
        run.ends().await;
        warm.abort();
        run.is_at_rest().await;
        let alive = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        if alive > 0 {
            run.model.breaks(format!("(7) {alive} tasks are alive at the end"));
        }
        run.model.set_healer(None);
        Arc::clone(&run.model)
    });
    let state = model.state();
    (state.broken.clone(), state.log.clone())
}
