//! Redis goes away in the middle of it all, in every way it can: no viewer notices.

use std::time::{Duration, Instant};

use crate::support::cluster_world::{AS_SHIPPED, Fleet, Server, TILE, all_served, book};

async fn fleet(pages: u32, redis: &Server, more: &str) -> Fleet {
    let url = format!("cluster.url = {}", redis.url());
    let fleet = Fleet::start(book(pages).await, 3, &url, &format!("{AS_SHIPPED}\n{more}")).await;
    fleet.are_joined(true).await;
    fleet
}

/// A storm, with something done to Redis in the middle of it.
async fn through_a_storm(redis: &mut Server, does: impl AsyncFnOnce(&mut Server)) {
    let fleet = fleet(30, redis, "").await;
    let pages = fleet.bed.pages();
    fleet.bed.service.stalls_canvas();
    let everywhere: Vec<_> =
        pages.iter().flat_map(|page| [page.clone(), page.clone(), page.clone()]).collect();
    let storm = fleet.storm(&everywhere);
    fleet.bed.ledger.until(|counts| counts.canvas >= 1).await;
    does(redis).await;
    fleet.bed.service.releases();
    all_served(storm).await;
    fleet.settles().await;
    let visits = fleet.bed.counts().canvas;
    assert!((30..=90).contains(&visits), "at most one request a node and canvas: {visits}");
}

#[tokio::test]
async fn redis_is_killed_in_the_middle_of_a_storm() {
    let mut redis = Server::redis(&[]).await;
    through_a_storm(&mut redis, async |redis| redis.dies()).await;
}

#[tokio::test]
async fn redis_is_paused_in_the_middle_of_a_storm() {
    let mut redis = Server::redis(&[]).await;
    through_a_storm(&mut redis, async |redis| redis.signal("-STOP")).await;
    redis.signal("-CONT");
}

#[tokio::test]
async fn redis_is_flushed_in_the_middle_of_a_storm() {
    let mut redis = Server::redis(&[]).await;
    through_a_storm(&mut redis, async |redis| {
        redis.ask(&["FLUSHALL"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_node_without_redis_serves_and_joins_by_itself_when_it_comes() {
    let mut redis = Server::redis(&[]).await;
    let fleet = fleet(3, &redis, "").await;
    let pages = fleet.bed.pages();
    redis.dies();
    fleet.are_joined(false).await;
    assert_eq!(fleet.asks(0, &pages[0].image_path(TILE)).await.expect("an answer").status, 200);
    redis.comes_back().await;
    fleet.are_joined(true).await;
    assert_eq!(fleet.asks(1, &pages[1].image_path(TILE)).await.expect("an answer").status, 200);
    assert!(fleet.event(0, "cluster_lost") >= 1.0 && fleet.event(0, "cluster_joined") >= 2.0);
    assert_eq!(fleet.bed.counts().canvas, 2);
}

#[tokio::test]
async fn a_redis_that_is_full_read_only_or_answers_nonsense_is_none() {
    let redis = Server::redis(&[]).await;
    let fleet = fleet(6, &redis, "").await;
    let pages = fleet.bed.pages();
    let serves = async |page: usize| {
        let started = Instant::now();
        let answer = fleet.asks(0, &pages[page].image_path(TILE)).await.expect("an answer");
        assert_eq!(answer.status, 200);
        // Coarse, on a busy machine: nobody waited for a lease.
        assert!(started.elapsed() < Duration::from_secs(10));
    };
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    serves(0).await;
    fleet.settles().await;
    assert!(fleet.event(0, "cluster_lost") >= 1.0, "full");
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    fleet.are_joined(true).await;
    redis.ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
    serves(1).await;
    redis.ask(&["REPLICAOF", "NO", "ONE"]).await;
    fleet.are_joined(true).await;
    assert_eq!(fleet.bed.counts().canvas, 2);
}
