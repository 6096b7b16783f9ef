//! A service whose answer for a whole book is what somebody else says: the pages are healed one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Response;
use testbed::{Flow, Origin, Seen};

use crate::healing_liars::{JSON, canvas_of, nonsense};
use crate::support::healing_world::{Before, book, keys_are_back, lost, pages, read, tile};
use crate::support::world::World;

/// A sweep over a book whose whole answer is what somebody else says.
async fn swept(answers: impl Fn(&Seen) -> Option<Response<Flow>> + Send + Sync + 'static, more: &str) {
    let bed = pages(40).start().await;
    let config = format!(
        "heal.ahead = 0\nheal.mass_expiry.ids = 3\nheal.sweep = true\nheal.sweep_rate = 1000\n{more}"
    );
    let world = World::over(bed, &config).await;
    let pages = world.bed.pages();
    world.bed.caches_everything();
    // That the service builds beside is known, and how long a canvas takes.
    world.bed.redis.evict_keys();
    assert_eq!(lost(&read(&world, &pages[..2], 0).await), 0);
    world.settles().await;
    world.bed.redis.evict_keys();
    let before = Before::of(&world);
    world.bed.service.answers(answers);
    for page in &pages[..4] {
        assert_eq!(world.get(&page.image_path(&tile(1))).await.status, 200);
    }
    keys_are_back(&world.bed, &pages).await;
    world.settles().await;
    before.unharmed(&world);
    let books = world.bed.counts().book_variants;
    assert!(books <= 3, "{books} requests for the whole book");
}

fn is_book_beside(seen: &Seen) -> bool {
    seen.path().contains("/presentation/") && seen.query().is_some_and(|query| query.contains("disallow"))
}

#[tokio::test]
async fn a_book_that_comes_out_of_a_cache_is_healed_page_by_page() {
    let world = book(40, "").await;
    let path = world.bed.pages()[0].presentation_path.clone();
    let beside = "disallow=x-iiif-mender/none";
    let whole =
        testbed::get(&format!("{}{path}?update=true&{beside}", world.bed.service.origin())).await.text();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    swept(
        move |seen| {
            is_book_beside(seen).then(|| {
                counted.fetch_add(1, Ordering::SeqCst);
                Origin::answer(200, &[JSON], Flow::sized(whole.clone()))
            })
        },
        "",
    )
    .await;
    let asked = asked.load(Ordering::SeqCst);
    assert!((1..=3).contains(&asked), "the whole book was asked for {asked} times");
}

#[tokio::test]
async fn a_book_that_is_no_book_is_healed_page_by_page() {
    for kind in ["a page", "half a body", "an empty body", "JSON of something else"] {
        swept(move |seen| is_book_beside(seen).then(|| nonsense(kind)), "").await;
    }
}

#[tokio::test]
async fn a_book_of_ten_thousand_canvases_of_somebody_else_is_healed_page_by_page() {
    let canvas = canvas_of("obj/other/page", true);
    let canvases = vec![canvas; 10_000].join(",");
    let book = format!(
        r#"{{"@id":"https://api.library.tamu.edu/iiif-service/fedora/presentation/obj/x?disallow=x-iiif-mender/none","@type":"sc:Manifest","label":["x"],"sequences":[{{"@type":"sc:Sequence","canvases":[{canvases}]}}]}}"#
    );
    let book = Arc::new(book);
    swept(
        move |seen| {
            let book = book.as_str().to_owned();
            is_book_beside(seen).then(|| Origin::answer(200, &[JSON], Flow::chunked(book)))
        },
        "",
    )
    .await;
}

#[tokio::test]
async fn a_book_that_takes_a_minute_keeps_no_reader_from_his_page() {
    let stuck = |seen: &Seen| {
        is_book_beside(seen)
            .then(|| Origin::answer(200, &[JSON], Flow::chunked("{").dripping(Duration::from_mins(1))))
    };
    swept(stuck, "heal.timeout = 5s\nheal.wait = 5s\nheal.wait_info = 5s").await;
}
