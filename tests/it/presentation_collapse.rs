//! Who asks for the same manifest or canvas at the same time shares one upstream request.

use futures_util::future::join_all;
use testbed::Fetched;
use tokio::task::JoinHandle;

use crate::support::world::{World, patiently};

/// So many viewers ask for this path, each with these fields.
fn viewers(
    world: &World,
    count: usize,
    path: &str,
    fields: &'static [(&str, &str)],
) -> Vec<JoinHandle<Fetched>> {
    let one = |_| {
        let (client, url) = (world.client.clone(), world.url(path));
        tokio::spawn(async move { client.get(&url, fields).await.expect("an answer") })
    };
    (0..count).map(one).collect()
}

async fn collapsed(world: &World, count: usize) {
    let counted = || world.metric(r#"iiif_mender_events_total{kind="collapsed"}"#);
    patiently("they share a flight", || (counted() - count as f64).abs() < 0.5).await;
}

#[tokio::test]
async fn fifty_viewers_of_an_uncached_manifest_cost_one_request_and_who_leaves_cancels_nothing() {
    let world = World::start().await;
    let page = world.bed.page();
    world.bed.service.stalls_after_key();
    let first = viewers(&world, 1, &page.presentation_path, &[]);
    world.bed.ledger.until(|counts| counts.presentation == 1).await;
    let rest = viewers(&world, 49, &page.presentation_path, &[]);
    collapsed(&world, 49).await;
    // The one who started it leaves, and some of the others.
    first.iter().chain(&rest[..9]).for_each(JoinHandle::abort);
    world.bed.service.releases();
    for answer in join_all(rest).await.into_iter().skip(9) {
        let answer = answer.expect("not aborted");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text(), world.bed.manifest_json("obj/minutes"));
        assert_eq!(answer.header("via"), "1.1 iiif-mender");
    }
    assert_eq!(world.bed.counts().presentation, 1);
}

#[tokio::test]
async fn another_origin_never_gets_the_first_ones_permission_but_nothing_is_built_twice() {
    let world = World::start().await;
    let page = world.bed.page();
    world.bed.service.stalls_after_key();
    let one = viewers(&world, 2, &page.canvas_path, &[("origin", "https://one.example")]);
    world.bed.ledger.until(|counts| counts.canvas == 1).await;
    let other = viewers(&world, 2, &page.canvas_path, &[("origin", "https://other.example")]);
    collapsed(&world, 2).await;
    world.bed.service.releases();
    for (viewers, origin) in [(one, "https://one.example"), (other, "https://other.example")] {
        for answer in join_all(viewers).await {
            let answer = answer.expect("an answer");
            assert_eq!(answer.header("access-control-allow-origin"), origin);
            assert_eq!(answer.text(), world.bed.canvas_json(&page.path));
        }
    }
    let counts = world.bed.counts();
    assert_eq!((counts.canvas, counts.generations), (2, 1));
    assert_eq!(world.bed.redis.canvas_duplicates(&page.path), 1);
}

#[tokio::test]
async fn who_says_who_it_is_goes_alone_and_no_canvas_is_built_twice() {
    let world = World::start().await;
    let page = world.bed.page();
    world.bed.service.stalls_after_key();
    let mut all = viewers(&world, 2, &page.canvas_path, &[("cookie", "session=1")]);
    all.extend(viewers(&world, 1, &page.canvas_path, &[]));
    all.extend(viewers(&world, 1, &page.canvas_path, &[("range", "bytes=0-9")]));
    world.bed.ledger.until(|counts| counts.canvas == 1).await;
    world.bed.service.releases();
    for answer in join_all(all).await {
        assert_eq!(answer.expect("an answer").status, 200);
    }
    let counts = world.bed.counts();
    assert_eq!((counts.canvas, counts.generations), (4, 1), "each has an answer of his own");
}

#[tokio::test]
async fn what_is_too_long_to_be_held_reaches_everybody_whole() {
    let world = World::with("presentation.max_body = 1KiB").await;
    let page = world.bed.page();
    world.bed.service.stalls_after_key();
    let all = viewers(&world, 5, &page.presentation_path, &[]);
    collapsed(&world, 4).await;
    world.bed.service.releases();
    for answer in join_all(all).await {
        assert_eq!(answer.expect("an answer").text(), world.bed.manifest_json("obj/minutes"));
    }
}

#[tokio::test]
async fn a_service_that_is_down_is_told_to_all_who_share_the_request() {
    let world = World::start().await;
    let page = world.bed.page();
    world.bed.service.goes_down().await;
    for answer in join_all(viewers(&world, 5, &page.presentation_path, &[])).await {
        let answer = answer.expect("an answer");
        assert_eq!(
            (answer.status, answer.header("proxy-status")),
            (502, "iiif-mender; error=connection_refused")
        );
    }
}

#[tokio::test]
async fn without_collapsing_everybody_asks_for_oneself() {
    let world = World::with("presentation.collapse = false").await;
    let page = world.bed.page();
    world.bed.service.stalls_after_key();
    let all = viewers(&world, 3, &page.presentation_path, &[]);
    world.bed.ledger.until(|counts| counts.presentation == 1).await;
    world.bed.service.releases();
    assert!(join_all(all).await.into_iter().all(|answer| answer.expect("an answer").status == 200));
    assert_eq!(world.bed.counts().presentation, 3);
}
