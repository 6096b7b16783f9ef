//! What a heal costs, as ratios to a client that makes the same requests itself: `cargo bench --bench heal`
//! (or one of them: `cargo bench --bench heal -- book`).

#![allow(clippy::print_stdout, reason = "figures are printed")]
#![allow(
    clippy::float_cmp,
    clippy::cast_precision_loss,
    reason = "what a scrape counts are small whole numbers"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench that does not do what it measures must stop"
)]

#[path = "../tests/it/cluster_trouble.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests, which use all of it")]
mod cluster_trouble;
#[path = "../tests/it/support"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod support {
    pub(crate) mod cluster_world;
    pub(crate) mod edge;
    pub(crate) mod healing_world;
    pub(crate) mod program;
    pub(crate) mod world;
}

use std::time::{Duration, Instant};

use testbed::{Client, Kind, Testbed};

use cluster_trouble::{Mood, Moody};
use support::world::World;
use support::{cluster_world, healing_world};

const TILE: &str = "0,0,64,64/64,/0/default.jpg";
const ROUNDS: u32 = 60;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn timed(client: &Client, url: &str) -> (u16, Duration) {
    let began = Instant::now();
    let answer = client.get(url, &[]).await.expect("an answer");
    (answer.status, began.elapsed())
}

#[tokio::main]
async fn main() {
    let all = ["cost", "book", "flush", "cluster", "books", "exchanges", "faults", "healthy"];
    let only = std::env::args().find(|arg| all.contains(&&**arg));
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if wanted("cost") {
        what_a_heal_costs().await;
    }
    if wanted("book") {
        a_book_is_read().await;
    }
    if wanted("cluster") {
        what_redis_costs().await;
    }
    if wanted("flush") {
        for (json_kept, closed) in [(false, false), (false, true), (true, false), (true, true)] {
            a_flush_of_two_thousand(json_kept, closed).await;
        }
    }
    if wanted("books") {
        a_sweep_over_books().await;
    }
    if wanted("exchanges") {
        what_one_heal_asks_for().await;
    }
    if wanted("faults") {
        how_soon_all_is_back().await;
    }
    if wanted("healthy") {
        what_healthy_pages_cost().await;
    }
}

/// One node alone and one that is joined with others by a Redis on loopback; then Redis vanishes at each heal.
async fn what_redis_costs() {
    let redis = cluster_world::Server::redis(&[]).await;
    let moody = Moody::before(&redis).await;
    let plain = "heal.ahead = 0\nheal.cooldown = 1ms";
    let world = async |more: &str| {
        let bed = Testbed::builder().book("obj/book", 1).page_size(64, 64).start().await;
        World::over(bed, &format!("{plain}\n{more}")).await
    };
    let alone = world("").await;
    let joined = world(&format!("cluster.url = {}", redis.url())).await;
    let losing = world(&format!("cluster.url = {}", moody.url())).await;
    let is_joined = async |world: &World| {
        while world.metric("iiif_mender_cluster_connected") != 1.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let heals = async |world: &World| {
        world.bed.expires_everything();
        let page = world.bed.page();
        let (status, took) = timed(&world.client, &world.url(&page.image_path(TILE))).await;
        assert_eq!(status, 200);
        world.settles().await;
        took
    };
    let (mut by_one, mut by_many, mut without) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        by_one.push(heals(&alone).await);
        is_joined(&joined).await;
        by_many.push(heals(&joined).await);
    }
    for _ in 0..8 {
        is_joined(&losing).await;
        moody.is(Mood::Partitioned);
        without.push(heals(&losing).await);
        moody.is(Mood::Well);
    }
    let worst = without.iter().max().copied().unwrap_or_default();
    let (by_one, by_many, without) = (median(by_one), median(by_many), median(without));
    println!(
        "a heal by one node {by_one:?}, joined by Redis {by_many:?}: added {:?}",
        by_many.saturating_sub(by_one)
    );
    println!(
        "Redis vanishes just before: {without:?}, added {:?}; the worst of 8 added {:?}",
        without.saturating_sub(by_one),
        worst.saturating_sub(by_one)
    );
}

/// A reader looks at each page for a second; each canvas takes two, and two are built at once: just as fast as the
/// reader. Without healing ahead every turn would wait.
async fn a_book_is_read() {
    const PAGES: u32 = 50;
    let bed = Testbed::builder().book("obj/book", PAGES).page_size(64, 64).start().await;
    let world = World::over(bed, "heal.ladder = visit").await;
    world.bed.service.canvas_delay(Duration::from_secs(2));
    world.bed.expires_everything();
    let (mut waited, mut tiles_held) = (0, 0);
    for page in world.bed.pages() {
        let (info, took) = timed(&world.client, &world.url(&page.info_path())).await;
        waited += u32::from(took > Duration::from_millis(100));
        let (tile, took) = timed(&world.client, &world.url(&page.image_path(TILE))).await;
        tiles_held += u32::from(took > Duration::from_millis(100));
        assert_eq!((info, tile), (200, 200));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let canvases = world.bed.counts().canvas;
    println!(
        "{PAGES} expired pages at a page a second, canvas of 2 s: {waited} turns waited, {tiles_held} tiles, {canvases} \
         canvas requests"
    );
}

/// Redis is flushed under 32 viewers, who each read a part of the book, page by page.
async fn a_flush_of_two_thousand(json_kept: bool, closed: bool) {
    const READERS: usize = 32;
    let bed = Testbed::builder().book("obj/book", 2000).page_size(64, 64).start().await;
    let world = World::over(bed, "").await;
    world.bed.service.canvas_delay(Duration::from_millis(5));
    if closed {
        world.bed.service.closes_resources();
    }
    world.bed.expires_all(json_kept);
    world.bed.ledger.clear();
    let pages = world.bed.pages();
    let (began, part) = (Instant::now(), pages.len().div_ceil(READERS));
    let at = &world;
    let readers = pages.chunks(part).map(|own| async move {
        let mut times = Vec::new();
        for page in own {
            let (status, took) = timed(&at.client, &at.url(&page.image_path(TILE))).await;
            assert_eq!(status, 200);
            times.push(took);
        }
        times
    });
    let times = futures_util::future::join_all(readers).await.concat();
    let took = began.elapsed();
    world.settles().await;
    let counts = world.bed.counts();
    let asked = counts.canvas + counts.book_variants + counts.register;
    // The service's own are none of ours; nor is a reader's own first request.
    let looks = counts.image + counts.info + counts.resources - counts.nested;
    println!(
        "flush of {}, {READERS} readers, JSON {}, /resources {}: {asked} canvas requests ({:.2} a page; {} of books), \
         at most {} at once; {:.2} image and /resources requests a page; {took:?} in all, median wait {:?}",
        pages.len(),
        if json_kept { "kept" } else { "gone" },
        if closed { "closed" } else { "open" },
        asked as f64 / pages.len() as f64,
        counts.book_variants,
        counts.generations_most,
        looks as f64 / pages.len() as f64,
        median(times)
    );
    what_was_looked_at(&world.bed, pages.len());
}

/// Why the image server and `/resources` were asked, a page.
fn what_was_looked_at(bed: &Testbed, pages: usize) {
    let (mut own, mut again) = (0, 0);
    let mut seen = std::collections::HashSet::new();
    let mut probes = std::collections::BTreeMap::<&str, usize>::new();
    for target in bed.targets(Kind::Image).into_iter().chain(bed.targets(Kind::Info)) {
        if target.ends_with(TILE) {
            let counter = if seen.insert(target) { &mut own } else { &mut again };
            *counter += 1;
            continue;
        }
        let of = ["cache=nocache", "full/99999,", "full/16,", "info.json"];
        let probe = of.into_iter().find(|probe| target.contains(probe)).unwrap_or("other");
        *probes.entry(probe).or_default() += 1;
    }
    let mut questions = std::collections::HashMap::<String, usize>::new();
    for target in bed.targets(Kind::Resources) {
        *questions.entry(target).or_default() += 1;
    }
    let asked = |times: usize| questions.values().filter(|count| **count == times).count();
    let a_page = |count: usize| count as f64 / pages as f64;
    println!(
        "  a page: a reader's own request {:.2}, once more after a heal {:.2}; probes {:?}; /resources {:.2} (pages asked \
         about 0 to 5 times: {:?})",
        a_page(own),
        a_page(again),
        probes.iter().map(|(probe, count)| (*probe, a_page(*count))).collect::<Vec<_>>(),
        a_page(questions.values().sum()),
        [pages - questions.len(), asked(1), asked(2), asked(3), asked(4), asked(5)]
    );
}

/// Twenty books of a hundred pages are gone, a few are read: the sweep brings back the rest.
async fn a_sweep_over_books() {
    let bed = Testbed::builder().page_size(64, 64);
    let bed = (0..20).fold(bed, |bed, book| bed.book(&format!("obj/b{book}"), 100)).start().await;
    let more = "heal.ahead = 0\nheal.mass_expiry.ids = 5\nheal.sweep = true\nheal.sweep_rate = 1000";
    let world = World::over(bed, more).await;
    let pages = world.bed.pages();
    world.bed.caches_everything();
    world.bed.redis.evict_keys();
    let before = world.bed.redis.stored();
    world.bed.ledger.clear();
    let began = Instant::now();
    for page in &pages[..5] {
        assert_eq!(timed(&world.client, &world.url(&page.image_path(TILE))).await.0, 200);
    }
    while !pages.iter().all(|page| world.bed.redis.has_key(&page.identifier)) {
        assert!(began.elapsed() < Duration::from_mins(5), "the sweep does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = began.elapsed();
    world.settles().await;
    let counts = world.bed.counts();
    println!(
        "sweep over 20 books of 100: {} requests to the canvas service ({} books, {} canvases), {took:?}; stored documents \
         that became worse: {}",
        counts.book_variants + counts.canvas + counts.register,
        counts.book_variants,
        counts.canvas,
        world.bed.redis.stored().worse_than(&before).len()
    );
}

/// All that goes upstream for one reader of one expired image.
async fn what_one_heal_asks_for() {
    for (json_kept, closed) in [(false, false), (true, false), (false, true), (true, true)] {
        let bed = Testbed::builder().book("obj/book", 20).page_size(64, 64).start().await;
        let world = World::over(bed, "heal.ahead = 0\nheal.mass_expiry.ids = 1000").await;
        if closed {
            world.bed.service.closes_resources();
        }
        let mut worst = 0;
        for (turn, page) in world.bed.pages().iter().enumerate() {
            world.bed.expires_all(json_kept);
            world.bed.ledger.clear();
            assert_eq!(timed(&world.client, &world.url(&page.image_path(TILE))).await.0, 200);
            world.settles().await;
            let counts = world.bed.counts();
            let all = counts.image + counts.info + counts.resources - counts.nested + counts.healing();
            // The first ones find out what the services can do.
            worst = if turn < 3 { 0 } else { worst.max(all) };
        }
        println!(
            "a heal, JSON {}, /resources {}: {worst} exchanges upstream at most",
            if json_kept { "kept" } else { "gone" },
            if closed { "closed" } else { "open" }
        );
    }
}

/// Faults of 3 s while twenty expired pages are read: how soon after its end the last one is back.
async fn how_soon_all_is_back() {
    type Switch = fn(&Testbed);
    let faults: [(&str, Switch, Switch); 7] = [
        ("info.json 403", |bed| bed.images.info_faults(403), |bed| bed.images.info_is_well()),
        ("info.json 404", |bed| bed.images.info_faults(404), |bed| bed.images.info_is_well()),
        ("info.json 503", |bed| bed.images.info_faults(503), |bed| bed.images.info_is_well()),
        (
            "a fault that only the service sees",
            |bed| bed.service.poisons_nested(503),
            |bed| bed.service.nested_is_well(),
        ),
        ("repository 500", |bed| bed.service.fails_canvas(500), |bed| bed.service.canvas_is_well()),
        ("file store 5xx", |bed| bed.fedora.files_fail(), |bed| bed.fedora.files_are_well()),
        ("Redis down", |bed| bed.redis.goes_down(), |bed| bed.redis.comes_up()),
    ];
    for (name, begins, ends) in faults {
        for json_kept in [true, false] {
            let world = healing_world::book(20, "").await;
            let pages = world.bed.pages();
            world.bed.expires_all(json_kept);
            let before = world.bed.redis.stored();
            begins(&world.bed);
            healing_world::read_for(&world, &pages, Duration::from_secs(3)).await;
            ends(&world.bed);
            let took = healing_world::all_back(&world, &pages, Duration::from_secs(30)).await;
            world.settles().await;
            println!(
                "{name}, JSON {}: the last image is back {took:?} after its end; {} stored documents are worse",
                if json_kept { "kept" } else { "gone" },
                world.bed.redis.stored().worse_than(&before).len()
            );
        }
    }
}

/// One minute of readers who open the same healthy pages again and again.
async fn what_healthy_pages_cost() {
    for closed in [false, true] {
        let bed = Testbed::builder().book("obj/book", 20).page_size(64, 64).start().await;
        let world = World::over(bed, "").await;
        let pages = world.bed.pages();
        world.bed.heats_info();
        if closed {
            world.bed.service.closes_resources();
        }
        world.bed.ledger.clear();
        let (began, mut own) = (Instant::now(), (0, 0));
        while began.elapsed() < Duration::from_secs(55) {
            for page in &pages {
                assert_eq!(timed(&world.client, &world.url(&page.info_path())).await.0, 200);
                assert_eq!(timed(&world.client, &world.url(&page.image_path(TILE))).await.0, 200);
                own = (own.0 + 1, own.1 + 1);
            }
            assert_eq!(timed(&world.client, &world.url(&pages[0].presentation_path)).await.0, 200);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let counts = world.bed.counts();
        let extra = counts.info + counts.resources - counts.nested - own.0;
        println!(
            "20 healthy pages opened for a minute, /resources {}: {:.2} more requests an image, {} tiles more, {} canvases",
            if closed { "closed" } else { "open" },
            extra as f64 / pages.len() as f64,
            counts.image - own.1,
            counts.canvas
        );
    }
}

async fn what_a_heal_costs() {
    let bed = Testbed::builder().book("obj/book", 1).page_size(64, 64).start().await;
    let world = World::over(bed, "heal.ahead = 0\nheal.cooldown = 1ms").await;
    let page = world.bed.page();
    let own = format!("{}{}", world.bed.images.origin(), page.image_path(TILE));
    let canvas = format!("{}{}", world.bed.service.origin(), page.canvas_path);
    let ours = world.url(&page.image_path(TILE));
    let (mut healthy, mut by_hand, mut by_us) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        world.bed.registers_everything();
        healthy.push(timed(&world.client, &ours).await.1);
        world.bed.expires_everything();
        let began = Instant::now();
        assert_eq!(timed(&world.client, &own).await.0, 404);
        assert_eq!(timed(&world.client, &canvas).await.0, 200);
        assert_eq!(timed(&world.client, &own).await.0, 200);
        by_hand.push(began.elapsed());
        world.bed.expires_everything();
        let (status, took) = timed(&world.client, &ours).await;
        assert_eq!(status, 200);
        by_us.push(took);
        world.settles().await;
    }
    let (healthy, by_hand, by_us) = (median(healthy), median(by_hand), median(by_us));
    println!(
        "healthy tile through us {healthy:?}; visit by hand {by_hand:?}, by us {by_us:?}: added {:?}",
        by_us.saturating_sub(by_hand)
    );

    let bed = Testbed::builder().book("obj/book", 1).page_size(64, 64).start().await;
    let world = World::over(bed, "heal.ahead = 0").await;
    let page = world.bed.page();
    world.knows_file_of(&page);
    world.bed.service.canvas_delay(Duration::from_secs(2));
    let ours = world.url(&page.image_path(TILE));
    let (mut healthy, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        world.bed.registers_everything();
        healthy.push(timed(&world.client, &ours).await.1);
        world.bed.expires_everything();
        direct.push(timed(&world.client, &ours).await.1);
        world.settles().await;
    }
    let (healthy, direct) = (median(healthy), median(direct));
    println!(
        "healthy {healthy:?}; direct {direct:?} with a canvas of 2 s: ratio {:.2}",
        direct.as_secs_f64() / healthy.as_secs_f64()
    );

    let bed = Testbed::builder().book("obj/book", 1).page_size(64, 64).start().await;
    let world = World::over(bed, "heal.ahead = 0\nheal.ladder = visit").await;
    world.bed.expires_everything();
    world.bed.service.canvas_delay(Duration::from_millis(200));
    world.bed.service.delay_after_key(Duration::from_millis(1800));
    let (status, took) = timed(&world.client, &world.url(&world.bed.page().image_path(TILE))).await;
    println!(
        "canvas of 2 s with its key after 0.2 s: {status} after {took:?}, ratio {:.2}",
        took.as_secs_f64() / 2.0
    );
}
