//! The model and the testbed's stand-ins do the same: so the simulation cannot drift away from what was measured.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use hyper::Request;
use testbed::Testbed;
use tokio::time::sleep_until;

use super::canvas_service::CanvasService;
use super::case::{Case, Fault, Gone, Trouble};
use super::image_server::ImageServer;
use super::library::Library;
use super::model::Model;
use super::world::{Cache, Resources, World};
use crate::config::settings::Timeouts;
use crate::heal::SendRequest;
use crate::upstream::Caller;

/// Time between two steps in the model, in milliseconds.
const STEP: u64 = 10_000;
const BESIDE: &str = "disallow=x-iiif-mender/none";

/// `Step` is one thing that is done to both.
#[derive(Debug, Clone)]
enum Step {
    /// What they answer is compared.
    Get(String),
    Flush,
    EvictKeys,
    EvictDocuments,
    RestartImages,
    /// This fault begins, or ends.
    Fault(Fault, bool),
    /// The file of leaf 0 goes, or comes back.
    Gone(bool),
}

/// What is compared: the status, and of a document its pictures and whether it says that it is a variant.
type Answer = (u16, usize, bool);

fn read(status: u16, body: &str) -> Answer {
    let is_document = body.contains("sc:Canvas") || body.contains("sc:Manifest");
    let pictures = if is_document { body.matches("oa:Annotation").count() } else { 0 };
    (status, pictures, is_document && body.contains("?disallow="))
}

/// Everything that can be asked about leaf 0 without changing anything but caches.
fn looks() -> Vec<Step> {
    let leaf = &Library::get().leaves[0];
    let (id, base64) = (&leaf.uuid, URL_SAFE_NO_PAD.encode(&leaf.file_url));
    [
        format!("/iiif-service/resources/{id}"),
        format!("/iiif/2/{id}/full/99999,/0/default.jpg"),
        format!("/iiif/2/{id}/9999999,9999999,1,1/1,/0/default.jpg"),
        format!("/iiif/2/{id}/info.json?cache=nocache"),
        format!("/iiif/2/{id}/full/64,/0/default.jpg"),
        format!("/iiif/2/{id}/full/64,/0/default.jpg?cache=nocache"),
        format!("/iiif/2/{id}/info.json"),
        format!("/iiif/2/{base64}/full/32,/0/default.jpg"),
        format!("/iiif/2/{id}"),
    ]
    .map(Step::Get)
    .to_vec()
}

fn get(path: &str) -> Step {
    Step::Get(path.to_owned())
}

/// All that is known of the service, once around.
fn script() -> Vec<Step> {
    let leaf = &Library::get().leaves[0];
    let canvas = format!("/iiif-service/fedora/canvas/{}", leaf.path);
    let register = format!("/iiif-service/fedora/image/{}/files/{}?update=true", leaf.path, leaf.name);
    let book = "/iiif-service/fedora/presentation/obj/long";
    let mut steps = looks();
    let mut then = |more: Vec<Step>| {
        steps.extend(more);
        steps.extend(looks());
    };
    then(vec![Step::Flush]);
    then(vec![get(&canvas)]);
    then(vec![Step::EvictKeys]);
    then(vec![get(&canvas)]);
    then(vec![get(&format!("{canvas}?{BESIDE}"))]);
    then(vec![Step::EvictKeys, get(&format!("{canvas}?{BESIDE}"))]);
    then(vec![get(&format!("{canvas}?update=true&{BESIDE}"))]);
    then(vec![Step::EvictKeys, get(&format!("{canvas}?update=true"))]);
    then(vec![Step::EvictKeys, get(&register)]);
    then(vec![Step::EvictKeys, Step::RestartImages]);
    then(vec![get(book), Step::EvictKeys, get(book)]);
    then(vec![get(&format!("{book}?update=true&{BESIDE}"))]);
    for fault in [Fault::Nested, Fault::Info(503), Fault::FileStore, Fault::Redis] {
        then(vec![Step::EvictKeys, Step::Fault(fault, true)]);
        then(vec![get(&format!("{canvas}?update=true&{BESIDE}"))]);
        then(vec![get(&register)]);
        then(vec![get(&format!("{canvas}?update=true"))]);
        then(vec![Step::Fault(fault, false), get(&canvas)]);
        then(vec![get(&format!("{canvas}?update=true")), get(&canvas)]);
    }
    then(vec![Step::Gone(true)]);
    then(vec![Step::EvictKeys, get(&format!("{canvas}?update=true&{BESIDE}")), get(&canvas)]);
    then(vec![get(&format!("{canvas}?update=true")), get(&canvas)]);
    then(vec![Step::Gone(false), Step::EvictDocuments, get(&canvas)]);
    then(vec![get("/iiif-service/fedora/canvas/dead1/pages/page_0")]);
    steps
}

fn head(path: &str) -> Parts {
    let request = Request::get(path).header("host", "lib.example").body(()).expect("a request");
    request.into_parts().0
}

/// What the model answers.
fn modelled(world: &World, script: &[Step]) -> Vec<Answer> {
    let at = |step: usize| u64::try_from(step).expect("few") * STEP;
    let ends = |from: usize, is: &dyn Fn(&Step) -> bool| {
        script.iter().skip(from).position(is).map_or(u64::MAX, |later| at(from + later))
    };
    let mut case =
        Case { world: world.clone(), stored: 0, troubles: vec![], gone: vec![], acts: vec![], last: vec![] };
    for (number, step) in script.iter().enumerate() {
        match step {
            Step::Fault(fault, true) => {
                let to = ends(number, &|step| matches!(step, Step::Fault(other, false) if other == fault));
                case.troubles.push(Trouble { fault: *fault, from: at(number), to });
            }
            Step::Gone(true) => {
                let to = ends(number, &|step| matches!(step, Step::Gone(false)));
                case.gone.push(Gone { leaf: 0, from: at(number), to });
            }
            _ => {}
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let model = Model::new(case, false);
        let (images, service) = (ImageServer(Arc::clone(&model), 0), CanvasService(Arc::clone(&model), 0));
        let patient = Duration::from_hours(1);
        let times = Timeouts { connect: patient, first_byte: patient, body: patient };
        let mut answers = Vec::new();
        for (number, step) in script.iter().enumerate() {
            sleep_until(model.start + Duration::from_millis(at(number) + 1)).await;
            match step {
                Step::Get(path) => {
                    let to: &dyn SendRequest = if path.starts_with("/iiif/") { &images } else { &service };
                    let answer = to.send(&Caller::default(), &head(path), times).await.expect("an answer");
                    let status = answer.status().as_u16();
                    let body = answer.into_body().collect(1 << 20).await.expect("a body");
                    answers.push(read(status, &String::from_utf8_lossy(&body)));
                }
                Step::Flush => {
                    model.loses_all();
                    model.state().documents.clear();
                }
                Step::EvictKeys => model.loses_all(),
                Step::EvictDocuments => model.state().documents.clear(),
                Step::RestartImages => model.images_restart(),
                Step::Fault(..) | Step::Gone(_) => {}
            }
        }
        answers
    })
}

/// What the testbed answers.
async fn stood_in(world: &World, script: &[Step]) -> Vec<Answer> {
    let mut bed = Testbed::builder()
        .file_base("https://lib.example/fcrepo/rest")
        .public_base("https://lib.example")
        .page_size(1000, 1000)
        .book("obj/long", 12)
        .book("obj/short", 4)
        .pdf("obj/report", 3)
        .single("obj/single");
    bed = match world.cache {
        Cache::Info => bed,
        Cache::Derivative => bed.derivative_cache(),
        Cache::Source => bed.source_cache(),
    };
    let bed = bed.start().await;
    match world.resources {
        Resources::Open | Resources::ClosedFrom(_) => {}
        Resources::Closed => bed.service.closes_resources(),
        Resources::Gateway => bed.service.closes_resources_with(404),
    }
    bed.images.asks_for_login(world.login);
    if !world.base64 {
        bed.images.ignores_base64();
    }
    if !world.honours_disallow {
        bed.service.ignores_disallow();
    }
    let leaf = &Library::get().leaves[0].path;
    let mut answers = Vec::new();
    for step in script {
        match step {
            Step::Get(path) => {
                let origin =
                    if path.starts_with("/iiif/") { bed.images.origin() } else { bed.service.origin() };
                let answer = testbed::get(&format!("{origin}{path}")).await;
                answers.push(read(answer.status, &answer.text()));
            }
            Step::Flush => bed.redis.flush(),
            Step::EvictKeys => bed.redis.evict_keys(),
            Step::EvictDocuments => bed.redis.evict_manifests(),
            Step::RestartImages => bed.images.restarts(),
            Step::Gone(true) => bed.fedora.removes_file(leaf),
            Step::Gone(false) => bed.fedora.restores_file(leaf),
            Step::Fault(Fault::Nested, true) => bed.service.poisons_nested(503),
            Step::Fault(Fault::Nested, false) => bed.service.nested_is_well(),
            Step::Fault(Fault::Info(status), true) => bed.images.info_faults(*status),
            Step::Fault(Fault::Info(_), false) => bed.images.info_is_well(),
            Step::Fault(Fault::FileStore, true) => bed.fedora.files_fail(),
            Step::Fault(Fault::FileStore, false) => bed.fedora.files_are_well(),
            Step::Fault(Fault::Redis, true) => bed.redis.goes_down(),
            Step::Fault(Fault::Redis, false) => bed.redis.comes_up(),
            Step::Fault(other, _) => panic!("the testbed has no switch for {other:?}"),
        }
    }
    answers
}

#[tokio::test]
async fn the_model_answers_as_the_testbed_does() {
    let plain = World::plain();
    let script = script();
    for world in [
        plain.clone(),
        World { cache: Cache::Derivative, resources: Resources::Closed, ..plain.clone() },
        World { cache: Cache::Source, resources: Resources::Gateway, ..plain.clone() },
        World { honours_disallow: false, ..plain.clone() },
        World { login: true, base64: false, ..plain.clone() },
        World { key_early: false, base64: false, ..plain },
    ] {
        let of_model = std::thread::scope(|scope| {
            scope.spawn(|| modelled(&world, &script)).join().expect("the model answers")
        });
        let of_testbed = stood_in(&world, &script).await;
        let mut asked = script.iter().enumerate().filter(|(_, step)| matches!(step, Step::Get(_)));
        for (model, testbed) in of_model.iter().zip(&of_testbed) {
            let (number, step) = asked.next().expect("as many answers");
            let before: Vec<_> = script[..number].iter().filter(|step| !looks_like_a_look(step)).collect();
            let lately = &before[before.len().saturating_sub(4)..];
            assert_eq!(model, testbed, "{step:?} behind {lately:?} in {world:?}");
        }
    }
}

fn looks_like_a_look(step: &Step) -> bool {
    matches!(step, Step::Get(path) if path.starts_with("/iiif/") || path.contains("/resources/"))
}
