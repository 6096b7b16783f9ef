//! The ladder over fakes, in virtual time.

mod direct;
mod evidence;
mod missing;
mod order;
mod rebuild;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{Request, StatusCode};
use hyper::Response;
use parking_lot::Mutex;

use super::{FollowUp, HealOutcome, HealReport, Ladder, Visits};
use crate::config::settings::{Rung, Timeouts};
use crate::heal::canvas_service::ask::{AskCanvasService, CanvasOrder};
use crate::heal::canvas_service::priority_semaphore::{Priority, PrioritySemaphore};
use crate::heal::canvas_service::registration::Registration;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::services::{CanvasServices, ImageDoubts};
use crate::heal::canvas_service::shared_heals::SharedHeals;
use crate::heal::canvas_service::{CanvasService, ServiceContext};
use crate::heal::cooldowns::{CanvasRequestKey, Cooldowns};
use crate::heal::evidence::Evidence;
use crate::heal::file_urls::FileUrls;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::image::IndexedImage;
use crate::heal::image_server::AskImageServer;
use crate::heal::missing_files::MissingFiles;
use crate::heal::missing_images::MissingImages;
use crate::heal::scripted::settings;
use crate::heal::server::{ResponseFuture, SendRequest};
use crate::heal::single_flight::{FlightHandle, SingleFlight};
use crate::heal::timed_cache::TimedCache;
use crate::iiif::Identifier;
use crate::iiif::identifier::uuid_of_file_url;
use crate::index::history::writer::HistoryWriter;
use crate::index::{Index, Owner};
use crate::observe::{Metrics, RequestTrace};
use crate::upstream::guard::CanvasGuard;
use crate::upstream::{Body, Caller, UpstreamError};

/// File URL of the image. Without a slash in its base64.
const FILE: &str = "https://lib.example/fcrepo/rest/obj/a/files/a.jpg";

const SMALL_TILE: &str = "full/16,/0/default.jpg";
const INFO: &str = "info.json";
const INFO_UNCACHED: &str = "info.json?cache=nocache";

/// `NoServer` is for tests that send nothing to a server.
#[derive(Debug)]
struct NoServer;

impl SendRequest for NoServer {
    fn send<'a>(&'a self, _: &'a Caller, _: &'a Parts, _: Timeouts) -> ResponseFuture<'a> {
        Box::pin(async { Err(UpstreamError::Busy) })
    }
}

/// `FakeImages` answers each tail of each identifier with a status, 404 where none is set.
#[derive(Debug, Default)]
struct FakeImages {
    statuses: Mutex<HashMap<(String, String), u16>>,
    probe: Mutex<Option<Evidence>>,
    /// Requests forwarded to the server.
    forwarded: Mutex<Vec<Parts>>,
    /// Status of the answer to forwarded requests.
    forward: Mutex<u16>,
}

impl FakeImages {
    fn set(&self, id: &str, tail: &str, status: u16) {
        self.statuses.lock().insert((id.to_owned(), tail.to_owned()), status);
    }
}

impl AskImageServer for FakeImages {
    fn forward<'a>(
        &'a self,
        _: &'a IndexedImage,
        head: &'a Parts,
        _: &'a Caller,
    ) -> BoxFuture<'a, Result<Response<Body>, UpstreamError>> {
        self.forwarded.lock().push(head.clone());
        let answer = Response::builder().status(*self.forward.lock()).body(Body::Empty);
        Box::pin(async { Ok(answer.expect("an answer")) })
    }

    fn status<'a>(
        &'a self,
        _: &'a IndexedImage,
        id: &'a str,
        tail: &'a str,
    ) -> BoxFuture<'a, Result<StatusCode, UpstreamError>> {
        let key = (id.to_owned(), tail.to_owned());
        let status = self.statuses.lock().get(&key).copied().unwrap_or(404);
        Box::pin(async move { StatusCode::from_u16(status).map_err(|_| UpstreamError::Busy) })
    }

    fn probe<'a>(&'a self, _: &'a IndexedImage) -> BoxFuture<'a, Evidence> {
        let evidence = self.probe.lock().unwrap_or(Evidence::Nothing);
        Box::pin(async move { evidence })
    }
}

/// `Answer` is one scripted answer: its time, and the registration of the image from `said_after` on.
#[derive(Debug, Clone)]
struct Answer {
    response: CanvasResponse,
    /// Wait for a permit, before the request is sent.
    queued: Duration,
    takes: Duration,
    said: Option<(Duration, Registration)>,
    has_echo: bool,
}

fn answer(response: CanvasResponse) -> Answer {
    Answer { response, queued: Duration::ZERO, takes: Duration::from_millis(20), said: None, has_echo: false }
}

/// The answer of a request that wrote the key.
fn heals(response: CanvasResponse) -> Answer {
    Answer { said: Some((Duration::ZERO, alive())), ..answer(response) }
}

fn alive() -> Registration {
    Registration::Alive(FILE.to_owned())
}

/// `FakeService` answers the requests of each rung from a script; the last answer is repeated.
#[derive(Debug)]
struct FakeService {
    said: Arc<Mutex<Registration>>,
    registrations: AtomicUsize,
    answers: Mutex<HashMap<Rung, VecDeque<Answer>>>,
    asked: Mutex<Vec<(Rung, String)>>,
    flights: SingleFlight<CanvasRequestKey, CanvasResponse>,
}

impl AskCanvasService for FakeService {
    fn registration<'a>(&'a self, _: &'a IndexedImage) -> BoxFuture<'a, Registration> {
        self.registrations.fetch_add(1, Ordering::Relaxed);
        let said = self.said.lock().clone();
        Box::pin(async { said })
    }

    fn request(self: Arc<Self>, order: &CanvasOrder<'_>) -> (FlightHandle<CanvasResponse>, bool) {
        let mut is_leader = false;
        let handle = self.flights.join_or_start(order.request, order.urgency.lane(), |urgency| {
            is_leader = true;
            let rung = order.request.rung;
            self.asked.lock().push((rung, order.request.target.to_string()));
            let mut answers = self.answers.lock();
            let scripted = answers.entry(rung).or_default();
            let next = if scripted.len() > 1 { scripted.pop_front() } else { scripted.front().cloned() };
            let next = next.unwrap_or_else(|| answer(CanvasResponse::Refused));
            let said = Arc::clone(&self.said);
            async move {
                tokio::time::sleep(next.queued).await;
                urgency.mark_sent();
                if next.has_echo {
                    urgency.note_echo();
                }
                let (before, news) = next.said.map_or((Duration::ZERO, None), |(at, said)| (at, Some(said)));
                tokio::time::sleep(before).await;
                if let Some(news) = news {
                    *said.lock() = news;
                }
                tokio::time::sleep(next.takes.saturating_sub(before)).await;
                next.response
            }
        });
        if !order.urgency.is_for_nobody() {
            handle.urgency.add_waiter();
        }
        order.urgency.depend_on(&handle.urgency);
        (handle, is_leader)
    }

    fn find(&self, request: &CanvasRequestKey) -> Option<FlightHandle<CanvasResponse>> {
        self.flights.find(request)
    }

    fn under_way(&self) -> usize {
        self.flights.len()
    }
}

/// `Scene` is a ladder over fakes, and one image that has expired.
struct Scene {
    ladder: Arc<Ladder>,
    images: Arc<FakeImages>,
    fake: Arc<FakeService>,
    services: Arc<CanvasServices>,
    missing: Arc<MissingImages>,
    index: Arc<Index>,
    image: IndexedImage,
    _folder: tempfile::TempDir,
}

/// The image of [`FILE`] on this route, owned by canvas `a`.
fn image(route: usize) -> IndexedImage {
    let uuid = uuid_of_file_url(FILE).to_string();
    IndexedImage {
        service: 0,
        route,
        mark: 7,
        key: uuid.as_str().into(),
        sent: uuid.as_str().into(),
        others: Arc::default(),
        kind: Identifier::new(&uuid).kind(),
        owners: Arc::new([owner("lib.example", "a")]),
        trace: RequestTrace::generate(),
    }
}

impl Scene {
    /// A scene with the shipped ladder; the image is owned by canvas `a`.
    fn new() -> Self {
        Self::with("")
    }

    /// A scene with these lines below `[heal]`.
    fn with(heal: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("index.sqlite3");
        let settings = settings(&path, heal);
        let index = Arc::new(Index::open(&path, 100).expect("an index"));
        let metrics = Arc::new(Metrics::new());
        let fleet = Arc::new(SharedHeals::new(None));
        let context = ServiceContext {
            server: Arc::new(NoServer),
            index: Arc::clone(&index),
            cluster: None,
            metrics: Arc::clone(&metrics),
        };
        let route = settings.routes.iter().position(|route| &*route.prefix == "/service/").expect("a route");
        let service = CanvasService::new(route, &settings, context, PrioritySemaphore::new(2), None);
        let history = HistoryWriter::idle(Arc::clone(&metrics));
        let files = FileUrls::new(Arc::clone(&index), history, Arc::clone(&fleet));
        let known = (vec![Arc::new(service)], CanvasGuard::new(Arc::clone(&settings)));
        let cooldowns = Cooldowns::new(&settings.heal);
        let doubts = ImageDoubts {
            images: TimedCache::new(100),
            healed: TimedCache::new(100),
            lasts: Duration::from_mins(1),
            readers: Arc::default(),
        };
        let services =
            CanvasServices::new(known, Arc::clone(&fleet), files, (cooldowns, doubts), Arc::clone(&metrics));
        let services = Arc::new(services);
        let missing = MissingFiles::new(&settings.heal);
        let missing = MissingImages::new(Arc::clone(&settings), Arc::clone(&services), fleet, missing);
        let (missing, images) = (Arc::new(missing), Arc::new(FakeImages::default()));
        let fake = Arc::new(FakeService {
            said: Arc::new(Mutex::new(Registration::Expired)),
            registrations: AtomicUsize::new(0),
            answers: Mutex::default(),
            asked: Mutex::default(),
            flights: SingleFlight::here(),
        });
        let asks: (Arc<dyn AskImageServer>, Arc<dyn AskCanvasService>) =
            (Arc::<FakeImages>::clone(&images), Arc::<FakeService>::clone(&fake));
        let ladder =
            Ladder::new(settings, asks, Arc::clone(&services), Arc::clone(&missing), Visits::new(100));
        let image = image(1 - route);
        let ladder = Arc::new(ladder);
        Self { ladder, images, fake, services, missing, index, image, _folder: folder }
    }

    /// Sets the canvases that own the image.
    fn owned_by(mut self, canvases: &[&str]) -> Self {
        self.image.owners = canvases.iter().map(|canvas| owner("lib.example", canvas)).collect();
        self
    }

    /// Makes the file URL known.
    fn with_file(self) -> Self {
        self.index.learn_file_url(uuid_of_file_url(FILE), FILE).expect("it is true");
        self
    }

    /// Sets whether the service builds beside.
    fn building_beside(self, honoured: bool) -> Self {
        self.service().heard_of_variants(honoured);
        self
    }

    /// Scripts the answers to requests of this rung.
    fn answering(self, rung: Rung, answers: impl IntoIterator<Item = Answer>) -> Self {
        self.fake.answers.lock().insert(rung, answers.into_iter().collect());
        self
    }

    fn service(&self) -> &Arc<CanvasService> {
        &self.services.all()[0]
    }

    fn says(&self, said: Registration) {
        *self.fake.said.lock() = said;
    }

    async fn run(&self) -> HealReport {
        self.run_for(Priority::Viewer).await
    }

    async fn run_for(&self, priority: Priority) -> HealReport {
        self.ladder.run(&self.image, &FlightPriority::new(priority)).await
    }

    async fn outcome(&self) -> HealOutcome {
        self.run().await.outcome
    }

    /// Rungs of the requests since the last call.
    fn rungs(&self) -> Vec<Rung> {
        self.targets().into_iter().map(|(rung, _)| rung).collect()
    }

    /// Rungs and targets of the requests since the last call.
    fn targets(&self) -> Vec<(Rung, String)> {
        std::mem::take(&mut *self.fake.asked.lock())
    }

    /// Names of the canvases requested since the last call.
    fn canvases(&self) -> Vec<String> {
        let name = |target: String| {
            let path = target.split('?').next().unwrap_or_default();
            path.rsplit('/').next().unwrap_or_default().to_owned()
        };
        self.targets().into_iter().map(|(_, target)| name(target)).collect()
    }
}

fn owner(host: &str, canvas: &str) -> Owner {
    let canvas = format!("https://{host}/service/fedora/canvas/obj/{canvas}");
    Owner { canvas, manifest: format!("https://{host}/service/fedora/presentation/obj"), label: None }
}

/// A reader's request for a tile of this identifier.
fn tile(id: &str) -> Parts {
    let request = Request::get(format!("/iiif/2/{id}/full/200,/0/default.jpg")).body(());
    request.expect("a request").into_parts().0
}
