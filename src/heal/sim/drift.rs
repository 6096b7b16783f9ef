//! Tests that the model and the testbed's stand-ins behave alike: so the simulation cannot drift away from the
//! measurements.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use hyper::Request;
use testbed::Testbed;
use tokio::time::sleep_until;

use super::canvas_service::SimCanvasService;
use super::case::{Case, MissingPeriod, SimFault, TimedFault};
use super::image_server::SimImageServer;
use super::library::Library;
use super::model::Model;
use super::world::{Cache, Resources, SimWorld};
use crate::config::settings::Timeouts;
use crate::heal::SendRequest;
use crate::upstream::Caller;

/// Time between two steps in the model, in milliseconds.
const STEP: u64 = 10_000;
const BESIDE: &str = "disallow=x-iiif-mender/none";

/// `DriftStep` is one thing that is done to both.
#[derive(Debug, Clone)]
enum DriftStep {
    /// GET whose answer is compared.
    Get(String),
    Flush,
    EvictKeys,
    EvictDocuments,
    RestartImages,
    /// A fault begins (`true`) or ends.
    Fault(SimFault, bool),
    /// The file of leaf 0 goes, or comes back.
    Gone(bool),
}

/// Compared part of an answer: the status, and of a document the number of pictures and whether it is a variant.
type ComparedAnswer = (u16, usize, bool);

fn read(status: u16, body: &str) -> ComparedAnswer {
    let is_document = body.contains("sc:Canvas") || body.contains("sc:Manifest");
    let pictures = if is_document { body.matches("oa:Annotation").count() } else { 0 };
    (status, pictures, is_document && body.contains("?disallow="))
}

/// Requests about leaf 0 that change nothing but caches.
fn looks() -> Vec<DriftStep> {
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
    .map(DriftStep::Get)
    .to_vec()
}

fn get(path: &str) -> DriftStep {
    DriftStep::Get(path.to_owned())
}

/// Script of all known behaviour of the service.
fn script() -> Vec<DriftStep> {
    let leaf = &Library::get().leaves[0];
    let canvas = format!("/iiif-service/fedora/canvas/{}", leaf.path);
    let register = format!("/iiif-service/fedora/image/{}/files/{}?update=true", leaf.path, leaf.name);
    let book = "/iiif-service/fedora/presentation/obj/long";
    let mut steps = looks();
    let mut then = |more: Vec<DriftStep>| {
        steps.extend(more);
        steps.extend(looks());
    };
    then(vec![DriftStep::Flush]);
    then(vec![get(&canvas)]);
    then(vec![DriftStep::EvictKeys]);
    then(vec![get(&canvas)]);
    then(vec![get(&format!("{canvas}?{BESIDE}"))]);
    then(vec![DriftStep::EvictKeys, get(&format!("{canvas}?{BESIDE}"))]);
    then(vec![get(&format!("{canvas}?update=true&{BESIDE}"))]);
    then(vec![DriftStep::EvictKeys, get(&format!("{canvas}?update=true"))]);
    then(vec![DriftStep::EvictKeys, get(&register)]);
    then(vec![DriftStep::EvictKeys, DriftStep::RestartImages]);
    then(vec![get(book), DriftStep::EvictKeys, get(book)]);
    then(vec![get(&format!("{book}?update=true&{BESIDE}"))]);
    for fault in [SimFault::Nested, SimFault::Info(503), SimFault::FileStore, SimFault::Redis] {
        then(vec![DriftStep::EvictKeys, DriftStep::Fault(fault, true)]);
        then(vec![get(&format!("{canvas}?update=true&{BESIDE}"))]);
        then(vec![get(&register)]);
        then(vec![get(&format!("{canvas}?update=true"))]);
        then(vec![DriftStep::Fault(fault, false), get(&canvas)]);
        then(vec![get(&format!("{canvas}?update=true")), get(&canvas)]);
    }
    then(vec![DriftStep::Gone(true)]);
    then(vec![DriftStep::EvictKeys, get(&format!("{canvas}?update=true&{BESIDE}")), get(&canvas)]);
    then(vec![get(&format!("{canvas}?update=true")), get(&canvas)]);
    then(vec![DriftStep::Gone(false), DriftStep::EvictDocuments, get(&canvas)]);
    then(vec![get("/iiif-service/fedora/canvas/dead1/pages/page_0")]);
    steps
}

fn head(path: &str) -> Parts {
    let request = Request::get(path).header("host", "lib.example").body(()).expect("a request");
    request.into_parts().0
}

/// Answers of the model.
fn modelled(world: &SimWorld, script: &[DriftStep]) -> Vec<ComparedAnswer> {
    let at = |step: usize| u64::try_from(step).expect("few") * STEP;
    let ends = |from: usize, is: &dyn Fn(&DriftStep) -> bool| {
        script.iter().skip(from).position(is).map_or(u64::MAX, |later| at(from + later))
    };
    let mut case =
        Case { world: world.clone(), stored: 0, troubles: vec![], gone: vec![], acts: vec![], last: vec![] };
    for (number, step) in script.iter().enumerate() {
        match step {
            DriftStep::Fault(fault, true) => {
                let to =
                    ends(number, &|step| matches!(step, DriftStep::Fault(other, false) if other == fault));
                case.troubles.push(TimedFault { fault: *fault, from: at(number), to });
            }
            DriftStep::Gone(true) => {
                let to = ends(number, &|step| matches!(step, DriftStep::Gone(false)));
                case.gone.push(MissingPeriod { leaf: 0, from: at(number), to });
            }
            _ => {}
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let model = Model::new(case, false);
        let (images, service) =
            (SimImageServer(Arc::clone(&model), 0), SimCanvasService(Arc::clone(&model), 0));
        let image = Duration::from_hours(1);
        let times = Timeouts { connect: image, first_byte: image, body: image };
        let mut answers = Vec::new();
        for (number, step) in script.iter().enumerate() {
            sleep_until(model.start + Duration::from_millis(at(number) + 1)).await;
            match step {
                DriftStep::Get(path) => {
                    let to: &dyn SendRequest = if path.starts_with("/iiif/") { &images } else { &service };
                    let answer = to.send(&Caller::default(), &head(path), times).await.expect("an answer");
                    let status = answer.status().as_u16();
                    let body = answer.into_body().collect(1 << 20).await.expect("a body");
                    answers.push(read(status, &String::from_utf8_lossy(&body)));
                }
                DriftStep::Flush => {
                    model.loses_all();
                    model.state().documents.clear();
                }
                DriftStep::EvictKeys => model.loses_all(),
                DriftStep::EvictDocuments => model.state().documents.clear(),
                DriftStep::RestartImages => model.images_restart(),
                DriftStep::Fault(..) | DriftStep::Gone(_) => {}
            }
        }
        answers
    })
}

/// Answers of the testbed.
async fn stood_in(world: &SimWorld, script: &[DriftStep]) -> Vec<ComparedAnswer> {
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
            DriftStep::Get(path) => {
                let origin =
                    if path.starts_with("/iiif/") { bed.images.origin() } else { bed.service.origin() };
                let answer = testbed::get(&format!("{origin}{path}")).await;
                answers.push(read(answer.status, &answer.text()));
            }
            DriftStep::Flush => bed.redis.flush(),
            DriftStep::EvictKeys => bed.redis.evict_keys(),
            DriftStep::EvictDocuments => bed.redis.evict_manifests(),
            DriftStep::RestartImages => bed.images.restarts(),
            DriftStep::Gone(true) => bed.fedora.removes_file(leaf),
            DriftStep::Gone(false) => bed.fedora.restores_file(leaf),
            DriftStep::Fault(SimFault::Nested, true) => bed.service.poisons_nested(503),
            DriftStep::Fault(SimFault::Nested, false) => bed.service.nested_is_well(),
            DriftStep::Fault(SimFault::Info(status), true) => bed.images.info_faults(*status),
            DriftStep::Fault(SimFault::Info(_), false) => bed.images.info_is_well(),
            DriftStep::Fault(SimFault::FileStore, true) => bed.fedora.files_fail(),
            DriftStep::Fault(SimFault::FileStore, false) => bed.fedora.files_are_well(),
            DriftStep::Fault(SimFault::Redis, true) => bed.redis.goes_down(),
            DriftStep::Fault(SimFault::Redis, false) => bed.redis.comes_up(),
            DriftStep::Fault(other, _) => panic!("the testbed has no switch for {other:?}"),
        }
    }
    answers
}

#[tokio::test]
async fn the_model_answers_as_the_testbed_does() {
    let plain = SimWorld::plain();
    let script = script();
    for world in [
        plain.clone(),
        SimWorld { cache: Cache::Derivative, resources: Resources::Closed, ..plain.clone() },
        SimWorld { cache: Cache::Source, resources: Resources::Gateway, ..plain.clone() },
        SimWorld { honours_disallow: false, ..plain.clone() },
        SimWorld { login: true, base64: false, ..plain.clone() },
        SimWorld { key_early: false, base64: false, ..plain },
    ] {
        let of_model = std::thread::scope(|scope| {
            scope.spawn(|| modelled(&world, &script)).join().expect("the model answers")
        });
        let of_testbed = stood_in(&world, &script).await;
        let mut asked = script.iter().enumerate().filter(|(_, step)| matches!(step, DriftStep::Get(_)));
        for (model, testbed) in of_model.iter().zip(&of_testbed) {
            let (number, step) = asked.next().expect("as many answers");
            let before: Vec<_> = script[..number].iter().filter(|step| !looks_like_a_look(step)).collect();
            let lately = &before[before.len().saturating_sub(4)..];
            assert_eq!(model, testbed, "{step:?} behind {lately:?} in {world:?}");
        }
    }
}

fn looks_like_a_look(step: &DriftStep) -> bool {
    matches!(step, DriftStep::Get(path) if path.starts_with("/iiif/") || path.contains("/resources/"))
}
