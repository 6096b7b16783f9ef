//! Tests of the knowledge of images, over an image server and a canvas service that answer by a script.

use std::time::Duration;

use super::*;
use crate::heal::Healer;
use crate::heal::scripted::{ScriptedServer, settings};
use crate::heal::server::SendRequest;
use crate::iiif::identifier::uuid_of_file_url;
use crate::index::history::writer::HistoryWriter;
use crate::index::{Index, Owner};
use crate::observe::Metrics;

const FILE: &str = "https://lib.example/fcrepo/rest/obj/a/files/a.jpg";
const TILE: &str = "full/16,/0/default.jpg";
const INFO: &str = "info.json?cache=nocache";

/// `ImageScene` is one image of a canvas service and an image server.
struct ImageScene {
    knowledge: ImageKnowledge,
    images: Arc<ScriptedServer>,
    service: Arc<ScriptedServer>,
    image: IndexedImage,
    _folder: tempfile::TempDir,
}

impl ImageScene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("index.sqlite3");
        let settings = settings(&path, "");
        let (images, service) = (Arc::<ScriptedServer>::default(), Arc::<ScriptedServer>::default());
        let server = |prefix: &str| -> Arc<dyn SendRequest> {
            Arc::<ScriptedServer>::clone(if prefix == "/service/" { &service } else { &images })
        };
        let servers = settings.routes.iter().map(|route| server(&route.prefix)).collect();
        let route = settings.routes.iter().position(|route| &*route.prefix == "/iiif/2/");
        let index = Arc::new(Index::open(&path, 100).expect("an index"));
        let metrics = Arc::new(Metrics::new());
        let history = HistoryWriter::idle(Arc::clone(&metrics));
        let healer = Healer::simulated(settings, servers, index, None, metrics, history);
        let uuid = uuid_of_file_url(FILE).to_string();
        let owner = Owner {
            canvas: "https://lib.example/service/fedora/canvas/obj/a".to_owned(),
            manifest: "https://lib.example/service/fedora/presentation/obj".to_owned(),
            label: None,
        };
        let image = healer.image_by_key(&uuid, Some(owner.clone())).expect("it has a route");
        let image = IndexedImage { owners: Arc::new([owner]), route: route.expect("a route"), ..image };
        let knowledge = healer.parts.knowledge.clone();
        Self { knowledge, images, service, image, _folder: folder }
    }

    /// A scene whose service calls the image alive, while the image server does not find it.
    fn in_doubt() -> Self {
        let scene = Self::new();
        scene.says_alive();
        scene
    }

    /// A scene whose service does not answer `/resources`. The image server tells the truth: the image is alive.
    fn by_probes() -> Self {
        let scene = Self::new();
        let id = Arc::clone(&scene.image.sent);
        scene.images.set(&format!("{id}/{INFO}"), 200, "{}");
        scene
    }

    fn says_alive(&self) {
        self.service.set(&format!("/resources/{}", self.image.key), 200, FILE);
    }

    fn says_expired(&self) {
        let sentence = format!("Resource with id {} not found!", self.image.key);
        self.service.set(&format!("/resources/{}", self.image.key), 404, &sentence);
    }

    async fn is_missing(&self, file_is_gone: Option<bool>) -> bool {
        self.knowledge.is_missing(&self.image, async { file_is_gone }).await
    }

    async fn registration(&self, since: Option<Instant>) -> Registration {
        self.knowledge.check_registration_cached(&self.image, since).await
    }

    async fn is_expired(&self, since: Option<Instant>) -> bool {
        self.knowledge.is_expired_now(&self.image, since).await
    }

    fn may_build_beside(&self, may: bool) {
        self.knowledge.services.all()[0].heard_of_variants(may);
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_alive_and_404_is_in_doubt_first_and_missing_the_second_time() {
    let scene = ImageScene::in_doubt();
    for told in [None, Some(false)] {
        assert!(!scene.is_missing(told).await && !scene.knowledge.missing.is_known(&scene.image));
        assert!(scene.knowledge.services.end_doubt(&scene.image), "{told:?}");
    }
    assert!(scene.is_missing(Some(true)).await, "the file's own identifier tells");
    assert!(scene.knowledge.missing.is_known(&scene.image));
    assert!(!scene.knowledge.services.is_doubted(&scene.image));
    scene.images.set(TILE, 200, "");
    assert!(scene.is_missing(None).await, "it is remembered");
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(!scene.is_missing(None).await, "not for ever");
    scene.images.set(TILE, 404, "");
    assert!(scene.is_missing(None).await, "remembered and 404 again: no canvas is built for that");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_missing_that_is_expired_or_that_the_image_server_has_or_fails_to_look_for() {
    let scene = ImageScene::in_doubt();
    for status in [200, 503] {
        scene.images.set(TILE, status, "");
        assert!(!scene.is_missing(Some(true)).await, "{status}");
    }
    let expired = ImageScene::new();
    expired.says_expired();
    assert!(!expired.is_missing(Some(true)).await);
    for scene in [scene, expired] {
        assert!(!scene.knowledge.missing.is_remembered(&scene.image));
        assert!(!scene.knowledge.services.is_doubted(&scene.image));
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_a_reader_had_healed_meanwhile_is_not_in_doubt() {
    let scene = ImageScene::in_doubt();
    let looks = async {
        scene.images.set(TILE, 200, "");
        None
    };
    assert!(!scene.knowledge.is_missing(&scene.image, looks).await);
    assert!(!scene.knowledge.services.is_doubted(&scene.image));
}

#[tokio::test(start_paused = true)]
async fn where_no_canvas_can_be_built_beside_the_service_s_word_is_enough() {
    let scene = ImageScene::in_doubt();
    scene.may_build_beside(false);
    assert!(scene.is_missing(None).await && scene.knowledge.missing.is_known(&scene.image));
    let scene = ImageScene::in_doubt();
    scene.may_build_beside(true);
    assert!(!scene.is_missing(None).await);
}

#[tokio::test(start_paused = true)]
async fn what_the_service_says_is_believed_for_a_while_and_not_from_before_a_given_time() {
    let scene = ImageScene::new();
    scene.says_alive();
    for requests in [1, 0] {
        assert!(matches!(scene.registration(None).await, Registration::Alive(_)));
        assert_eq!(scene.service.asked(), requests);
    }
    tokio::time::advance(Duration::from_millis(1)).await;
    scene.says_expired();
    for requests in [1, 0] {
        assert_eq!(scene.registration(Some(Instant::now())).await, Registration::Expired);
        assert_eq!(scene.service.asked(), requests);
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    scene.says_alive();
    scene.registration(None).await;
    assert_eq!(scene.service.asked(), 1, "\"expired\" is believed for a moment only");
    // The image server answered 404.
    scene.knowledge.doubt(&scene.image);
    scene.registration(None).await;
    assert_eq!(scene.service.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_saw_the_image_is_believed_for_a_while_and_one_that_did_not_is_not() {
    let scene = ImageScene::by_probes();
    assert!(!scene.is_expired(None).await);
    assert!(scene.images.asked() > 0);
    assert!(!scene.is_expired(None).await);
    assert_eq!(scene.images.asked(), 0);
    tokio::time::advance(Duration::from_millis(1)).await;
    scene.images.set(INFO, 404, "");
    scene.images.forget_all_but(INFO);
    assert!(!scene.is_expired(None).await, "it was seen a moment ago");
    for _ in 0..2 {
        assert!(scene.is_expired(Some(Instant::now())).await, "but not since");
        assert!(scene.images.asked() > 0);
    }
    scene.knowledge.doubt(&scene.image);
    assert!(scene.is_expired(None).await);
    scene.knowledge.missing.note(&scene.image, Proof::Shown);
    assert!(!scene.is_expired(None).await, "a file that is gone does not expire");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_found_ends_what_spoke_against_it() {
    for is_missing in [true, false] {
        let scene = ImageScene::new();
        let (services, image) = (&scene.knowledge.services, &scene.image);
        scene.says_expired();
        scene.registration(None).await;
        let (service, canvas) = services.asked_canvases(image).remove(0);
        let variant = CanvasRequest::variant(&canvas).expect("it can be built beside").flight;
        services.cooldowns.set_remaining(&variant, Duration::from_mins(1), Instant::now());
        if is_missing {
            scene.knowledge.missing.note(image, Proof::Shown);
        }
        scene.knowledge.found(image);
        assert!(!services.remember_expired(image) && !scene.knowledge.missing.is_remembered(image));
        assert_eq!(services.cools(&service, &variant), !is_missing, "nothing was found about the canvas");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_without_an_answer_is_not_asked_again_for_two_seconds() {
    let scene = ImageScene::new();
    scene.service.set(&format!("/resources/{}", scene.image.key), 0, "");
    for requests in [1, 0] {
        assert_eq!(scene.knowledge.services.ask(&scene.image).await, Registration::Nothing);
        assert_eq!(scene.service.asked(), requests);
    }
    tokio::time::advance(Duration::from_secs(2)).await;
    scene.knowledge.services.begin_doubt(&scene.image);
    scene.knowledge.services.ask(&scene.image).await;
    assert_eq!(scene.service.asked(), 0, "an image in doubt is not asked for");
    scene.knowledge.services.end_doubt(&scene.image);
    scene.knowledge.services.ask(&scene.image).await;
    assert_eq!(scene.service.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_canvas_cools_longer_once_the_service_built_another_one() {
    let scene = ImageScene::new();
    let services = &scene.knowledge.services;
    let (service, canvas) = services.asked_canvases(&scene.image).remove(0);
    let visit = CanvasRequest::visit(&canvas).flight;
    let pause = async |was_refused| {
        tokio::time::advance(Duration::from_secs(10)).await;
        services.request_failed(&service, &visit, Instant::now(), was_refused);
        services.cooldowns.remaining(&visit, None, Instant::now()).expect("it cools").as_secs_f64()
    };
    assert!(pause(true).await < 1.2 && pause(true).await < 1.2);
    // An empty canvas shows that the service builds, and not that it is well.
    service.fault_tracker.builds();
    assert!(pause(false).await < 1.2);
    service.fault_tracker.builds();
    assert!(pause(true).await > 1.7);
    service.fault_tracker.record_success();
    assert_eq!(services.well_at(&scene.image), Some(Instant::now()));
    assert!(pause(false).await > 3.5);
}
