//! Tests of one canvas service that answers by a script: what its answers prove.

use http::{HeaderValue, header};

use super::*;
use crate::heal::canvas_service::circuit_breaker::BreakerState;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::scripted::{ScriptedServer, settings};
use CanvasResponse::{Built, Busy, Carries, Lacks, Needless, Refused, Unclear, Unwell, Withheld};

const CANVAS: &str = "/service/fedora/canvas/obj/a";
const BESIDE: &str = "/service/fedora/canvas/obj/a?disallow=x-iiif-mender/none";
const BOOK: &str = "/service/fedora/presentation/obj";
const KEY: &str = "13c09e7b-ddb5-30f5-a4ce-eecebd330564";

/// `ServiceScene` is one canvas service.
struct ServiceScene {
    service: CanvasService,
    server: Arc<ScriptedServer>,
    _folder: tempfile::TempDir,
}

impl ServiceScene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("index.sqlite3");
        let settings = settings(&path, "");
        let server = Arc::<ScriptedServer>::default();
        let context = ServiceContext {
            server: Arc::<ScriptedServer>::clone(&server),
            index: Arc::new(Index::open(&path, 100).expect("an index")),
            cluster: None,
            metrics: Arc::new(Metrics::new()),
        };
        let route = settings.routes.iter().position(|route| &*route.prefix == "/service/").expect("a route");
        let service = CanvasService::new(route, &settings, context, PrioritySemaphore::new(2), None);
        Self { service, server, _folder: folder }
    }

    /// Requests this target, which is answered with this status and body.
    async fn gets(&self, target: &str, status: u16, body: &str, made: CacheStatus) -> CanvasResponse {
        self.server.set(target, status, body);
        self.service.get_canvas(target, KEY, &RequestTrace::generate(), made).await.0
    }

    fn opens_breaker(&self) {
        while self.service.breaker_is_closed() {
            self.service.record(Unwell);
        }
    }
}

/// A canvas of this path with this image.
fn canvas(path: &str, image: Option<&str>) -> String {
    let painted = image.map_or_else(String::new, |image| {
        format!(
            r#"{{"@type":"oa:Annotation","motivation":"sc:painting","resource":{{"@type":"dctypes:Image",
            "service":{{"@context":"http://iiif.io/api/image/2/context.json","@id":"https://lib.example/iiif/2/{image}"}}}}}}"#
        )
    });
    format!(
        r#"{{"@context":"http://iiif.io/api/presentation/2/context.json","@id":"https://lib.example{path}",
        "@type":"sc:Canvas","width":1,"height":1,"images":[{painted}]}}"#
    )
}

#[tokio::test(start_paused = true)]
async fn a_canvas_proves_what_it_shows_of_the_image() {
    let scene = ServiceScene::new();
    let (with, without) = (canvas(CANVAS, Some(KEY)), canvas(CANVAS, None));
    let strange = canvas("/service/fedora/canvas/obj/other", None);
    for (status, body, now, long_ago) in [
        (200, &*with, Built, Carries),
        (200, &without, Lacks, Lacks),
        (200, &canvas(CANVAS, Some("another")), Unclear, Unclear),
        (200, &strange, Unclear, Unclear),
        (200, "<html>", Unclear, Unclear),
        (500, &with, Refused, Refused),
        (404, "", Refused, Refused),
        (503, "", Unwell, Unwell),
        (429, "", Busy, Busy),
        (0, "", Unwell, Unwell),
    ] {
        assert_eq!(scene.gets(CANVAS, status, body, CacheStatus::Now).await, now, "{status} {body}");
        let old = scene.gets(CANVAS, status, body, CacheStatus::NowOrLongAgo).await;
        assert_eq!(old, long_ago, "{status} {body}");
    }
    assert_eq!(scene.service.requests_sent(), 20);
}

#[tokio::test(start_paused = true)]
async fn only_the_canvas_that_was_asked_for_tells_whether_it_was_built_beside() {
    let scene = ServiceScene::new();
    let known = || scene.service.variants.known(Instant::now());
    scene.gets(CANVAS, 200, &canvas(CANVAS, Some(KEY)), CacheStatus::Now).await;
    scene.gets(BESIDE, 200, &canvas("/service/fedora/canvas/obj/b", None), CacheStatus::Now).await;
    assert_eq!(known(), None);
    scene.gets(BESIDE, 200, &canvas(CANVAS, Some(KEY)), CacheStatus::Now).await;
    assert_eq!(known(), Some(false));
    scene.gets(BESIDE, 200, &canvas(BESIDE, Some(KEY)), CacheStatus::Now).await;
    assert_eq!(known(), Some(true));
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_was_built_shows_its_images_alive_and_nothing_else_does() {
    let uuid = KEY.parse().expect("a UUID");
    for (target, path, made, is_alive) in [
        (BOOK, BOOK, CacheStatus::Now, true),
        (BOOK, BOOK, CacheStatus::NowOrLongAgo, false),
        (BOOK, "/service/fedora/presentation/other", CacheStatus::Now, false),
        (CANVAS, CANVAS, CacheStatus::Now, false),
    ] {
        let scene = ServiceScene::new();
        let answer = scene.gets(target, 200, &canvas(path, Some(KEY)), made).await;
        assert_eq!(answer == Refused, path != target, "another manifest is no answer: {answer:?}");
        assert_eq!(
            scene.service.registrations.is_known_registered(uuid, None),
            is_alive,
            "{target} {made:?}"
        );
    }
    let scene = ServiceScene::new();
    assert_eq!(scene.gets(BOOK, 200, "<html>", CacheStatus::Now).await, Refused);
}

#[tokio::test(start_paused = true)]
async fn a_registration_is_one_request_and_its_status_tells() {
    for (status, answer) in [(200, Built), (500, Refused), (503, Unwell), (429, Busy), (0, Unwell)] {
        let scene = ServiceScene::new();
        scene.server.set("fedora/image/obj/a?update=true", status, "");
        let answered = scene.service.register("fedora/image/obj/a", &RequestTrace::generate()).await;
        assert_eq!((answered, scene.service.requests_sent()), (answer, 1), "{status}");
        assert_eq!(scene.service.fault_tracker.well_at(), None, "nothing was built: {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_is_its_body_and_other_answers_speak_for_themselves() {
    for (status, expected) in [(200, Ok("text")), (500, Err(Refused)), (503, Err(Unwell)), (0, Err(Unwell))] {
        let scene = ServiceScene::new();
        scene.server.set(BOOK, status, "text");
        let answer = scene.service.document(BOOK, &RequestTrace::generate()).await;
        assert_eq!(answer.as_deref().map_err(|answer| *answer), expected.map(str::as_bytes), "{status}");
        assert_eq!(scene.service.requests_sent(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_tell_whether_the_service_is_well() {
    for (answer, closes, is_healthy, builds) in [
        (Built, true, true, true),
        (Lacks, true, false, true),
        (Carries, true, true, false),
        (Unclear, true, true, false),
        (Refused, true, true, false),
        (Withheld, false, true, false),
        (Needless, false, true, false),
        (Busy, false, true, false),
    ] {
        let ServiceScene { service, .. } = &ServiceScene::new();
        let scene = ServiceScene::new();
        scene.opens_breaker();
        scene.service.record(answer);
        assert_eq!(scene.service.breaker_is_closed(), closes, "{answer:?}");
        assert_eq!(scene.service.recovered().is_some(), closes, "{answer:?}");
        service.record(answer);
        assert_eq!(service.recovered(), None, "it was closed all the time");
        let tracker = &service.fault_tracker;
        assert_eq!((tracker.is_healthy(), tracker.built_at().is_some()), (is_healthy, builds), "{answer:?}");
        assert_eq!(tracker.well_at().is_some(), answer == Built, "{answer:?}");
    }
    let scene = ServiceScene::new();
    scene.opens_breaker();
    assert_eq!(scene.service.breaker.state(Instant::now()), BreakerState::Open);
    scene.service.close_breaker();
    assert!(scene.service.breaker_is_closed() && scene.service.recovered().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_registered_does_not_show_that_canvases_are_built_whole() {
    let scene = ServiceScene::new();
    let (service, tracker) = (&scene.service, &scene.service.fault_tracker);
    scene.opens_breaker();
    tracker.record_fault();
    scene.server.set("/service/fedora/image/obj/a/files/a.jpg?update=true", 200, "{}");
    let answer = service.register("fedora/image/obj/a/files/a.jpg", &RequestTrace::generate()).await;
    assert_eq!((answer, service.breaker_is_closed()), (Built, true));
    assert_eq!((tracker.well_at(), tracker.built_at(), tracker.is_healthy()), (None, None, false));
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_build_is_that_of_canvases_which_were_built() {
    let ServiceScene { service, .. } = &ServiceScene::new();
    let (short, long) = (Duration::from_millis(1), Duration::from_secs(4));
    for (target, answer, took) in
        [(BOOK, Built, long), (CANVAS, Lacks, long), (CANVAS, Refused, long), (CANVAS, Carries, short)]
    {
        service.took(target, answer, took);
        assert_eq!(service.build_time(), None, "{target} {answer:?}");
    }
    service.took(CANVAS, Carries, long);
    assert_eq!(service.build_time(), Some(long), "so long takes no stored one");
    service.took(CANVAS, Built, short * 4);
    assert_eq!(service.build_time(), Some(Duration::from_millis(3_001)));
}

#[tokio::test(start_paused = true)]
async fn only_what_nobody_waits_for_keeps_the_pause_that_the_service_asked_for() {
    let ServiceScene { service, .. } = &ServiceScene::new();
    let rests = |lane| service.rests_from(&FlightPriority::new(lane));
    assert!(Priority::ALL.iter().all(|lane| !rests(*lane)));
    let mut fields = http::HeaderMap::new();
    fields.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
    service.failures.record_answer(CANVAS, StatusCode::TOO_MANY_REQUESTS, &fields);
    assert!(rests(Priority::Background) && !rests(Priority::Prefetch) && !rests(Priority::Viewer));
    tokio::time::advance(Duration::from_secs(7)).await;
    assert!(!rests(Priority::Background));
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_a_variant_is_that_of_its_last_request() {
    let scene = ServiceScene::new();
    let request = |rung| CanvasRequestKey { service: scene.service.mark, target: BESIDE.into(), rung };
    let (variant, visit) = (request(Rung::Variant), request(Rung::Visit));
    assert_eq!(scene.service.failure(&variant), None);
    scene.gets(&variants::built_anew(BESIDE), 500, "", CacheStatus::Now).await;
    let failure = scene.service.failure(&variant).expect("it failed");
    assert_eq!(failure.text, "the canvas service answered 500 Internal Server Error (service.invalid)");
    assert_eq!(scene.service.failure(&visit), None, "that request was another one");
}
