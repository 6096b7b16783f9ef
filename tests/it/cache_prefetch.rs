//! The next pages, which are fetched into the cache ahead of their reader.

use testbed::{Kind, Testbed};

use crate::support::cache_world::did;
use crate::support::world::{TILE, World, patiently};

/// A book of six pages, of which two are fetched ahead.
async fn ahead(more: &str) -> World {
    let bed = Testbed::builder().book("obj/book", 6).page_size(128, 128).start().await;
    let more = format!("cache.memory = 16MiB\nheal.ahead = 0\n{more}");
    World::over(bed, &more).await
}

/// Waits until so many requests were sent ahead, and answers were kept.
async fn fetched(world: &World, requests: f64, kept: f64) {
    patiently("the next pages are fetched", || {
        world.metric("iiif_mender_cache_prefetched_total") >= requests
            && world.metric("iiif_mender_cache_stored_total") >= kept
    })
    .await;
}

#[tokio::test]
async fn the_next_pages_are_there_when_their_reader_comes() {
    let world = ahead("cache.prefetch = 2").await;
    let pages = world.bed.pages();
    for target in ["info.json", TILE] {
        world.get(&pages[0].image_path(target)).await;
    }
    fetched(&world, 4.0, 6.0).await;
    for page in &pages[1..3] {
        for target in ["info.json", TILE] {
            let answer = world.get(&page.image_path(target)).await;
            assert_eq!((answer.status, did(&answer)), (200, "hit"), "{target}");
        }
    }
    // What was fetched ahead counts for no reader.
    assert_eq!(world.metric("iiif_mender_cache_requests_total{target=\"image\",result=\"miss\"}"), 1.0);
}

#[tokio::test]
async fn the_last_page_has_none_behind_it_and_a_page_is_fetched_once() {
    let world = ahead("cache.prefetch = 2").await;
    let pages = world.bed.pages();
    for page in &pages[3..] {
        world.get(&page.image_path(TILE)).await;
        world.settles().await;
    }
    // Pages 4 to 6: the first fetched the others.
    assert_eq!(world.bed.targets(Kind::Image).len(), 3);
}

#[tokio::test]
async fn only_the_first_requests_of_a_page_are_repeated() {
    let world = ahead("cache.prefetch = 2").await;
    let page = world.bed.page();
    for width in 10..40 {
        world.get(&page.image_path(&format!("full/{width},/0/default.jpg"))).await;
    }
    world.settles().await;
    assert_eq!(world.metric("iiif_mender_cache_prefetched_total"), 10.0);
}

#[tokio::test]
async fn who_has_a_cookie_or_wants_a_part_has_nothing_fetched_ahead() {
    let world = ahead("cache.prefetch = 2").await;
    let url = world.url(&world.bed.page().image_path(TILE));
    for field in [
        ("cookie", "a=b"),
        ("authorization", "Basic eDp5"),
        ("range", "bytes=0-9"),
        ("cache-control", "no-store"),
    ] {
        world.client.get(&url, &[field]).await.expect("an answer");
    }
    world.settles().await;
    assert_eq!(world.metric("iiif_mender_cache_prefetched_total"), 0.0);
}

#[tokio::test]
async fn pages_that_expired_are_not_healed_by_it() {
    let world = ahead("cache.prefetch = 2").await;
    let pages = world.bed.pages();
    world.bed.expires(&pages[1].identifier);
    world.get(&pages[0].image_path(TILE)).await;
    fetched(&world, 2.0, 2.0).await;
    world.settles().await;
    assert_eq!(world.bed.counts().healing(), 0);
    let healed = world.get(&pages[1].image_path(TILE)).await;
    assert!(healed.header("heal-status").starts_with("healed"), "{:?}", healed.headers);
}

#[tokio::test]
async fn without_a_key_nothing_is_fetched_ahead() {
    let world = ahead("cache.prefetch = 0").await;
    world.get(&world.bed.page().image_path(TILE)).await;
    world.settles().await;
    assert_eq!(world.bed.targets(Kind::Image).len(), 1);
}
