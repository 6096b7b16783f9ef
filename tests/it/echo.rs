//! The echo: the canvas service's own info.json request, coming back through us, must never wait for what caused it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use testbed::Kind;

use crate::support::world::{TILE, World, patiently, visited_book};

#[tokio::test]
async fn a_canvas_that_asks_us_back_takes_its_own_time_and_no_more() {
    let world = visited_book(4, "").await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    world.bed.restart_image_server();
    world.bed.service.canvas_delay(Duration::from_millis(400));
    let began = Instant::now();
    let answers = join_all(pages[..2].iter().map(|page| async { world.get(&page.info_path()).await })).await;
    let took = began.elapsed();
    assert!(answers.iter().all(|answer| answer.status == 200));
    // Two at a time, so one delay for both; the rest is what a debug build and two busy cores cost.
    assert!(took < Duration::from_millis(800), "{took:?}");
    world.settles().await;
    let counts = world.bed.counts();
    assert_eq!((counts.canvas, counts.nested), (2, 2));
    assert!(world.events("echo") >= 2.0, "the nested requests came through us");
}

#[tokio::test]
async fn with_everything_expired_a_presentation_built_through_us_asks_for_no_canvas() {
    for reader in [false, true] {
        let world = visited_book(30, "").await;
        let pages = world.bed.pages();
        world.bed.expires_everything();
        world.bed.restart_image_server();
        let built = world.get(&pages[0].presentation_path);
        let read = async {
            for page in pages.iter().filter(|_| reader) {
                assert_eq!(world.get(&page.image_path(TILE)).await.status, 200);
            }
        };
        let (presentation, ()) = tokio::join!(built, read);
        assert_eq!(presentation.status, 200);
        assert!(pages.iter().all(|page| presentation.text().contains(&page.uuid)), "a page is left out");
        world.settles().await;
        let counts = world.bed.counts();
        assert!(counts.nested_most <= 2, "{counts:?}");
        if !reader {
            assert_eq!((counts.canvas, counts.nested), (0, 30));
        }
        assert!(counts.canvas <= 30, "{counts:?}");
    }
}

#[tokio::test]
async fn stuck_nested_requests_hold_up_nobody_who_waits_for_a_picture() {
    let world = visited_book(4, "").await;
    let pages = world.bed.pages();
    world.bed.service.closes_resources();
    world.bed.expires_everything();
    world.bed.restart_image_server();
    world.bed.images.stalls_info();
    // Both of the service's connections are stuck in info.json, and the keys are there: both pages show.
    let tiles =
        join_all(pages[..2].iter().map(|page| async { world.get(&page.image_path(TILE)).await })).await;
    assert!(tiles.iter().all(|tile| tile.status == 200));
    assert_eq!(world.bed.counts().canvas_now, 2);
    world.bed.images.releases();
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 2);
    let poisoned: usize = pages.iter().map(|page| world.bed.redis.poisoned_duplicates(&page.path)).sum();
    assert_eq!(poisoned, 0);
}

#[tokio::test]
async fn what_carries_our_own_via_goes_straight_through_and_a_circle_ends() {
    let world = visited_book(1, "").await;
    let page = world.bed.page();
    world.bed.expires_everything();
    let path = page.image_path(TILE);
    let once = world.get_with(&path, &[("via", "1.1 campus, 1.1 iiif-mender")]).await;
    assert_eq!((once.status, once.header("heal-status")), (404, ""));
    let twice = world.get_with(&path, &[("via", "1.1 iiif-mender, 1.1 iiif-mender")]).await;
    assert_eq!(twice.status, 508);
    assert_eq!(world.bed.counts().healing(), 0);
    assert_eq!(world.get_with(&path, &[("via", "1.1 campus")]).await.status, 200);
}

#[tokio::test]
async fn what_comes_from_the_canvas_service_s_addresses_goes_straight_through() {
    let world = visited_book(1, "heal.origins = 127.0.0.0/8").await;
    let page = world.bed.page();
    world.bed.expires_everything();
    world.bed.restart_image_server();
    for path in [page.image_path(TILE), page.info_path()] {
        let answer = world.get(&path).await;
        assert_eq!((answer.status, answer.header("heal-status")), (404, ""));
    }
    assert_eq!(world.bed.counts().healing(), 0);
}

#[tokio::test]
async fn our_own_looks_and_questions_are_marked_as_ours() {
    let world = visited_book(2, "").await;
    let page = world.bed.page();
    world.bed.service.closes_resources();
    world.bed.expires_everything();
    assert_eq!(world.get(&page.image_path(TILE)).await.status, 200);
    world.settles().await;
    let log = world.bed.ledger.log();
    let ours: Vec<_> =
        log.iter().filter(|seen| [Kind::Visit, Kind::Resources].contains(&seen.kind)).collect();
    assert!(!ours.is_empty());
    for seen in ours {
        assert_eq!(seen.headers.get("via").expect("a Via"), "1.1 iiif-mender");
        assert!(!seen.headers.contains_key("authorization") && !seen.headers.contains_key("cookie"));
    }
}

#[tokio::test]
async fn registering_asks_us_back_too_and_that_waits_for_nothing() {
    let world = World::with("heal.ahead = 0\nheal.ladder = register").await;
    let pages = world.bed.pages_of("obj/minutes");
    for page in &pages {
        world.knows_file_of(page);
    }
    world.bed.expires_everything();
    world.bed.restart_image_server();
    let answers = join_all(pages.iter().map(|page| async { world.get(&page.info_path()).await })).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    patiently("they are built", || world.bed.counts().nested_now == 0).await;
    world.settles().await;
    assert_eq!((world.bed.counts().register, world.bed.counts().canvas), (5, 0));
}
