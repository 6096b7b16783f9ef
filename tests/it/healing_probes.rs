//! Looks that lie or say nothing: caches, logins, the second face of expiry, answers that are old.

use std::time::Duration;

use futures_util::future::join_all;

use crate::support::healing_world::{Before, book, keys_are_back, lost, pages, read, tile};
use crate::support::world::{World, patiently};

/// With a derivative cache, `/resources` open or closed.
async fn cached(count: u32, closed: bool, more: &str) -> World {
    let bed = pages(count).derivative_cache().start().await;
    if closed {
        bed.service.closes_resources();
    }
    World::over(bed, more).await
}

#[tokio::test]
async fn behind_a_derivative_cache_every_flush_is_healed_and_not_only_the_first() {
    for closed in [true, false] {
        let world = cached(20, closed, "heal.ahead = 0").await;
        let pages = world.bed.pages();
        // As in life: an early look finds nothing yet.
        world.bed.service.canvas_delay(Duration::from_millis(300));
        let before = Before::of(&world);
        for round in 0..4 {
            world.bed.expires_everything();
            assert_eq!(lost(&read(&world, &pages, round).await), 0, "flush {round}, closed: {closed}");
            world.settles().await;
        }
        before.unharmed(&world);
    }
}

#[tokio::test]
async fn behind_a_derivative_cache_a_canvas_whose_json_survived_is_healed_every_time() {
    for closed in [true, false] {
        let world = cached(10, closed, "heal.ahead = 0").await;
        let pages = world.bed.pages();
        world.bed.caches_everything();
        let before = Before::of(&world);
        for round in 0..3 {
            world.bed.redis.evict_keys();
            assert_eq!(lost(&read(&world, &pages, round).await), 0, "round {round}, closed: {closed}");
            world.settles().await;
        }
        before.unharmed(&world);
    }
}

#[tokio::test]
async fn after_a_cure_behind_a_derivative_cache_info_json_is_still_held_until_its_image_is_there() {
    let world = cached(6, false, "heal.ahead = 0").await;
    let pages = world.bed.pages();
    world.bed.heats_info();
    for round in 0..3 {
        world.bed.expires_everything();
        // A tile first: where its cure makes `/resources` distrusted, info.json of the others passes unhealed.
        assert_eq!(world.get(&pages[0].image_path(&tile(round))).await.status, 200);
        for page in &pages[1..] {
            let info = world.get(&page.info_path()).await;
            assert_eq!(info.status, 200);
            assert!(
                world.bed.redis.has_key(&page.identifier),
                "round {round}: info.json went out before its image"
            );
            assert_eq!(world.get(&page.image_path(&tile(round))).await.status, 200);
        }
        world.settles().await;
    }
}

#[tokio::test]
async fn what_is_kept_warm_behind_a_derivative_cache_is_kept_warm_again() {
    for closed in [true, false] {
        let more = "heal.ahead = 0\nindex.sources.0.warm = 200ms\nheal.sweep_rate = 1000";
        let world = cached(6, closed, more).await;
        let pages = world.bed.pages();
        for _ in 0..2 {
            world.bed.expires_everything();
            keys_are_back(&world.bed, &pages).await;
        }
    }
}

#[tokio::test]
async fn the_pages_ahead_behind_a_derivative_cache_are_healed_at_every_expiry() {
    for closed in [true, false] {
        let world = cached(8, closed, "heal.ahead = 3").await;
        let pages = world.bed.pages();
        for round in 0..2 {
            world.bed.expires_everything();
            assert_eq!(world.get(&pages[0].image_path(&tile(round))).await.status, 200);
            keys_are_back(&world.bed, &pages[1..4]).await;
            world.settles().await;
        }
    }
}

#[tokio::test]
async fn a_sweep_behind_a_derivative_cache_finds_what_is_gone_at_every_flush() {
    let more = "heal.ahead = 0\nheal.mass_expiry.ids = 3\nheal.sweep = true\nheal.sweep_rate = 1000";
    let world = cached(16, true, more).await;
    let pages = world.bed.pages();
    for round in 0..2 {
        world.bed.expires_everything();
        assert_eq!(lost(&read(&world, &pages[..5], round).await), 0);
        keys_are_back(&world.bed, &pages).await;
        world.settles().await;
    }
}

#[tokio::test]
async fn readers_with_a_cookie_are_healed_where_the_image_server_asks_for_a_login_before_it_looks() {
    for closed in [true, false] {
        let world = book(20, "").await;
        let pages = world.bed.pages();
        world.bed.images.asks_for_login(true);
        if closed {
            world.bed.service.closes_resources();
        }
        world.bed.service.canvas_delay(Duration::from_millis(300));
        let before = Before::of(&world);
        world.bed.expires_everything();
        let readers = pages.iter().map(|page| async {
            world.get_with(&page.image_path(&tile(0)), &[("cookie", "session=1")]).await.status
        });
        assert_eq!(lost(&join_all(readers).await), 0, "closed: {closed}");
        world.settles().await;
        let canvases = world.bed.counts().canvas;
        assert!(canvases <= 20, "{canvases} canvas requests for 20 pages");
        before.unharmed(&world);
    }
}

#[tokio::test]
async fn a_stranger_s_401_is_the_image_server_s_own_and_heals_nothing() {
    let world = book(2, "").await;
    world.bed.images.asks_for_login(true);
    world.bed.expires_everything();
    let answer = world.get(&world.bed.page().image_path(&tile(0))).await;
    assert_eq!((answer.status, answer.header("heal-status")), (401, ""));
    assert_eq!(world.bed.counts().canvas, 0);
}

#[tokio::test]
async fn a_501_of_a_key_that_went_while_the_image_was_opened_is_healed_like_a_404() {
    let world = book(6, "").await;
    let pages = world.bed.pages();
    world.bed.expires_everything();
    for page in &pages {
        world.bed.images.loses_keys_while_opening(1);
        let answer = world.get(&page.image_path(&tile(0))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    world.settles().await;
    assert_eq!(world.bed.counts().canvas, 6);
    // Of an identifier that nobody knows it is passed on as it is.
    world.bed.images.loses_keys_while_opening(1);
    let unknown = world.get("/iiif/2/00000000-0000-3000-8000-000000000000/full/full/0/default.jpg").await;
    assert_eq!((unknown.status, unknown.header("heal-status")), (501, ""));
}

#[tokio::test]
async fn a_tile_that_the_image_server_has_is_served_while_its_image_is_being_healed() {
    let world = cached(2, false, "heal.ahead = 0").await;
    let page = world.bed.page();
    assert_eq!(world.get(&page.image_path(&tile(1))).await.status, 200);
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let waits = world.asks(&page.image_path(&tile(2)));
    world.bed.ledger.until(|counts| counts.canvas == 1).await;
    patiently("a viewer waits", || world.metric("iiif_mender_waiting_viewers") >= 1.0).await;
    let kept = tokio::time::timeout(Duration::from_secs(10), world.get(&page.image_path(&tile(1)))).await;
    assert_eq!(kept.expect("it is not withheld").status, 200);
    assert!(!waits.is_finished());
    world.bed.service.releases();
    assert_eq!(waits.await.expect("not aborted").status, 200);
}

#[tokio::test]
async fn a_404_that_was_decided_before_the_heal_and_comes_after_it_heals_nothing_again() {
    for ladder in ["direct,register,visit", "visit", "direct,register,variant,visit,rebuild"] {
        for known in [false, true] {
            let world = book(2, &format!("heal.ladder = {ladder}\nheal.cooldown = 1ms")).await;
            let page = world.bed.page();
            if known {
                world.knows_file_of(&page);
            }
            world.bed.expires_everything();
            world.bed.images.delivers_late(&tile(7));
            let late = world.asks(&page.image_path(&tile(7)));
            world.bed.ledger.until(|counts| counts.image == 1).await;
            assert_eq!(world.get(&page.image_path(&tile(1))).await.status, 200);
            world.settles().await;
            let before = world.bed.counts();
            world.bed.images.delivers_all();
            assert_eq!(late.await.expect("not aborted").status, 200);
            world.settles().await;
            let after = world.bed.counts();
            assert_eq!(after.healing(), before.healing(), "{ladder}, file known: {known}");
        }
    }
}
