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
#[path = "../tests/it/cluster_world.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod cluster_world;
#[path = "../tests/it/world.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod world;

use std::time::{Duration, Instant};

use testbed::{Client, Testbed};

use cluster_trouble::{Mood, Moody};
use world::World;

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
    let only = std::env::args().find(|arg| matches!(&**arg, "cost" | "book" | "flush" | "cluster"));
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
        a_flush_of_two_thousand().await;
    }
}

/// One node alone and one that is joined with others by a Redis on loopback; then Redis vanishes at each heal.
async fn what_redis_costs() {
    let redis = cluster_world::Server::redis(&[]).await;
    let moody = Moody::before(&redis).await;
    let plain = "heal.ahead = 0\nheal.ladder = visit,rebuild\nheal.cooldown = 1ms";
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

/// Redis is flushed under 32 viewers who ask at random.
async fn a_flush_of_two_thousand() {
    let bed = Testbed::builder().book("obj/book", 2000).page_size(64, 64).start().await;
    let world = World::over(bed, "heal.ladder = visit\nheal.ahead = 0").await;
    world.bed.service.canvas_delay(Duration::from_millis(5));
    world.bed.expires_everything();
    let pages = world.bed.pages();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let viewers = (0..32).map(|_| async {
        let mut times = Vec::new();
        loop {
            let turn = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            // Every page once, in an order that has nothing to do with theirs.
            let Some(page) = (turn < pages.len()).then(|| &pages[turn * 1_237 % pages.len()]) else { break };
            let (status, took) = timed(&world.client, &world.url(&page.image_path(TILE))).await;
            assert_eq!(status, 200);
            times.push(took);
        }
        times
    });
    let began = Instant::now();
    let times = futures_util::future::join_all(viewers).await.concat();
    let counts = world.bed.counts();
    println!(
        "flush of {} canvases, 32 viewers: {} canvas requests, at most {} at once, {:?} in all, median wait {:?}",
        pages.len(),
        counts.canvas,
        counts.canvas_most,
        began.elapsed(),
        median(times)
    );
}

async fn what_a_heal_costs() {
    let bed = Testbed::builder().book("obj/book", 1).page_size(64, 64).start().await;
    let world = World::over(bed, "heal.ahead = 0\nheal.ladder = visit,rebuild\nheal.cooldown = 1ms").await;
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
