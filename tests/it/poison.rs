//! Poison: no good canvas is ever ruined by us, and those that are ruined are cured once the fault is over.

use futures_util::future::join_all;
use testbed::Page;

use crate::support::world::{World, patiently, visited_book};

const TILE: &str = "full/99,/0/default.jpg";

fn poisoned(world: &World) -> usize {
    world.bed.pages().iter().map(|page| world.bed.redis.poisoned_duplicates(&page.path)).sum()
}

async fn canvas_is_good(world: &World, page: &Page) -> bool {
    let canvas = testbed::get(&format!("{}{}", world.bed.service.origin(), page.canvas_path)).await;
    canvas.status == 200 && canvas.text().contains(&page.uuid)
}

async fn all_canvases_are_good(world: &World) {
    for page in world.bed.pages() {
        assert!(canvas_is_good(world, &page).await, "{} is poisoned", page.path);
    }
}

#[tokio::test]
async fn no_good_canvas_is_poisoned_by_healing_during_an_info_fault() {
    for fault in [403, 404, 429, 500, 503] {
        for warm in [false, true] {
            let world = visited_book(6, "").await;
            if warm {
                // Somebody read a page before: there is a witness.
                let pages = world.bed.pages();
                assert_eq!(world.get(&pages[5].info_path()).await.status, 200);
            }
            world.bed.caches_everything();
            world.bed.redis.evict_keys();
            world.bed.images.restarts();
            world.bed.images.info_faults(fault);
            let pages = world.bed.pages();
            let asked = pages[..5].iter().map(|page| async { world.get(&page.image_path(TILE)).await });
            for answer in join_all(asked).await {
                assert!([200, 404].contains(&answer.status), "{fault}: {}", answer.status);
            }
            world.settles().await;
            assert_eq!(poisoned_in_use(&world).await, 0, "{fault}, witness: {warm}");
        }
    }
}

/// Canvases whose own address answers without their image.
async fn poisoned_in_use(world: &World) -> usize {
    let mut poisoned = 0;
    for page in world.bed.pages() {
        poisoned += usize::from(!canvas_is_good(world, &page).await);
    }
    poisoned
}

#[tokio::test]
async fn no_rebuild_is_sent_into_a_fault_that_can_be_seen() {
    for fault in [403, 429, 500, 503] {
        let world = visited_book(6, "").await;
        world.bed.caches_everything();
        world.bed.redis.evict_keys();
        world.bed.images.info_faults(fault);
        let pages = world.bed.pages();
        join_all(pages.iter().map(|page| async { world.get(&page.image_path(TILE)).await })).await;
        world.settles().await;
        assert_eq!(world.bed.counts().rebuilds, 0, "{fault}");
        assert!(world.events("rebuild_withheld") >= 1.0);
    }
}

#[tokio::test]
async fn what_a_fault_poisoned_is_cured_once_it_is_over() {
    for fault in [403, 404, 429, 500, 503] {
        let world = visited_book(5, "heal.backoff_max = 1s").await;
        world.bed.expires_everything();
        world.bed.images.info_faults(fault);
        let pages = world.bed.pages();
        let asked = pages.iter().map(|page| async { world.get(&page.image_path(TILE)).await });
        for answer in join_all(asked).await {
            // The key is written before the nested request fails: the viewer has the picture all the same.
            assert_eq!(answer.status, 200, "{fault}");
        }
        patiently("poisoned", || world.events("poisoned") == 5.0).await;
        assert_eq!(poisoned(&world), 5, "{fault}");
        assert_eq!(world.bed.counts().rebuilds, 0, "{fault}: rebuilt into the fault");
        world.bed.images.info_is_well();
        patiently("cured", || world.events("cured") == 5.0).await;
        assert_eq!(poisoned(&world), 0, "{fault}");
        all_canvases_are_good(&world).await;
        assert_eq!(world.bed.counts().rebuilds, 5, "{fault}: one each");
    }
}

#[tokio::test]
async fn a_fault_that_only_the_service_meets_is_outlived_too() {
    let world = visited_book(2, "heal.backoff_max = 1s").await;
    world.bed.expires_everything();
    // We see a healthy image server; its own way there is broken.
    world.bed.service.poisons_nested(503);
    let page = world.bed.page();
    assert_eq!(world.get(&page.image_path(TILE)).await.status, 200);
    // Far more tries than the three that duplicates need.
    world.bed.ledger.until(|counts| counts.rebuilds >= 2).await;
    assert_eq!(world.events("cure_failed"), 0.0);
    world.bed.service.nested_is_well();
    patiently("cured", || world.events("cured") == 1.0).await;
    assert!(canvas_is_good(&world, &page).await);
}

#[tokio::test]
async fn five_poisoned_duplicates_are_cured() {
    let world = visited_book(1, "heal.backoff_max = 1s").await;
    let page = world.bed.page();
    world.bed.expires_everything();
    world.bed.service.poisons_nested(500);
    // Five readers past us, at once: no single flight there.
    world.bed.service.stalls_after_key();
    let url = format!("{}{}", world.bed.service.origin(), page.canvas_path);
    let past_us = join_all((0..5).map(|_| testbed::get(&url)));
    let release = async {
        world.bed.ledger.until(|counts| counts.generations == 5).await;
        world.bed.service.releases();
    };
    tokio::join!(past_us, release);
    assert_eq!(world.bed.redis.poisoned_duplicates(&page.path), 5);
    world.bed.service.nested_is_well();
    world.bed.ledger.clear();
    world.bed.expires(&page.identifier);
    let answer = world.get(&page.image_path(TILE)).await;
    assert_eq!((answer.status, &answer.body), (200, &page.picture(TILE)), "{}", answer.header("heal-status"));
    patiently("cured", || world.events("cured") == 1.0).await;
    for _ in 0..3 {
        assert!(canvas_is_good(&world, &page).await, "a duplicate came out of hiding");
    }
    assert!(world.bed.counts().rebuilds <= 4, "{:?}", world.bed.counts());
}

#[tokio::test]
async fn a_poisoned_canvas_whose_image_expired_heals_in_front_of_the_viewer() {
    for closed in [false, true] {
        let world = visited_book(1, "").await;
        let page = world.bed.page();
        world.bed.expires_everything();
        world.bed.service.poisons_nested(500);
        testbed::get(&format!("{}{}", world.bed.service.origin(), page.canvas_path)).await;
        world.bed.service.nested_is_well();
        world.bed.redis.evict_keys();
        world.bed.restart_image_server();
        if closed {
            world.bed.service.closes_resources();
        }
        let answer = world.get(&page.image_path(TILE)).await;
        assert_eq!(answer.status, 200, "closed: {closed}: {}", answer.header("heal-status"));
        patiently("good", || poisoned(&world) == 0).await;
        assert!(canvas_is_good(&world, &page).await);
    }
}

#[tokio::test]
async fn a_missing_file_is_never_cured() {
    for (closed, flushed) in [(false, false), (false, true), (true, true)] {
        let world = visited_book(2, "heal.backoff_max = 1s").await;
        let page = world.bed.page();
        if flushed {
            world.bed.expires_everything();
        }
        if closed {
            world.bed.service.closes_resources();
        }
        world.bed.fedora.removes_file(&page.path);
        for _ in 0..200 {
            let answer = world.get(&page.image_path(TILE)).await;
            assert_eq!((answer.status, answer.header("heal-status")), (404, "missing"), "{closed} {flushed}");
        }
        world.settles().await;
        let counts = world.bed.counts();
        // Without its key nothing tells it from a poisoned canvas, until it was built anew once.
        assert!(counts.rebuilds <= usize::from(flushed), "{closed} {flushed}: {counts:?}");
        assert_eq!(world.events("cured"), 0.0);
    }
}

#[tokio::test]
async fn a_stranger_who_sounds_like_the_service_does_not_keep_us_from_rebuilding() {
    let world = visited_book(2, "").await;
    let pages = world.bed.pages();
    world.bed.caches_everything();
    world.bed.redis.evict_keys();
    world.bed.restart_image_server();
    let voice = [("user-agent", "Apache-HttpClient/4.5.13 (Java/11.0.24)")];
    for _ in 0..5 {
        // He is healed as any reader is: no canvas of his image is being built, and no echo ever came from there.
        assert_eq!(world.get_with(&pages[1].info_path(), &voice).await.status, 200);
    }
    let answer = world.get(&pages[0].image_path(TILE)).await;
    assert!(answer.header("heal-status").contains("rung=rebuild"), "{:?}", answer.headers);
}
