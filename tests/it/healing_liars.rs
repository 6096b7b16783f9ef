//! Services less obliging than ours: answers that are broken, of somebody else, out of a cache, or plain lies. Whatever they
//! say, no stored document becomes worse, what can be healed heals, and all is back soon after they tell the truth again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Response;
use testbed::{Flow, Origin, Page, Seen};

use crate::support::healing_world::{Before, all_back, book, lost, read, read_for, tile};
use crate::support::world::World;

pub(crate) const JSON: (&str, &str) = ("content-type", "application/json;charset=UTF-8");

/// Longer than anything that is believed while nothing proves it, and far shorter than what is believed for good.
const SOON: Duration = Duration::from_secs(8);

fn is_canvas(seen: &Seen) -> bool {
    seen.path().contains("/fedora/canvas/")
}

fn is_resource(seen: &Seen) -> bool {
    // The image server asks for `…/redirect`.
    seen.path().contains("/resources/") && !seen.path().ends_with("/redirect")
}

/// A canvas as the service writes it, of `path`, with or without a picture.
pub(crate) fn canvas_of(path: &str, with_picture: bool) -> String {
    let id = format!("https://api.library.tamu.edu/iiif-service/fedora/canvas/{path}");
    let uuid = "00000000-0000-3000-8000-000000000000";
    let picture = format!(
        r#"{{"@type":"oa:Annotation","motivation":"sc:painting","on":"{id}","resource":{{"@id":"https://api.library.tamu.edu/iiif/2/{uuid}/full/full/0/default.jpg","@type":"dctypes:Image","service":{{"@id":"https://api.library.tamu.edu/iiif/2/{uuid}"}}}}}}"#
    );
    let images = if with_picture { picture } else { String::new() };
    format!(r#"{{"@id":"{id}","@type":"sc:Canvas","height":9,"width":9,"label":["x"],"images":[{images}]}}"#)
}

/// Everything that a canvas service may say with a 200 (or nearly) that is no canvas of ours.
pub(crate) fn nonsense(kind: &str) -> Response<Flow> {
    let whole = canvas_of("obj/other/page", true);
    match kind {
        "half a body" => Origin::answer(200, &[JSON], Flow::chunked(whole).cut_after(100)),
        "an empty body" => Origin::answer(200, &[JSON], Flow::sized("")),
        "204" => Origin::answer(204, &[], Flow::sized("")),
        "gzip that is none" => Origin::answer(
            200,
            &[JSON, ("content-encoding", "gzip")],
            Flow::sized("\x1f\u{8b} no gzip at all"),
        ),
        "a page" => {
            Origin::answer(200, &[("content-type", "text/html")], Flow::sized("<html>maintenance</html>"))
        }
        "JSON of something else" => Origin::answer(200, &[JSON], Flow::sized("{}")),
        "another canvas" => Origin::answer(200, &[JSON], Flow::sized(whole)),
        "another canvas that is empty" => {
            Origin::answer(200, &[JSON], Flow::sized(canvas_of("obj/other/page", false)))
        }
        "a redirect to itself" => Origin::answer(302, &[("location", "?again")], Flow::sized("")),
        other => panic!("{other}"),
    }
}

const NONSENSE: [&str; 9] = [
    "half a body",
    "an empty body",
    "204",
    "gzip that is none",
    "a page",
    "JSON of something else",
    "another canvas",
    "another canvas that is empty",
    "a redirect to itself",
];

/// Twelve pages of which nothing is left in Redis but, perhaps, the canvases.
async fn gone(json_kept: bool, ignores_disallow: bool) -> (World, Vec<Page>) {
    let world = book(12, "").await;
    if ignores_disallow {
        world.bed.service.ignores_disallow();
    }
    let pages = world.bed.pages();
    world.bed.expires_all(json_kept);
    (world, pages)
}

#[tokio::test]
async fn all_is_back_soon_after_a_service_that_answered_nonsense_and_nothing_is_worse() {
    for (turn, kind) in NONSENSE.into_iter().enumerate() {
        for json_kept in [true, false] {
            let (world, pages) = gone(json_kept, turn % 2 == 1).await;
            let before = Before::of(&world);
            world.bed.service.answers(move |seen| is_canvas(seen).then(|| nonsense(kind)));
            read_for(&world, &pages, Duration::from_millis(2_500)).await;
            world.bed.service.answers_as_ever();
            let took = all_back(&world, &pages, Duration::from_mins(1)).await;
            assert!(took < SOON, "{kind}, JSON kept: {json_kept}: {took:?}");
            world.settles().await;
            before.no_worse(&world);
        }
    }
}

#[tokio::test]
async fn a_canvas_that_was_built_heals_whatever_became_of_its_answer() {
    for kind in NONSENSE {
        let (world, pages) = gone(false, false).await;
        world.bed.service.does_and_answers(move |seen| is_canvas(seen).then(|| nonsense(kind)));
        for page in &pages[..4] {
            let answer = world.get(&page.image_path(&tile(0))).await;
            assert_eq!(answer.status, 200, "{kind}");
        }
        world.settles().await;
        let canvases = world.bed.counts().canvas;
        assert!(canvases <= 12, "{kind}: {canvases} canvas requests for 4 pages");
    }
}

#[tokio::test]
async fn a_service_that_drips_is_left_and_its_other_canvases_are_healed() {
    let world =
        book(8, "heal.timeout = 12s\nheal.wait = 12s\nheal.wait_info = 12s\nheal.hang_after = 1s").await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    let slow: Vec<_> = pages[..2].iter().map(|page| page.canvas_path.clone()).collect();
    let drips = move |seen: &Seen| {
        let drip = Flow::chunked(canvas_of("obj/other/page", true)).dripping(Duration::from_secs(1));
        slow.contains(&seen.path().to_owned()).then(|| Origin::answer(200, &[JSON], drip))
    };
    world.bed.service.answers(drips);
    let held: Vec<_> = pages[..2].iter().map(|page| world.asks(&page.image_path(&tile(0)))).collect();
    world.bed.ledger.until(|counts| counts.resources >= 2).await;
    let statuses = read(&world, &pages[2..], 0).await;
    assert_eq!(lost(&statuses), 0, "{statuses:?}");
    held.iter().for_each(tokio::task::JoinHandle::abort);
    world.bed.service.answers_as_ever();
    // What drips is left alone at the end of its time.
    let took = all_back(&world, &pages, Duration::from_mins(1)).await;
    assert!(took < SOON + Duration::from_secs(12), "{took:?}");
    world.settles().await;
}

#[tokio::test]
async fn a_resources_endpoint_that_calls_everything_alive_keeps_nothing_from_being_healed() {
    // With one URL for everything, and with the right one, as a cache before it would have it.
    for right in [false, true] {
        for json_kept in [false, true] {
            let (world, pages) = gone(json_kept, false).await;
            let before = Before::of(&world);
            let urls: HashMap<_, _> =
                pages.iter().map(|page| (page.uuid.clone(), page.file_url.clone())).collect();
            world.bed.service.answers(move |seen| {
                let uuid = seen.path().rsplit('/').next().unwrap_or_default();
                let known = if right { urls.get(uuid)?.clone() } else { "http://f.test/a.jpg".to_owned() };
                let text = ("content-type", "text/plain;charset=UTF-8");
                is_resource(seen).then(|| Origin::answer(200, &[text], Flow::sized(known)))
            });
            let statuses = read(&world, &pages, 0).await;
            assert_eq!(lost(&statuses), 0, "right: {right}, JSON kept: {json_kept}: {statuses:?}");
            world.settles().await;
            before.unharmed(&world);
        }
    }
}

#[tokio::test]
async fn a_file_that_is_gone_is_no_lie_of_the_resources_endpoint() {
    let world = book(6, "").await;
    let pages = world.bed.pages();
    world.bed.caches_everything();
    let before = Before::of(&world);
    world.bed.fedora.removes_file(&pages[0].path);
    for round in 0..3 {
        assert_eq!(world.get(&pages[0].image_path(&tile(round))).await.status, 404);
    }
    world.settles().await;
    let canvases = world.bed.counts().canvas;
    assert!(canvases <= 2, "{canvases} canvas requests for a file that is gone");
    before.unharmed(&world);
    // The others are asked about as before.
    world.bed.redis.evict_keys();
    assert_eq!(lost(&read(&world, &pages[1..], 5).await), 0);
    assert_eq!(world.events("resources_distrusted"), 0.0);
    world.settles().await;
}

#[tokio::test]
async fn a_resources_endpoint_that_calls_everything_expired_costs_a_few_canvases_and_no_reader() {
    let world = book(20, "").await;
    let pages = world.bed.pages();
    world.bed.caches_everything();
    world.bed.heats_info();
    let before = Before::of(&world);
    world.bed.ledger.clear();
    world.bed.service.answers(|seen| {
        let uuid = seen.path().rsplit('/').next().unwrap_or_default();
        let gone = format!("Resource with id {uuid} not found!");
        let text = ("content-type", "text/plain;charset=UTF-8");
        is_resource(seen).then(|| Origin::answer(404, &[text], Flow::sized(gone)))
    });
    for page in &pages {
        assert_eq!(world.get(&page.info_path()).await.status, 200);
        assert_eq!(world.get(&page.image_path(&tile(1))).await.status, 200);
    }
    world.settles().await;
    let canvases = world.bed.counts().canvas;
    assert!(canvases <= 6, "{canvases} canvas requests for 20 images that are well");
    before.unharmed(&world);
}

#[tokio::test]
async fn a_file_url_of_another_image_is_never_learned() {
    let world = book(3, "heal.ladder = direct").await;
    let pages = world.bed.pages();
    let other = pages[2].file_url.clone();
    world.bed.service.answers(move |seen| {
        let text = ("content-type", "text/plain;charset=UTF-8");
        is_resource(seen).then(|| Origin::answer(200, &[text], Flow::sized(other.clone())))
    });
    for page in &pages[..2] {
        assert_eq!(world.get(&page.info_path()).await.status, 200);
        assert_eq!(world.get(&page.image_path(&tile(0))).await.body, page.picture(&tile(0)));
        let uuid = page.uuid.parse().expect("a UUID");
        assert_eq!(world.app.index.file_url(uuid).expect("an index"), None);
    }
}

#[tokio::test]
async fn a_placeholder_in_the_place_of_a_404_passes_as_it_is_and_teaches_no_probe_a_lie() {
    for (status, fields, closed) in [
        (200, ("content-type", "image/jpeg"), true),
        (200, ("content-type", "image/jpeg"), false),
        (302, ("location", "/no-image.jpg"), true),
        (410, ("content-type", "text/plain"), true),
    ] {
        let world = book(6, "heal.ahead = 4").await;
        let pages = world.bed.pages();
        if closed {
            world.bed.service.closes_resources();
        }
        let redis = world.bed.redis.clone();
        world.bed.images.answers(move |seen| {
            let id = seen.path().strip_prefix("/iiif/2/")?.split('/').next()?;
            let is_told = redis.has_key(id) || id.len() != 36 || seen.path().ends_with("/info.json");
            (!is_told).then(|| Origin::answer(status, &[fields], Flow::sized("no image here")))
        });
        world.bed.registers_everything();
        world.bed.heats_info();
        assert_eq!(lost(&read(&world, &pages, 0).await), 0);
        world.bed.redis.evict_keys();
        world.bed.ledger.clear();
        let placeholder = world.get(&pages[0].image_path(&tile(1))).await;
        assert_eq!((placeholder.status, placeholder.text().as_str()), (status, "no image here"));
        world.settles().await;
        assert!(world.bed.counts().canvas <= 5, "{status}: {:?}", world.bed.counts());
        // Where the service says that it is gone, info.json is held until it is there.
        if !closed {
            assert_eq!(world.get(&pages[1].info_path()).await.status, 200);
            assert_eq!(world.get(&pages[1].image_path(&tile(2))).await.body, pages[1].picture(&tile(2)));
        }
        world.settles().await;
    }
}

#[tokio::test]
async fn an_info_json_that_is_a_page_is_a_fault_into_which_nothing_is_built_over() {
    let world = book(8, "").await;
    world.bed.service.ignores_disallow();
    let pages = world.bed.pages();
    world.bed.caches_everything();
    world.bed.redis.evict_keys();
    let before = Before::of(&world);
    world.bed.images.answers(|seen| {
        let page = ("content-type", "text/html;charset=utf-8");
        let by = ("x-powered-by", "Cantaloupe/5.0.6");
        let text = Flow::sized("<html>Down for maintenance</html>");
        seen.path().ends_with("/info.json").then(|| Origin::answer(200, &[page, by], text))
    });
    // What the service makes of such a page.
    world.bed.service.poisons_nested(503);
    read_for(&world, &pages, Duration::from_secs(2)).await;
    world.bed.service.nested_is_well();
    world.bed.images.answers_as_ever();
    let took = all_back(&world, &pages, Duration::from_mins(1)).await;
    assert!(took < SOON, "{took:?}");
    world.settles().await;
    before.no_worse(&world);
}

#[tokio::test]
async fn a_cache_before_the_canvas_service_that_ignores_everything_leaves_no_image_gone_for_good() {
    let world = book(6, "").await;
    let pages = world.bed.pages();
    world.bed.caches_everything();
    let kept = Arc::new(Mutex::new(HashMap::<String, String>::new()));
    for page in &pages {
        for query in ["disallow=x-iiif-mender/none", "update=true&disallow=x-iiif-mender/none", "update=true"]
        {
            let target = format!("{}?{query}", page.canvas_path);
            let answer = testbed::get(&format!("{}{target}", world.bed.service.origin())).await.text();
            kept.lock().unwrap().insert(target, answer);
        }
    }
    world.bed.redis.evict_keys();
    let before = Before::of(&world);
    let answers = Arc::clone(&kept);
    world.bed.service.answers(move |seen| {
        let answer = answers.lock().unwrap().get(&seen.target).cloned()?;
        Some(Origin::answer(200, &[JSON], Flow::sized(answer)))
    });
    read_for(&world, &pages, Duration::from_secs(2)).await;
    // It is emptied: everything comes back, and nothing is believed for longer than it was proven.
    world.bed.service.answers_as_ever();
    let took = all_back(&world, &pages, Duration::from_mins(1)).await;
    assert!(took < SOON, "{took:?}");
    world.settles().await;
    before.unharmed(&world);
}
