//! The cache beside healing: what is kept needs nobody, and what has expired is found all the same.

use std::time::Duration;

use testbed::{Fetched, Kind, Testbed};

use crate::support::cache_world::did;
use crate::support::world::{TILE, World, asks_until, patiently};

/// A world with a cache, in which nothing is healed ahead.
async fn kept(more: &str) -> World {
    World::with(&format!("cache.memory = 16MiB\nheal.ahead = 0\n{more}")).await
}

/// Asks until the answer is no longer a hit.
async fn no_hit(world: &World, path: &str) -> Fetched {
    asks_until("it is stale", async || world.get(path).await, |answer| did(answer) != "hit").await
}

#[tokio::test]
async fn a_tile_that_is_kept_needs_neither_the_image_server_nor_the_canvas_service() {
    let world = kept("").await;
    let path = world.bed.page().image_path(TILE);
    let first = world.get(&path).await;
    world.bed.expires_everything();
    world.bed.images.goes_down().await;
    world.bed.service.goes_down().await;
    let kept = world.get(&path).await;
    assert_eq!((kept.status, did(&kept), &kept.body), (200, "hit", &first.body));
    let info = world.bed.page().image_path("info.json");
    assert_eq!(world.get(&info).await.status, 502, "what nobody has seen");
}

#[tokio::test]
async fn an_info_json_that_is_kept_outlives_both() {
    let world = kept("").await;
    let path = world.bed.page().image_path("info.json");
    let first = world.get(&path).await;
    world.bed.images.goes_down().await;
    world.bed.service.goes_down().await;
    let kept = world.get(&path).await;
    assert_eq!((kept.status, did(&kept), &kept.body), (200, "hit", &first.body));
}

#[tokio::test]
async fn the_gate_holds_an_info_json_that_is_kept_until_its_tiles_are_there() {
    let world = kept("heal.alive_for = 0s").await;
    let page = world.bed.page();
    let path = page.image_path("info.json");
    for expected in ["fwd=uri-miss; stored", "hit"] {
        assert_eq!(did(&world.get(&path).await), expected);
    }
    world.bed.expires_everything();
    let healed = world.get(&path).await;
    assert_eq!(healed.status, 200);
    assert!(healed.header("heal-status").starts_with("healed"), "{:?}", healed.headers);
    assert_eq!(world.get(&page.image_path(TILE)).await.header("heal-status"), "", "its tiles are there");
}

#[tokio::test]
async fn a_healed_tile_is_kept_as_any_other_and_says_nothing_of_the_heal() {
    let world = kept("").await;
    let path = world.bed.page().image_path(TILE);
    world.bed.expires_everything();
    let healed = world.get(&path).await;
    assert!(healed.header("heal-status").starts_with("healed"), "{:?}", healed.headers);
    assert_eq!(did(&healed), "fwd=uri-miss; stored");
    let kept = world.get(&path).await;
    assert_eq!((kept.status, did(&kept), kept.header("heal-status")), (200, "hit", ""));
    assert_eq!((kept.header("server-timing"), &kept.body), ("", &healed.body));
}

#[tokio::test]
async fn an_expired_tile_is_healed_first_though_a_stale_one_is_there() {
    let world = kept("cache.max_age = 1s").await;
    let path = world.bed.page().image_path(TILE);
    world.get(&path).await;
    world.bed.expires_everything();
    let healed = no_hit(&world, &path).await;
    assert!(healed.header("heal-status").starts_with("healed"), "{:?}", healed.headers);
    assert_eq!((healed.status, did(&healed)), (200, "fwd=stale; stored"));
}

#[tokio::test]
async fn a_tile_that_cannot_be_healed_goes_out_stale() {
    let world = kept("cache.max_age = 1s\nheal.ladder = visit").await;
    let path = world.bed.page().image_path(TILE);
    let first = world.get(&path).await;
    world.bed.expires_everything();
    world.bed.service.goes_down().await;
    let stale = no_hit(&world, &path).await;
    assert_eq!((stale.status, did(&stale)), (200, "fwd=stale; detail=stale-if-error"), "{:?}", stale.headers);
    assert_eq!((&stale.body, stale.header("heal-status")), (&first.body, ""));
    assert_eq!(world.metric("iiif_mender_broken_images"), 0.0, "readers have their picture");
}

#[tokio::test]
async fn a_tile_whose_file_is_gone_goes_out_no_more() {
    let world = kept("cache.max_age = 1s").await;
    let page = world.bed.page();
    let path = page.image_path(TILE);
    world.get(&path).await;
    world.bed.fedora.removes_file(&page.path);
    let gone = no_hit(&world, &path).await;
    assert_eq!((gone.status, gone.header("heal-status")), (404, "missing"), "{:?}", gone.headers);
}

#[tokio::test]
async fn what_we_ask_for_ourselves_never_comes_from_the_cache() {
    let world = kept("heal.origins = 127.0.0.9").await;
    let page = world.bed.page();
    let path = page.image_path("info.json");
    world.get(&path).await;
    let asked = world.bed.counts().info;
    let java = [("user-agent", "Apache-HttpClient/4.5.13 (Java/11.0.24)")];
    let service = world.client.get(&world.url(&path), &java).await.expect("an answer");
    let echo = [("via", "1.1 iiif-mender")];
    let echo = world.client.get(&world.url(&path), &echo).await.expect("an answer");
    let origin = testbed::Client::at("127.0.0.9".parse().expect("an address"));
    let by_address = origin.get(&world.url(&path), &[]).await.expect("an answer");
    for answer in [&service, &echo, &by_address] {
        assert_ne!(did(answer), "hit");
    }
    assert_eq!(world.bed.counts().info, asked + 3);
}

#[tokio::test]
async fn a_sweep_finds_what_has_expired_behind_the_cache() {
    let world = World::over(
        Testbed::builder().book("obj/book", 4).page_size(128, 128).start().await,
        "cache.memory = 16MiB",
    )
    .await;
    let pages = world.bed.pages();
    for page in &pages {
        world.get(&page.image_path(TILE)).await;
    }
    world.bed.expires_everything();
    let sweep =
        crate::admin::does(&world, "sweep/start", &[crate::admin::JSON], &serde_json::Value::Null).await;
    assert_eq!(sweep.status, 202);
    world.bed.ledger.until(|counts| counts.healing() > 0).await;
    for page in &pages {
        let kept = world.get(&page.image_path(TILE)).await;
        assert_eq!((kept.status, did(&kept)), (200, "hit"), "readers see nothing of it");
    }
    world.settles().await;
    assert!(!world.bed.targets(Kind::Image).is_empty());
}

#[tokio::test]
async fn a_raw_answer_is_not_one_of_the_cache() {
    let world = kept("server.trusted_proxies = 127.0.0.1\nheal.skip_header = x-raw").await;
    let path = world.bed.page().image_path(TILE);
    world.get(&path).await;
    assert_eq!(did(&world.get(&path).await), "hit");
    let raw = world.client.get(&world.url(&path), &[("x-raw", "1")]).await.expect("an answer");
    assert_eq!((raw.status, did(&raw)), (200, ""));
}

/// Loses the file behind a page whose info.json the image server remembers.
fn loses(world: &World, page: &testbed::Page) {
    world.knows_file_of(page);
    world.bed.heats_info();
    world.bed.fedora.removes_file(&page.path);
    world.bed.expires_everything();
}

/// Whether an info.json says that a heal came to nothing.
fn is_not_healed(answer: &Fetched) -> bool {
    let is_told = ["missing", "failed", "cooling"].contains(&answer.header("heal-status"));
    (answer.status, answer.header("cache-control")) == (200, "no-store") && is_told
}

#[tokio::test]
async fn an_info_json_that_is_kept_says_that_the_heal_came_to_nothing() {
    let world = kept("heal.alive_for = 0s\nheal.ladder = visit").await;
    let page = world.bed.page();
    let path = page.image_path("info.json");
    world.get(&path).await;
    loses(&world, &page);
    let gone = world.get(&path).await;
    assert!(did(&gone) == "hit" && is_not_healed(&gone), "{} {:?}", gone.status, gone.headers);
}

#[tokio::test]
async fn an_info_json_whose_tiles_are_gone_is_never_kept() {
    let world = kept("heal.alive_for = 0s\nheal.ladder = visit").await;
    let page = world.bed.page();
    loses(&world, &page);
    let gone = world.get(&page.image_path("info.json")).await;
    assert!(did(&gone) == "fwd=uri-miss" && is_not_healed(&gone), "{} {:?}", gone.status, gone.headers);
    assert_eq!(world.metric("iiif_mender_cache_stored_total"), 0.0);
}

#[tokio::test]
async fn a_placeholder_takes_away_what_was_kept() {
    let world = kept("cache.max_age = 1s\nheal.missing_image = 200").await;
    let page = world.bed.page();
    let path = page.image_path(TILE);
    // A heal before shows that the service builds beside: only then a lost file is told at the first request.
    world.bed.expires_everything();
    assert_eq!(world.get(&path).await.status, 200);
    world.settles().await;
    loses(&world, &page);
    let gone = no_hit(&world, &path).await;
    assert_eq!((gone.status, gone.header("heal-status")), (200, "missing; placeholder"));
    world.bed.images.goes_down().await;
    let answer = world.get(&path).await;
    assert!(!did(&answer).contains("stale"), "{} {:?}", answer.status, answer.headers);
}

#[tokio::test]
async fn who_waited_for_another_reader_waits_for_a_heal_no_longer_than_that_one() {
    let world = kept("heal.ladder = visit\nheal.wait = 3s\ncache.collapse_wait = 2s").await;
    let path = world.bed.page().image_path(TILE);
    world.bed.expires_everything();
    world.bed.service.stalls_canvas();
    let leader = world.asks(&path);
    world.bed.ledger.until(|counts| counts.canvas == 1).await;
    let began = tokio::time::Instant::now();
    let follower = world.asks(&path);
    patiently("the follower waits", || world.metric("iiif_mender_cache_waiting") == 1.0).await;
    let follower = follower.await.expect("a task");
    let held = began.elapsed();
    assert_eq!((follower.status, follower.header("heal-status")), (503, "pending"));
    assert!(held > Duration::from_millis(1_900) && held < Duration::from_millis(4_500), "{held:?}");
    assert_eq!(leader.await.expect("a task").status, 503);
    world.bed.service.releases();
}
