//! Ahead of the reader, mass expiry and the sweep.

use std::time::Duration;

use futures_util::future::join_all;
use testbed::Testbed;

use crate::support::healing_world::keys_are_back;
use crate::support::world::{World, book, folder_of, patiently, visited_book};

const VISIT: &str = "heal.ladder = visit,rebuild";
const TILE: &str = "0,0,512,512/512,/0/default.jpg";

#[tokio::test]
async fn after_a_heal_the_next_pages_are_healed_before_anybody_turns_to_them() {
    let world = visited_book(20, "heal.ahead = 3").await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    world.get(&pages[4].image_path(TILE)).await;
    world.bed.ledger.until(|counts| counts.generations == 4).await;
    world.settles().await;
    for (number, page) in pages.iter().enumerate() {
        assert_eq!(world.bed.redis.has_key(&page.identifier), (4..8).contains(&number), "page {number}");
    }
    // Turning the page moves the window on, without a heal.
    assert_eq!(world.get(&pages[5].info_path()).await.header("heal-status"), "");
    world.bed.ledger.until(|counts| counts.generations == 5).await;
    world.settles().await;
    assert!(world.bed.redis.has_key(&pages[8].identifier));
    assert_eq!(world.bed.counts().canvas, 5);
}

#[tokio::test]
async fn a_healthy_book_is_not_looked_ahead_in() {
    let world = book(10, VISIT).await;
    for page in world.bed.pages() {
        assert_eq!(world.get(&page.info_path()).await.status, 200);
    }
    let counts = world.bed.counts();
    // One question for each info.json that was asked for, and none for its neighbours.
    assert_eq!((counts.resources, counts.canvas), (10, 0));
}

#[tokio::test]
async fn a_manifest_fetched_through_us_has_its_first_pages_looked_after() {
    let world = visited_book(12, "heal.ahead = 4").await;
    let pages = world.bed.pages();
    // Its manifest survives, so that fetching it registers nothing: what comes back comes back by us.
    testbed::get(&format!("{}{}", world.bed.service.origin(), pages[0].presentation_path)).await;
    world.bed.redis.evict_keys();
    let stored = world
        .app
        .index
        .manifest_canvases(&format!("https://api.library.tamu.edu{}", pages[0].presentation_path));
    assert_eq!(stored.expect("an index").len(), 12);
    let manifest = world.get(&pages[0].presentation_path).await;
    assert_eq!(manifest.text(), world.bed.manifest_json("obj/book"));
    patiently("pages are healed ahead", || {
        (0..4).all(|page| world.bed.redis.has_key(&pages[page].identifier))
    })
    .await;
    world.settles().await;
    assert!(!pages[4..].iter().any(|page| world.bed.redis.has_key(&page.identifier)), "those behind are not");
}

#[tokio::test]
async fn with_resources_closed_a_small_tile_tells_what_is_gone() {
    let world = visited_book(8, "heal.ahead = 2").await;
    let pages = world.bed.pages();
    world.bed.service.closes_resources();
    world.bed.expires_everything();
    world.get(&pages[0].image_path(TILE)).await;
    world.bed.ledger.until(|counts| counts.generations == 3).await;
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 3);
}

#[tokio::test]
async fn a_flush_is_seen_and_all_that_is_being_read_is_healed_with_one_request_for_each_canvas() {
    let bed = Testbed::builder().book("obj/one", 30).book("obj/two", 30).page_size(64, 64).start().await;
    let world = World::over(bed, &format!("{VISIT}\nheal.ahead = 0\nheal.mass_expiry.ids = 5")).await;
    let (one, two) = (world.bed.pages_of("obj/one"), world.bed.pages_of("obj/two"));
    // Somebody reads the first book; nobody reads the second.
    world.get(&one[0].info_path()).await;
    world.bed.expires_everything();
    join_all(
        one[..6].iter().map(|page| async { world.get(&page.image_path("full/64,/0/default.jpg")).await }),
    )
    .await;
    keys_are_back(&world.bed, &one).await;
    world.settles().await;
    assert!(two.iter().all(|page| !world.bed.redis.has_key(&page.identifier)));
    let counts = world.bed.counts();
    assert_eq!(counts.canvas, 30);
    assert!(counts.canvas_most <= 2, "{counts:?}");
    assert_eq!(world.metric(r#"iiif_mender_events_total{kind="mass_expiry"}"#), 1.0);
}

#[tokio::test]
async fn a_configured_sweep_brings_back_everything_and_keeps_its_position() {
    let bed = Testbed::builder().book("obj/one", 12).book("obj/two", 12).page_size(64, 64).start().await;
    let more = format!("{VISIT}\nheal.mass_expiry.ids = 3\nheal.sweep = true\nheal.sweep_rate = 1000");
    let world = World::over(bed, &more).await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    join_all(
        pages[..4].iter().map(|page| async { world.get(&page.image_path("full/64,/0/default.jpg")).await }),
    )
    .await;
    keys_are_back(&world.bed, &pages).await;
    world.settles().await;
    let position = world.folder.path().join("iiif-mender.sqlite3.sweep");
    patiently("the position is deleted at the end", || !position.exists()).await;
    assert_eq!(world.bed.counts().canvas, 24);
}

#[tokio::test]
async fn a_source_that_asks_for_it_is_kept_warm_without_any_reader() {
    let bed = Testbed::builder().book("obj/one", 6).page_size(64, 64).start().await;
    let more = format!("{VISIT}\nindex.sources.0.warm = 200ms\nheal.sweep_rate = 1000");
    let world = World::over(bed, &more).await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    keys_are_back(&world.bed, &pages).await;
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 6);
}

#[tokio::test]
async fn an_interrupted_sweep_goes_on_after_the_next_start() {
    let bed = Testbed::builder().book("obj/one", 10).page_size(64, 64).empty_redis().start().await;
    let folder = folder_of(&bed);
    let more = format!("{VISIT}\nheal.sweep = true\nheal.sweep_rate = 1000");
    let settings =
        crate::support::world::settings(folder.path(), &bed.images.origin(), &bed.service.origin(), &more);
    // A first life indexes; a second one finds the position that an interrupted sweep left behind.
    let first = iiif_mender::app::App::start(settings.clone()).await.expect("it starts");
    patiently("indexed", || first.index.stats().expect("an index").images == 10).await;
    first.stop().await;
    std::fs::write(folder.path().join("iiif-mender.sqlite3.sweep"), "4\n").expect("a file");
    let second = iiif_mender::app::App::start(settings).await.expect("it starts");
    bed.service.image_server_url(format!("http://{}/iiif/2", second.addresses[0]));
    let back = || bed.pages().iter().map(|page| bed.redis.has_key(&page.identifier)).collect::<Vec<_>>();
    patiently("the rest is back", || back()[4..].iter().all(|is_back| *is_back)).await;
    assert_eq!(back()[..4], [false; 4]);
    tokio::time::timeout(Duration::from_secs(20), second.stop()).await.expect("it stops");
}

#[tokio::test]
async fn switched_off_nothing_is_kept_warm_either() {
    let bed = Testbed::builder().book("obj/book", 5).page_size(64, 64).start().await;
    let more = "heal.enabled = false\nindex.sources.0.warm = 1ms\nheal.sweep_rate = 1000";
    let world = World::over(bed, more).await;
    world.bed.expires_everything();
    // Long enough for several rounds.
    for _ in 0..100 {
        assert_eq!(world.get(&world.bed.page().image_path("full/full/0/default.jpg")).await.status, 404);
    }
    let counts = world.bed.counts();
    assert_eq!((counts.resources, counts.healing()), (0, 0));
}
