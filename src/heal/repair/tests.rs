//! Tests of the repair of documents, over an image server and a canvas service that answer by a script.

use super::*;
use crate::heal::Healer;
use crate::heal::repair::documents::BELIEVED;
use crate::heal::scripted::{ScriptedServer, settings};
use crate::heal::server::SendRequest;
use crate::iiif::identifier::uuid_of_file_url;
use crate::index::Index;
use crate::index::history::writer::HistoryWriter;
use crate::observe::{Metrics, RequestTrace};

const FILE: &str = "https://lib.example/fcrepo/rest/obj/a/files/a.jpg";
const BOOK: &str = "/service/fedora/presentation/obj";

/// `BookScene` is a manifest of one page, whose file is gone. (The canvas service knows the file, and the image server does not
/// find it.)
struct BookScene {
    healer: Healer,
    service: Arc<ScriptedServer>,
    poisoned: PoisonedDocument,
    _folder: tempfile::TempDir,
}

impl BookScene {
    fn new(heal: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("index.sqlite3");
        let settings = settings(&path, heal);
        let (images, service) = (Arc::<ScriptedServer>::default(), Arc::<ScriptedServer>::default());
        let key = uuid_of_file_url(FILE).to_string();
        service.set(&format!("/resources/{key}"), 200, FILE);
        let server = |prefix: &str| -> Arc<dyn SendRequest> {
            Arc::<ScriptedServer>::clone(if prefix == "/service/" { &service } else { &images })
        };
        let servers = settings.routes.iter().map(|route| server(&route.prefix)).collect();
        let route = settings.routes.iter().position(|route| &*route.prefix == "/service/").expect("a route");
        let index = Arc::new(Index::open(&path, 100).expect("an index"));
        let name = format!("https://lib.example{BOOK}");
        let manifest = format!(
            r#"{{"@context":"http://iiif.io/api/presentation/2/context.json","@id":"{name}","@type":"sc:Manifest",
            "sequences":[{{"@type":"sc:Sequence","canvases":[{{"@id":"https://lib.example/service/fedora/canvas/obj/a",
            "@type":"sc:Canvas","images":[{{"@type":"oa:Annotation","motivation":"sc:painting","resource":{{
            "service":{{"@id":"https://lib.example/iiif/2/{key}"}}}}}}]}}]}}]}}"#
        );
        let read = index.read_document(manifest.as_bytes()).expect("a manifest");
        DocumentLearner::new(&index).believe(&read.document, &read.canvases, &name).expect("it is written");
        assert!(!index.owners(&key).expect("an index").is_empty());
        let metrics = Arc::new(Metrics::new());
        let history = HistoryWriter::idle(Arc::clone(&metrics));
        let mark = settings.routes[route].mark();
        let healer = Healer::simulated(settings, servers, index, None, metrics, history);
        let poisoned = PoisonedDocument {
            route,
            mark,
            target: BOOK.to_owned(),
            name,
            missing: vec![key],
            is_cut_short: false,
            carries: 7,
            trace: RequestTrace::generate(),
        };
        Self { healer, service, poisoned, _folder: folder }
    }

    async fn mend(&self) -> DocumentRepair {
        self.healer.mend_document(self.poisoned.clone()).await
    }

    fn is_poisoned(&self) -> bool {
        self.healer.is_poisoned(&self.poisoned.missing[0])
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_without_pages_whose_files_are_gone_is_right_for_a_day_and_costs_nothing() {
    let mut scene = BookScene::new("");
    assert_eq!(scene.mend().await, DocumentRepair::Truth);
    assert!(scene.service.asked() > 0 && !scene.is_poisoned());
    assert_eq!(scene.mend().await, DocumentRepair::Truth);
    assert_eq!(scene.service.asked(), 0);
    scene.poisoned.carries += 1;
    assert_eq!(scene.mend().await, DocumentRepair::Truth);
    assert!(scene.service.asked() > 0, "it has other images now");
    tokio::time::advance(BELIEVED).await;
    scene.mend().await;
    assert!(scene.service.asked() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_document_that_lacks_more_than_is_known_is_not_taken_for_right() {
    let mut scene = BookScene::new("");
    scene.poisoned.is_cut_short = true;
    assert_eq!(scene.mend().await, DocumentRepair::Failed);
    assert!(scene.is_poisoned());
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_where_nothing_may_be_rebuilt_or_a_rebuild_cools_down() {
    for heal in ["ladder = [\"variant\"]", "enabled = false"] {
        let scene = BookScene::new(heal);
        assert_eq!(scene.mend().await, DocumentRepair::Off, "{heal}");
        assert!(scene.service.asked() == 0 && scene.is_poisoned());
    }
    let scene = BookScene::new("");
    let cooldowns = &scene.healer.parts.services.cooldowns;
    cooldowns.set_remaining(&scene.poisoned.rebuild(), Duration::from_secs(9), Instant::now());
    assert_eq!(scene.mend().await, DocumentRepair::Cooling);
    assert_eq!(scene.service.asked(), 0);
}

#[test]
fn documents_with_other_images_have_other_fingerprints() {
    let canvas = |images: &[&str]| Canvas {
        images: images.iter().map(ToString::to_string).collect(),
        ..Canvas::default()
    };
    let of = |canvases: &[Canvas]| fingerprint(canvases);
    let all = of(&[canvas(&["a"]), canvas(&["b"])]);
    assert_eq!(all, of(&[canvas(&["a"]), canvas(&["b"])]));
    for other in [vec![canvas(&["a"])], vec![canvas(&["a", "b"])], vec![canvas(&["b"]), canvas(&["a"])]] {
        assert_ne!(all, of(&other));
    }
}
