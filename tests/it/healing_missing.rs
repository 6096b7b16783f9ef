//! Files that are gone, files that come back, owners that are dead: what may be remembered of them.

use std::time::{Duration, SystemTime};

use testbed::Testbed;

use crate::support::cluster_world::{Fleet, Server};
use crate::support::healing_world::{Before, all_back, book, lost, read, tile};
use crate::support::world::{World, asks_until, patiently};

#[tokio::test]
async fn a_good_canvas_whose_file_and_key_are_gone_stays_as_it_is_at_every_expiry() {
    for closed in [false, true] {
        let world = book(2, "heal.missing = 1ms\nheal.cooldown = 1ms").await;
        let page = world.bed.page();
        if closed {
            world.bed.service.closes_resources();
        }
        world.bed.caches_everything();
        // The image server remembers its info.json: the nested request is well.
        world.bed.heats_info();
        world.bed.fedora.removes_file(&page.path);
        let before = Before::of(&world);
        for round in 0..5 {
            world.bed.expires(&page.identifier);
            let answer = world.get(&page.image_path(&tile(round))).await;
            assert_eq!((answer.status, answer.header("cache-control")), (404, "no-store"));
            world.settles().await;
            before.unharmed(&world);
        }
        assert_eq!(world.bed.counts().rebuilds, 0, "closed: {closed}");
    }
}

#[tokio::test]
async fn a_lost_file_whose_url_is_known_is_missing_at_the_first_request() {
    let world = book(2, "").await;
    let page = world.bed.page();
    // A heal before shows that the service builds beside.
    let other = world.bed.pages().remove(1);
    world.bed.expires(&other.identifier);
    assert_eq!(world.get(&other.image_path(&tile(0))).await.status, 200);
    world.settles().await;
    world.knows_file_of(&page);
    world.bed.fedora.removes_file(&page.path);
    // The service still knows the file, and no base64 identifier was answered yet: only the canvas can tell.
    let answer = world.get(&page.image_path(&tile(0))).await;
    assert_eq!((answer.status, answer.header("heal-status")), (404, "missing"));
}

#[tokio::test]
async fn one_bad_second_of_the_image_server_is_not_ten_minutes_of_404() {
    let world = book(2, "").await;
    let page = world.bed.page();
    world.bed.fedora.removes_file(&page.path);
    assert_eq!(world.get(&page.image_path(&tile(0))).await.status, 404);
    world.bed.fedora.restores_file(&page.path);
    assert_eq!(world.get(&page.image_path(&tile(1))).await.status, 200);
    // It was seen alive since: what was said before is worth nothing.
    world.bed.expires_everything();
    assert_eq!(world.get(&page.image_path(&tile(2))).await.status, 200);
}

#[tokio::test]
async fn a_plain_200_on_one_node_ends_what_another_node_holds_for_missing() {
    let redis = Server::redis(&[]).await;
    let more = "heal.ahead = 0\ncluster.command_timeout = 10s\ncluster.lease = 10s";
    let bed = Testbed::builder().book("obj/book", 2).page_size(64, 64).start().await;
    let fleet = Fleet::start(bed, 2, &format!("cluster.url = {}", redis.url()), more).await;
    fleet.are_joined(true).await;
    let page = fleet.bed.page();
    let ask = async |node: usize, round: usize| {
        fleet.asks(node, &page.image_path(&tile(round))).await.expect("not aborted").status
    };
    fleet.bed.fedora.removes_file(&page.path);
    assert_eq!(ask(0, 0).await, 404);
    assert_eq!(ask(1, 1).await, 404);
    fleet.bed.fedora.restores_file(&page.path);
    assert_eq!(ask(1, 2).await, 200);
    fleet.bed.expires_everything();
    // By Redis and back; a reader who comes again within a moment sees it.
    asks_until("the other node shows it", async || ask(0, 3).await, |status| *status == 200).await;
}

#[tokio::test]
async fn a_file_that_comes_back_without_its_key_is_found_again_within_seconds() {
    for closed in [false, true] {
        let world = book(2, "").await;
        let pages = world.bed.pages();
        if closed {
            world.bed.service.closes_resources();
        }
        world.bed.fedora.removes_file(&pages[0].path);
        world.bed.expires_everything();
        let gone = world.get(&pages[0].image_path(&tile(0))).await;
        assert_eq!((gone.status, gone.header("heal-status")), (404, "missing"));
        world.bed.fedora.restores_file(&pages[0].path);
        all_back(&world, &pages, Duration::from_secs(10)).await;
    }
}

/// A book, and manifests that name canvases for its images that are no more; all older than the right one.
async fn with_stale_owners(stale: u64) -> World {
    let bed = Testbed::builder().book("obj/book", 3).page_size(64, 64).start().await;
    let right = bed.manifest_json("obj/book");
    let world = World::beside(bed, "heal.ahead = 0", |manifests| {
        for old in 1..=stale {
            // The same images on canvases of an object that the service does not know any more.
            let file = manifests.join(format!("a{old}.json"));
            std::fs::write(&file, right.replace("/obj/book", &format!("/obj/dead{old}"))).expect("a file");
            let age = Duration::from_hours(24 * (stale + 1 - old));
            let file = std::fs::File::options().write(true).open(&file).expect("a file");
            file.set_modified(SystemTime::now() - age).expect("a date");
        }
    })
    .await;
    let all = || world.app.index.stats().is_ok_and(|stats| stats.manifests == stale + 1);
    patiently("all owners are known", all).await;
    world
}

#[tokio::test]
async fn the_newest_of_four_owners_heals_although_three_older_ones_are_dead() {
    for stale in [1, 3, 6] {
        let world = with_stale_owners(stale).await;
        let pages = world.bed.pages();
        for round in 0..2 {
            world.bed.expires_everything();
            assert_eq!(lost(&read(&world, &pages, round).await), 0, "{stale} stale owners, round {round}");
            world.settles().await;
        }
        let canvases = world.bed.counts().canvas;
        assert!(
            canvases <= 6,
            "{canvases} canvas requests for 6 expired pages: the newest is not asked first"
        );
    }
}

#[tokio::test]
async fn files_that_are_gone_are_no_mass_expiry() {
    for (closed, expired) in [(false, false), (true, false), (false, true)] {
        let world = book(30, "heal.mass_expiry.ids = 20").await;
        let pages = world.bed.pages();
        if closed {
            world.bed.service.closes_resources();
        }
        for page in &pages[..25] {
            world.bed.fedora.removes_file(&page.path);
            if expired {
                world.bed.expires(&page.identifier);
            }
        }
        for round in 0..2 {
            assert_eq!(lost(&read(&world, &pages[..25], round).await), 25);
        }
        world.settles().await;
        assert_eq!(world.events("mass_expiry"), 0.0, "closed: {closed}, expired: {expired}");
    }
}
