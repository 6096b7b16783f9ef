//! What looking after images costs while all is well, and in a flush.

use futures_util::future::join_all;
use testbed::Origin;

use crate::support::edge::{Edge, route};
use crate::support::healing_world::{Before, book, keys_are_back, lost, pages, read, tile};
use crate::support::world::{World, settings};

#[tokio::test]
async fn opening_a_healthy_manifest_again_and_again_costs_no_tile_and_one_look_an_image() {
    for closed in [true, false] {
        let world = World::over(pages(20).start().await, "").await;
        let pages = world.bed.pages();
        world.bed.heats_info();
        if closed {
            world.bed.service.closes_resources();
        }
        for _ in 0..5 {
            assert_eq!(world.get(&pages[0].presentation_path).await.status, 200);
            for page in &pages[..3] {
                assert_eq!(world.get(&page.info_path()).await.status, 200);
            }
            world.settles().await;
        }
        let counts = world.bed.counts();
        assert_eq!((counts.image, counts.canvas), (0, 0), "closed: {closed}");
        // 15 info.json are the readers' own; each of 20 nested ones built the manifest.
        let looks = counts.resources + counts.info - 15 - counts.nested;
        assert!(looks <= 20 + 1, "{looks} looks for 20 pages, closed: {closed}");
    }
}

#[tokio::test]
async fn two_hundred_readers_of_one_info_json_are_one_question() {
    let world = book(2, "").await;
    let page = world.bed.page();
    world.bed.heats_info();
    let readers = (0..200).map(|_| async { world.get(&page.info_path()).await.status });
    assert_eq!(lost(&join_all(readers).await), 0);
    let resources = world.bed.counts().resources;
    assert!(resources <= 1, "{resources} questions for one image");
}

#[tokio::test]
async fn a_reload_that_changes_one_number_forgets_nothing_that_is_known() {
    let mut world = book(5, "").await;
    let pages = world.bed.pages();
    world.bed.heats_info();
    for page in &pages {
        assert_eq!(world.get(&page.info_path()).await.status, 200);
    }
    let before = world.bed.counts().resources;
    let (images, service) = (world.bed.images.origin(), world.bed.service.origin());
    for number in [500, 400] {
        let more = format!("heal.ahead = 0\nheal.per_client = {number}");
        world.app.apply(settings(world.folder.path(), &images, &service, &more)).expect("in order");
        for page in &pages {
            assert_eq!(world.get(&page.info_path()).await.status, 200);
        }
    }
    assert_eq!(world.bed.counts().resources, before);
}

#[tokio::test]
async fn a_flush_read_with_pages_ahead_costs_one_canvas_request_a_page_and_few_looks() {
    for (closed, json_kept) in [(false, false), (true, false), (false, true), (true, true)] {
        let bed = pages(60).start().await;
        let world = World::over(bed, "heal.mass_expiry.ids = 1000").await;
        let pages = world.bed.pages();
        if closed {
            world.bed.service.closes_resources();
        }
        if json_kept {
            world.bed.caches_everything();
        }
        world.bed.redis.evict_keys();
        let before = Before::of(&world);
        world.bed.ledger.clear();
        for page in &pages {
            assert_eq!(world.get(&page.image_path(&tile(0))).await.status, 200);
        }
        world.settles().await;
        let counts = world.bed.counts();
        let asked = counts.canvas + counts.book_variants + counts.register;
        let what = format!("closed: {closed}, JSON kept: {json_kept}: {counts:?}");
        assert!(asked <= 60, "{asked} requests for 60 pages; {what}");
        let looks = counts.image + counts.info + counts.resources - counts.nested;
        assert!(looks * 2 <= 60 * 7, "{looks} looks for 60 pages; {what}");
        before.unharmed(&world);
    }
}

#[tokio::test]
async fn a_crowd_in_a_flush_costs_one_canvas_request_a_page() {
    for (closed, json_kept) in [(false, true), (true, true), (true, false)] {
        let world = book(100, "").await;
        let pages = world.bed.pages();
        if closed {
            world.bed.service.closes_resources();
        }
        if json_kept {
            world.bed.caches_everything();
        }
        world.bed.redis.evict_keys();
        let before = Before::of(&world);
        assert_eq!(lost(&read(&world, &pages, 0).await), 0);
        world.settles().await;
        let counts = world.bed.counts();
        assert!(counts.canvas <= 100, "closed: {closed}, JSON kept: {json_kept}: {counts:?}");
        before.unharmed(&world);
    }
}

#[tokio::test]
async fn twenty_readers_of_one_page_register_it_once_and_the_pages_ahead_once_each() {
    let world = World::over(pages(3).start().await, "heal.cooldown = 1ms").await;
    let pages = world.bed.pages();
    for page in &pages {
        world.knows_file_of(page);
    }
    world.bed.expires_everything();
    let readers = (0..20).map(|round| world.asks(&pages[0].image_path(&tile(round))));
    for reader in readers.collect::<Vec<_>>() {
        assert_eq!(reader.await.expect("not aborted").status, 200);
    }
    all_are_back(&world, &pages).await;
    let asked = world.bed.targets(testbed::Kind::Register);
    for page in &pages {
        let own = asked.iter().filter(|target| target.starts_with(&page.register_path)).count();
        assert!(own <= 1, "registered {own} times: {asked:?}");
    }
    assert_eq!(world.bed.counts().canvas, 0);
}

/// Waits until every page has its key again, and nothing is under way.
async fn all_are_back(world: &World, pages: &[testbed::Page]) {
    keys_are_back(&world.bed, pages).await;
    world.settles().await;
}

#[tokio::test]
async fn a_sweep_over_twenty_books_costs_no_more_than_thirty_requests_and_changes_nothing_that_is_stored() {
    let bed = testbed::Testbed::builder().page_size(64, 64);
    let bed = (0..20).fold(bed, |bed, book| bed.book(&format!("obj/b{book}"), 30)).start().await;
    let more = "heal.ahead = 0\nheal.mass_expiry.ids = 5\nheal.sweep = true\nheal.sweep_rate = 1000";
    let world = World::over(bed, more).await;
    let pages = world.bed.pages();
    world.bed.caches_everything();
    world.bed.redis.evict_keys();
    let before = Before::of(&world);
    world.bed.ledger.clear();
    for page in &pages[..5] {
        assert_eq!(world.get(&page.image_path(&tile(0))).await.status, 200);
    }
    all_are_back(&world, &pages).await;
    let counts = world.bed.counts();
    let asked = counts.canvas + counts.book_variants + counts.register;
    assert!(asked <= 30, "{asked} requests for 20 books of 30 pages: {counts:?}");
    before.unharmed(&world);
}

#[tokio::test]
async fn pages_ahead_in_a_short_book_come_by_the_book_and_in_a_long_one_page_by_page() {
    for (count, books) in [(16, 1), (60, 0)] {
        let world = World::over(pages(count).start().await, "heal.mass_expiry.ids = 1000").await;
        let pages = world.bed.pages();
        // It is known by then that the service builds beside, and how fast.
        for page in [&pages[0], &pages[0]] {
            world.bed.expires(&page.identifier);
            assert_eq!(world.get(&page.image_path(&tile(0))).await.status, 200);
            world.settles().await;
        }
        world.bed.caches_everything();
        world.bed.redis.evict_keys();
        let before = Before::of(&world);
        world.bed.ledger.clear();
        assert_eq!(world.get(&pages[0].image_path(&tile(1))).await.status, 200);
        keys_are_back(&world.bed, &pages[1..9]).await;
        world.settles().await;
        let counts = world.bed.counts();
        assert_eq!(counts.book_variants, books, "{count} pages: {counts:?}");
        // By the file where it was learned meanwhile.
        let pages = counts.canvas + counts.register;
        assert_eq!(pages, if books == 1 { 1 } else { 9 }, "{count} pages: {counts:?}");
        before.unharmed(&world);
    }
}

#[tokio::test]
async fn with_two_image_routes_the_pages_ahead_are_looked_at_by_their_own() {
    let bed = pages(20).start().await;
    bed.service.closes_resources();
    let stray = Origin::fixed(404, "not here");
    let routes = [
        route("/thumbs/", &format!("{}/iiif/2/", stray.url()), "image", ""),
        route("/iiif/2/", &format!("{}/iiif/2/", bed.images.origin()), "image", ""),
        route("/iiif-service/", &format!("{}/iiif-service/", bed.service.origin()), "presentation", ""),
    ];
    let more = "server.public_hosts = api.library.tamu.edu";
    let edge = Edge::knowing(&[bed.manifest_json("obj/book")], &routes.concat(), more).await;
    bed.service.image_server_url(format!("http://{}/iiif/2", edge.app.addresses[0]));
    let all = bed.pages();
    for _ in 0..2 {
        assert_eq!(edge.get(&all[0].presentation_path).await.status, 200);
        assert_eq!(edge.get(&all[0].image_path(&tile(0))).await.status, 200);
        crate::support::world::patiently("nothing is in flight", || {
            ["flights", "canvas_in_flight", "upstream_in_flight"]
                .iter()
                .all(|gauge| edge.metric(&format!("iiif_mender_{gauge}")) == 0.0)
        })
        .await;
    }
    let counts = bed.counts();
    assert_eq!((counts.canvas, counts.register, counts.book_variants), (0, 0, 0), "{counts:?}");
    assert_eq!(stray.seen().len(), 0, "another route's server was asked");
    // And where they are expired they are healed by it.
    bed.expires_everything();
    assert_eq!(edge.get(&all[1].image_path(&tile(1))).await.status, 200);
    keys_are_back(&bed, &all[2..6]).await;
    assert_eq!(stray.seen().len(), 0, "another route's server was asked");
}
