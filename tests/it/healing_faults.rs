//! Faults of everything around us: what may not be believed of them, and how soon all is well after them.

use std::time::Duration;

use testbed::Page;

use crate::support::healing_world::{Before, all_back, book, keys_are_back, lost, pages, read, read_for};
use crate::support::world::{World, patiently};

/// How soon the last image is back after a fault. Two seconds are promised; the machine may be busy.
const SOON: Duration = Duration::from_secs(10);
/// How long a fault takes.
const FAULT: Duration = Duration::from_secs(3);

/// Twenty expired pages whose canvases are stored.
async fn kept(ignores: bool, more: &str) -> World {
    let world = book(20, more).await;
    if ignores {
        world.bed.service.ignores_disallow();
    }
    world.bed.caches_everything();
    world.bed.redis.evict_keys();
    world
}

/// Readers read these pages through a fault, which has begun; `ends` ends it, and soon after all is well.
async fn is_over_soon(world: &World, pages: &[Page], ends: impl FnOnce()) {
    read_for(world, pages, FAULT).await;
    ends();
    all_back(world, pages, SOON).await;
    world.settles().await;
}

#[tokio::test]
async fn a_fault_of_info_json_is_over_soon_after_its_end_and_leaves_no_canvas_worse() {
    for (status, ignores) in [(403, false), (404, false), (503, false), (404, true), (503, true)] {
        let world = kept(ignores, "").await;
        let before = Before::of(&world);
        world.bed.images.info_faults(status);
        is_over_soon(&world, &world.bed.pages(), || world.bed.images.info_is_well()).await;
        before.no_worse(&world);
    }
}

#[tokio::test]
async fn a_fault_that_only_the_service_sees_costs_one_canvas_request_a_page() {
    for ignores in [false, true] {
        let world = kept(ignores, "").await;
        let before = Before::of(&world);
        world.bed.service.poisons_nested(503);
        read_for(&world, &world.bed.pages(), FAULT).await;
        let canvases = world.bed.counts().canvas;
        // Where `disallow` is not known the first try is a plain visit, and more may be needed.
        assert!(canvases <= if ignores { 60 } else { 20 }, "{canvases} canvas requests, ignored: {ignores}");
        world.bed.service.nested_is_well();
        all_back(&world, &world.bed.pages(), SOON).await;
        world.settles().await;
        if !ignores {
            before.no_worse(&world);
        }
    }
}

#[tokio::test]
async fn a_repository_that_answers_500_is_no_fault_of_its_canvases() {
    for json_kept in [true, false] {
        let world = kept(false, "").await;
        if !json_kept {
            world.bed.redis.evict_manifests();
        }
        let before = Before::of(&world);
        world.bed.service.fails_canvas(500);
        is_over_soon(&world, &world.bed.pages(), || world.bed.service.canvas_is_well()).await;
        before.unharmed(&world);
    }
}

#[tokio::test]
async fn a_service_that_says_429_and_when_to_come_again_is_asked_then_and_all_is_well_soon() {
    let world = kept(false, "").await;
    world.bed.service.fails_canvas_until(429, 2);
    read_for(&world, &world.bed.pages(), FAULT).await;
    let asked = world.bed.counts().canvas;
    assert!(asked <= 20, "{asked} canvas requests to a service that wants to be left alone");
    world.bed.service.canvas_is_well();
    all_back(&world, &world.bed.pages(), SOON).await;
}

#[tokio::test]
async fn a_fault_of_the_file_store_makes_nothing_missing_for_longer_than_it_takes() {
    for (closed, known) in [(false, 0), (true, 0), (false, 20), (false, 10)] {
        let world = book(20, "").await;
        let pages = world.bed.pages();
        if closed {
            world.bed.service.closes_resources();
        }
        for page in &pages[..known] {
            world.knows_file_of(page);
        }
        world.bed.heats_info();
        world.bed.expires_everything();
        world.bed.fedora.files_fail();
        is_over_soon(&world, &pages, || world.bed.fedora.files_are_well()).await;
    }
}

#[tokio::test]
async fn canvases_that_a_fault_emptied_are_whole_again_soon_after_it() {
    for known in [0, 10] {
        let world = kept(true, "").await;
        let pages = world.bed.pages();
        let before = world.bed.redis.stored();
        for page in &pages[..known] {
            world.knows_file_of(page);
        }
        world.bed.heats_info();
        world.bed.fedora.files_fail();
        read_for(&world, &pages, FAULT).await;
        world.bed.fedora.files_are_well();
        all_back(&world, &pages, SOON).await;
        let is_whole = || world.bed.redis.stored().worse_than(&before).is_empty();
        patiently("the stored canvases have their images", is_whole).await;
    }
}

#[tokio::test]
async fn a_fault_of_the_file_store_makes_no_stored_canvas_worse() {
    let world = kept(false, "").await;
    let before = Before::of(&world);
    world.bed.fedora.files_fail();
    is_over_soon(&world, &world.bed.pages(), || world.bed.fedora.files_are_well()).await;
    before.unharmed(&world);
}

#[tokio::test]
async fn redis_down_and_the_service_down_are_over_soon_after_their_end() {
    let world = kept(false, "").await;
    let pages = world.bed.pages();
    world.bed.redis.goes_down();
    is_over_soon(&world, &pages, || world.bed.redis.comes_up()).await;
    world.bed.redis.evict_keys();
    world.bed.service.goes_down().await;
    is_over_soon(&world, &pages, || world.bed.service.comes_up()).await;
}

#[tokio::test]
async fn ahead_and_sweep_build_nothing_into_a_fault_that_was_seen() {
    let more = "heal.ahead = 8\nheal.mass_expiry.ids = 5\nheal.sweep = true\nheal.sweep_rate = 1000";
    for ignores in [true, false] {
        let world = World::over(pages(80).start().await, more).await;
        let pages = world.bed.pages();
        if ignores {
            world.bed.service.ignores_disallow();
        }
        let before = Before::of(&world);
        world.bed.expires_everything();
        world.bed.images.info_faults(503);
        read_for(&world, &pages[..12], FAULT).await;
        let poisoned: usize = pages.iter().map(|page| world.bed.redis.poisoned_duplicates(&page.path)).sum();
        // What readers themselves had built before the fault was seen.
        assert!(poisoned <= if ignores { 14 } else { 0 }, "{poisoned} canvases were built into the fault");
        world.bed.images.info_is_well();
        keys_are_back(&world.bed, &pages).await;
        assert_eq!(lost(&read(&world, &pages, 50).await), 0);
        world.settles().await;
        before.no_worse(&world);
    }
}

#[tokio::test]
async fn two_canvases_that_never_answer_keep_nobody_else_from_being_healed() {
    let world = book(8, "heal.wait = 3s").await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    world.bed.service.hangs_canvas(&pages[0].path);
    world.bed.service.hangs_canvas(&pages[1].path);
    let stuck: Vec<_> =
        pages[..2].iter().map(|page| world.asks(&page.image_path("full/64,/0/default.jpg"))).collect();
    world.bed.ledger.until(|counts| counts.canvas_now == 2).await;
    all_back(&world, &pages[2..], Duration::from_mins(1)).await;
    for viewer in stuck {
        let answer = viewer.await.expect("not aborted");
        assert_eq!(answer.status, 503);
        assert!(answer.header("retry-after").parse::<u32>().is_ok());
    }
    world.bed.service.releases();
    all_back(&world, &pages, SOON).await;
}

#[tokio::test]
async fn a_resources_that_hangs_delays_one_info_json_and_the_others_pass() {
    let world = book(40, "").await;
    let pages = world.bed.pages();
    world.bed.heats_info();
    world.bed.service.hangs_resources();
    let asked: Vec<_> = pages.iter().map(|page| world.asks(&page.info_path())).collect();
    // The two that may ask hold theirs back; all others pass while the question is open.
    patiently("the others pass", || asked.iter().filter(|info| info.is_finished()).count() >= 38).await;
    let resources = world.bed.counts().resources;
    assert!(resources <= 2, "{resources} questions to a service that hangs");
    for info in asked {
        assert_eq!(info.await.expect("not aborted").status, 200);
    }
    world.bed.service.releases();
}
