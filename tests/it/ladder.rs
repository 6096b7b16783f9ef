//! The rungs: direct and register before visit and rebuild; expired or missing; and nothing sent that is not needed.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use testbed::{Holding, Page, Testbed};

use crate::support::world::{VISIT, World, assert_same, patiently, proxy};

/// One page at a time: what is healed ahead of the reader has a suite of its own.
const ALONE: &str = "heal.ahead = 0";
const TILE: &str = "0,0,512,512/512,/0/default.jpg";

/// Pages whose base64 identifiers hold a slash. Of all ASCII only `?` at the end of a group of three makes one.
async fn slashed() -> (World, Vec<Page>) {
    let mut book = Holding::book("obj/slashed", 3, (600, 800));
    for leaf in &mut book.leaves {
        "why???.jpg".clone_into(&mut leaf.file);
    }
    let world = World::over(Testbed::builder().holding(book).start().await, ALONE).await;
    let pages = world.bed.pages();
    for page in &pages {
        let id = iiif_mender::iiif::identifier::base64_of_file_url(&page.file_url);
        assert!(id.contains("%2F"), "{id}");
    }
    (world, pages)
}

#[tokio::test]
async fn direct_answers_are_word_for_word_those_of_the_live_image_with_the_service_stopped() {
    let world = World::with(ALONE).await;
    let mut pages = world.bed.pages_of("obj/minutes");
    pages.truncate(2);
    pages.extend(world.bed.pages_of("obj/report"));
    let rests = ["info.json", TILE, "full/200,/0/default.jpg"];
    let mut live = Vec::new();
    for page in &pages {
        for rest in rests {
            live.push((page.image_path(rest), world.asks_directly(&page.image_path(rest)).await));
        }
        live.push((page.image_path(""), world.asks_directly(&page.image_path("")).await));
        world.knows_file_of(page);
    }
    world.bed.expires_everything();
    world.bed.restart_image_server();
    world.bed.service.goes_down().await;
    for (path, live) in &live {
        assert_same(&world.get(path).await, live);
    }
    let healed = live.len() - pages.len();
    world.settles().await;
    assert_eq!(
        world.metric(r#"iiif_mender_requests_total{route="image",outcome="healed",status="2xx"}"#),
        healed as f64
    );
    assert_eq!(world.bed.counts().canvas, 0);
}

#[tokio::test]
async fn direct_answers_at_once_and_the_lasting_repair_follows_behind() {
    let world = World::with(ALONE).await;
    let page = world.bed.page();
    world.knows_file_of(&page);
    world.bed.caches_everything();
    world.bed.redis.evict_keys();
    let tile = world.get(&page.image_path(TILE)).await;
    assert_eq!((tile.status, &tile.body), (200, &page.picture(TILE)));
    assert!(tile.header("heal-status").starts_with("healed; rung=direct"));
    world.bed.ledger.until(|counts| counts.register == 1).await;
    world.settles().await;
    assert!(world.bed.redis.has_key(&page.identifier));
    let again = world.get(&page.image_path(TILE)).await;
    assert_eq!((again.status, again.header("heal-status")), (200, ""));
    assert_eq!(world.bed.counts().canvas, 0, "registering leaves the canvas alone");
}

#[tokio::test]
async fn with_the_file_known_no_canvas_is_built_and_its_cached_json_stays_as_it_is() {
    let world = World::with("heal.ahead = 0\nheal.ladder = register,visit,rebuild").await;
    let page = world.bed.page();
    world.knows_file_of(&page);
    world.bed.caches_everything();
    world.bed.redis.evict_keys();
    let tile = world.get(&page.image_path(TILE)).await;
    assert!(tile.header("heal-status").starts_with("healed; rung=register"), "{:?}", tile.headers);
    assert_eq!(tile.body, page.picture(TILE));
    world.settles().await;
    let counts = world.bed.counts();
    assert_eq!((counts.register, counts.canvas, counts.generations), (1, 0, 0));
    assert_eq!(world.bed.targets(testbed::Kind::Register), [format!("{}?update=true", page.register_path)]);
}

#[tokio::test]
async fn the_rungs_are_climbed_in_the_configured_order_and_no_others() {
    for (ladder, rung, canvas, register) in [
        ("visit,register", "visit", 1, 0),
        ("register,visit", "register", 0, 1),
        ("register", "register", 0, 1),
        ("direct", "direct", 0, 0),
        ("rebuild", "rebuild", 1, 0),
    ] {
        let world = World::with(&format!("heal.ahead = 0\nheal.ladder = {ladder}")).await;
        let page = world.bed.page();
        world.knows_file_of(&page);
        world.bed.expires_everything();
        let tile = world.get(&page.image_path(TILE)).await;
        assert_eq!(tile.status, 200, "{ladder}: {}", tile.text());
        assert!(
            tile.header("heal-status").contains(&format!("rung={rung};")),
            "{ladder}: {:?}",
            tile.headers
        );
        world.settles().await;
        let counts = world.bed.counts();
        assert_eq!((counts.canvas, counts.register), (canvas, register), "{ladder}");
    }
}

#[tokio::test]
async fn a_gateway_that_refuses_encoded_slashes_is_found_out_and_not_asked_again() {
    for status in [400, 404] {
        let (world, pages) = slashed().await;
        world.bed.images.refuses_encoded_slashes(status);
        for page in &pages {
            world.knows_file_of(page);
            for _ in 0..3 {
                world.bed.expires_everything();
                let tile = world.get(&page.image_path("full/99,/0/default.jpg")).await;
                assert_eq!(tile.status, 200, "{status}: {}", tile.text());
                assert!(tile.header("heal-status").contains("rung=variant"), "{status}: {:?}", tile.headers);
                world.settles().await;
            }
        }
        assert_eq!(world.bed.counts().direct, 1, "{status}");
    }
}

#[tokio::test]
async fn a_slash_in_base64_is_percent_encoded_and_works_where_it_may() {
    let (world, pages) = slashed().await;
    world.knows_file_of(&pages[0]);
    world.bed.expires_everything();
    let tile = world.get(&pages[0].image_path("full/99,/0/default.jpg")).await;
    assert!(tile.header("heal-status").contains("rung=direct"), "{:?}", tile.headers);
    assert_eq!(tile.body, pages[0].picture("full/99,/0/default.jpg"));
}

#[tokio::test]
async fn an_image_server_that_knows_no_base64_does_not_make_expired_images_missing() {
    let world = World::with(ALONE).await;
    let page = world.bed.page();
    let (redis, own) = (world.bed.redis.clone(), page.identifier.clone());
    let images = testbed::Origin::start(move |seen| {
        let is_there = seen.target.contains(&own) && redis.has_key(&own);
        testbed::Origin::answer(if is_there { 200 } else { 404 }, &[], testbed::Flow::chunked("picture"))
    });
    let (app, _folder) = proxy(&world.bed, &images.url(), &world.bed.service.origin(), ALONE).await;
    let uuid = page.uuid.parse().expect("a UUID");
    app.index.learn_file_url(uuid, &page.file_url).expect("it is true");
    world.bed.expires_everything();
    let url = format!("http://{}{}", app.addresses[0], page.image_path(TILE));
    // Its 404 to base64 proves nothing, because it never answered otherwise.
    let answer = world.client.get(&url, &[]).await.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "picture"), "{:?}", answer.headers);
    assert!(answer.header("heal-status").contains("rung=register"), "{:?}", answer.headers);
}

#[tokio::test]
async fn a_file_that_is_gone_is_found_missing_without_any_canvas_request() {
    let world = World::with(ALONE).await;
    let pages = world.bed.pages();
    for page in &pages[..2] {
        world.knows_file_of(page);
    }
    world.bed.expires_everything();
    assert_eq!(world.get(&pages[0].image_path(TILE)).await.status, 200);
    world.settles().await;
    world.bed.ledger.clear();
    world.bed.fedora.removes_file(&pages[1].path);
    for _ in 0..50 {
        let tile = world.get(&pages[1].image_path(TILE)).await;
        assert_eq!((tile.status, tile.header("heal-status")), (404, "missing"));
    }
    world.settles().await;
    let counts = world.bed.counts();
    assert_eq!((counts.healing(), counts.direct), (0, 1), "asked once, then remembered");
}

#[tokio::test]
async fn a_surviving_canvas_json_is_healed_twenty_times_of_twenty_with_resources_open_or_closed() {
    for closed in [false, true] {
        let bed = Testbed::builder().book("obj/book", 20).page_size(600, 800).start().await;
        let world = World::over(bed, VISIT).await;
        if closed {
            world.bed.service.closes_resources();
        }
        world.bed.caches_everything();
        world.bed.redis.evict_keys();
        let pages = world.bed.pages();
        let answers = join_all(
            pages.iter().map(|page| async { world.get(&page.image_path("full/99,/0/default.jpg")).await }),
        );
        for (page, answer) in pages.iter().zip(answers.await) {
            assert_eq!((answer.status, &answer.body), (200, &page.picture("full/99,/0/default.jpg")));
            assert!(answer.header("heal-status").contains("rung=rebuild"), "{:?}", answer.headers);
        }
        world.settles().await;
        let counts = world.bed.counts();
        assert_eq!((counts.visits, counts.rebuilds + counts.variants), (20, 20), "closed: {closed}");
        assert!(counts.canvas_most <= 2);
        assert!(pages.iter().all(|page| world.bed.redis.poisoned_duplicates(&page.path) == 0));
    }
}

#[tokio::test]
async fn a_surviving_canvas_that_expires_again_soon_is_healed_again_until_it_flaps() {
    let world = World::with(VISIT).await;
    let page = world.bed.page();
    for heal in 1..=8 {
        world.bed.caches_everything();
        world.bed.redis.evict_keys();
        let tile = world.get(&page.image_path(TILE)).await;
        // A visit can't help here, and what helped is tried again at once: a rebuild five times in one cool-down.
        let expected = if heal <= 5 { (200, "rebuild") } else { (404, "") };
        assert_eq!(tile.status, expected.0, "{heal}: {:?}", tile.headers);
        assert!(tile.header("heal-status").contains(expected.1), "{heal}: {:?}", tile.headers);
        world.settles().await;
    }
    let counts = world.bed.counts();
    assert_eq!((counts.visits, counts.rebuilds + counts.variants), (6, 5), "then both are left alone");
}

#[tokio::test]
async fn a_missing_file_costs_no_rebuild_in_a_thousand_requests() {
    let world = World::with(VISIT).await;
    let page = world.bed.page();
    world.bed.caches_everything();
    world.bed.fedora.removes_file(&page.path);
    let path = page.image_path(TILE);
    let original = world.asks_directly(&path).await;
    for _ in 0..20 {
        for answer in join_all((0..50).map(|_| world.get(&path))).await {
            assert_eq!((answer.status, answer.header("heal-status")), (404, "missing"));
            assert_eq!((&answer.body, answer.header("cache-control")), (&original.body, "no-store"));
        }
    }
    world.settles().await;
    let counts = world.bed.counts();
    assert_eq!((counts.canvas, counts.rebuilds), (0, 0));
    assert_eq!(world.bed.redis.poisoned_duplicates(&page.path), 0);
}

#[tokio::test]
async fn with_resources_closed_a_missing_file_is_tried_once_and_its_good_canvas_is_not_ruined() {
    let world = World::with(VISIT).await;
    let page = world.bed.page();
    world.bed.service.closes_resources();
    world.bed.caches_everything();
    world.bed.fedora.removes_file(&page.path);
    let began = std::time::Instant::now();
    for _ in 0..20 {
        let path = page.image_path(TILE);
        let answers = join_all((0..50).map(|_| world.get(&path))).await;
        assert!(
            answers.iter().all(|answer| (answer.status, answer.header("heal-status")) == (404, "missing"))
        );
    }
    world.settles().await;
    let counts = world.bed.counts();
    // Nothing has shown that the service is well: it is believed for a second at first, and then tried once more.
    let lives = 1 + usize::try_from(began.elapsed().as_secs()).expect("few");
    assert!(counts.visits == 1 && (1..=lives).contains(&(counts.rebuilds + counts.variants)), "{counts:?}");
    let canvas = testbed::get(&format!("{}{}", world.bed.service.origin(), page.canvas_path)).await;
    assert!(canvas.text().contains(&page.uuid), "the good canvas was ruined: {}", canvas.text());
}

#[tokio::test]
async fn the_file_is_learned_by_the_way_so_that_the_next_expiry_is_direct() {
    let world = World::with(ALONE).await;
    let page = world.bed.page();
    world.bed.expires_everything();
    let first = world.get(&page.image_path(TILE)).await;
    assert!(first.header("heal-status").contains("rung=variant"), "{:?}", first.headers);
    let uuid = page.uuid.parse().expect("a UUID");
    patiently("the file is learned", || world.app.index.file_url(uuid).expect("an index").is_some()).await;
    world.bed.expires_everything();
    let second = world.get(&page.image_path(TILE)).await;
    assert!(second.header("heal-status").contains("rung=direct"), "{:?}", second.headers);
}

#[tokio::test]
async fn a_canvas_that_takes_long_does_not_keep_the_viewer_once_the_key_is_there() {
    let world = World::with(VISIT).await;
    let page = world.bed.page();
    world.bed.expires_everything();
    world.bed.service.canvas_delay(Duration::from_millis(200));
    world.bed.service.stalls_after_key();
    let began = std::time::Instant::now();
    assert_eq!(world.get(&page.image_path(TILE)).await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(world.bed.counts().canvas_now, 1, "it is still being built");
    // Lost again before it is done: joining it cannot help, so the ladder goes on.
    world.bed.expires(&page.identifier);
    let tile = {
        let (client, url) = (world.client.clone(), world.url(&page.image_path(TILE)));
        tokio::spawn(async move { client.get(&url, &[]).await.expect("an answer") })
    };
    patiently("it waits", || world.metric("iiif_mender_waiting_viewers") == 1.0).await;
    world.bed.service.releases();
    assert_eq!(tile.await.expect("not aborted").status, 200);
    world.settles().await;
    let counts = world.bed.counts();
    assert_eq!((counts.visits, counts.rebuilds + counts.variants), (1, 1));
}

#[tokio::test]
async fn a_request_is_asked_again_as_it_was_with_its_method_range_and_conditions() {
    let world = World::with(VISIT).await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    let fields =
        [("range", "bytes=0-9"), ("if-modified-since", "Sun, 22 Nov 2026 12:00:00 GMT"), ("x-mine", "1")];
    let answer = world.get_with(&format!("{}?t=1", pages[0].image_path(TILE)), &fields).await;
    assert_eq!(answer.status, 304);
    let url = world.url(&pages[1].image_path(TILE));
    let head = world.client.send(Method::HEAD, &url, &[]).await.expect("an answer");
    assert_eq!((head.status, head.body.len()), (200, 0));
    world.settles().await;
    let log = world.bed.ledger.log();
    let asked: Vec<_> = log.iter().filter(|seen| seen.target.ends_with("?t=1")).collect();
    assert_eq!(asked.len(), 2);
    for seen in asked {
        assert!(fields.iter().all(|(name, value)| seen.headers.get(*name).is_some_and(|own| own == value)));
    }
    let heads = log.iter().filter(|seen| seen.method == Method::HEAD).count();
    assert_eq!(heads, 2);
}
