//! What one node learns, the others know: against a real Redis.

use testbed::{Page, Testbed};

use crate::support::cluster_world::{Fleet, PATIENT, Server, TILE};
use crate::support::world::{asks_until, patiently};

async fn ignorant(redis: &Server, nodes: usize) -> Fleet {
    let bed = Testbed::builder().book("obj/book", 3).page_size(600, 800).start().await;
    let url = format!("cluster.url = {}", redis.url());
    let fleet = Fleet::start(bed, nodes, &url, &format!("{PATIENT}\nindex.sources = []")).await;
    fleet.are_joined(true).await;
    fleet
}

fn images(fleet: &Fleet, node: usize) -> u64 {
    fleet.nodes[node].app.index.stats().expect("an index").images
}

#[tokio::test]
async fn a_manifest_that_passed_one_node_makes_its_images_healable_on_all_also_on_one_that_comes_later() {
    let redis = Server::redis(&[]).await;
    let mut fleet = ignorant(&redis, 2).await;
    let page = fleet.bed.page();
    assert_eq!(fleet.asks(0, &page.presentation_path).await.expect("an answer").status, 200);
    patiently("the other node knows it", || images(&fleet, 1) == 3).await;
    fleet.adds(&format!("cluster.url = {}\n{PATIENT}\nindex.sources = []", redis.url())).await;
    patiently("a new node catches up", || images(&fleet, 2) == 3).await;
    fleet.bed.expires_everything();
    for node in [1, 2] {
        let tile = fleet.asks(node, &page.image_path(TILE)).await.expect("an answer");
        assert_eq!((tile.status, tile.body), (200, page.picture(TILE)));
    }
    assert_eq!(fleet.event(1, "cluster_behind") + fleet.event(2, "cluster_behind"), 0.0);
}

#[tokio::test]
async fn a_verified_file_url_is_known_everywhere_and_a_false_one_nowhere() {
    let redis = Server::redis(&[]).await;
    let fleet = ignorant(&redis, 2).await;
    let pages = fleet.bed.pages();
    assert_eq!(fleet.asks(0, &pages[0].presentation_path).await.expect("an answer").status, 200);
    patiently("both know the images", || images(&fleet, 0) == 3 && images(&fleet, 1) == 3).await;
    let knows = |page: &testbed::Page| {
        let uuid = page.uuid.parse().expect("a UUID");
        fleet.nodes[1].app.index.file_url(uuid).expect("an index")
    };
    // The gate asks where the file is.
    assert_eq!(fleet.asks(0, &pages[0].info_path()).await.expect("an answer").status, 200);
    patiently("its file is known", || knows(&pages[0]).as_deref() == Some(&*pages[0].file_url)).await;
    let stream = "iiif-mender:{learned}:stream";
    let lie = [
        "XADD",
        stream,
        "*",
        "node",
        "x",
        "kind",
        "file",
        "name",
        &pages[1].uuid,
        "body",
        "http://evil.test/",
    ];
    redis.ask(&lie).await;
    redis.ask(&["XADD", stream, "*", "node", "x", "kind", "nonsense"]).await;
    assert_eq!(fleet.asks(0, &pages[2].info_path()).await.expect("an answer").status, 200);
    patiently("what came after the lie", || knows(&pages[2]).is_some()).await;
    assert_eq!(knows(&pages[1]), None);
}

/// Two nodes that learned the canvas of this page, and their Redis, which has lost everything since.
async fn emptied() -> (Server, Fleet, Page) {
    let redis = Server::redis(&[]).await;
    let fleet = ignorant(&redis, 2).await;
    let page = fleet.bed.page();
    assert_eq!(fleet.asks(0, &page.canvas_path).await.expect("an answer").status, 200);
    patiently("it is known", || images(&fleet, 1) == 1).await;
    redis.ask(&["FLUSHALL"]).await;
    (redis, fleet, page)
}

#[tokio::test]
async fn who_is_too_far_behind_says_so_and_reads_on() {
    let (_redis, fleet, page) = emptied().await;
    assert_eq!(fleet.asks(0, &page.presentation_path).await.expect("an answer").status, 200);
    patiently("the rest, too", || images(&fleet, 1) >= 3).await;
    assert!(fleet.event(1, "cluster_behind") >= 1.0);
}

#[tokio::test]
async fn an_emptied_stream_is_no_reason_to_read_the_sources_again_and_again() {
    let (redis, fleet, _) = emptied().await;
    let looks = async || {
        let commands = redis.commands().await;
        commands.into_iter().find(|(name, _)| name == "xrange").map_or(0, |(_, calls)| calls)
    };
    let news = ["PUBLISH", "iiif-mender:all", "learned somebody"];
    redis.ask(&news).await;
    patiently("it notices", || fleet.event(1, "cluster_behind") == 1.0).await;
    for _ in 0..3 {
        let before = looks().await;
        redis.ask(&news).await;
        // One command for each of them, at least.
        asks_until("both look", async || looks().await, |looks| *looks >= before + 2).await;
    }
    assert_eq!(fleet.event(1, "cluster_behind"), 1.0);
}

#[tokio::test]
async fn the_stream_ends_by_itself_and_holds_no_more_bytes_than_it_may() {
    let redis = Server::redis(&[]).await;
    let bed = Testbed::builder().book("obj/book", 12).page_size(600, 800).start().await;
    let settings = format!("cluster.url = {}\n{PATIENT}\nindex.sources = []", redis.url());
    let fleet = Fleet::start(bed, 2, &format!("cluster.learned_max = 2KiB\n{settings}"), "").await;
    fleet.are_joined(true).await;
    let pages = fleet.bed.pages();
    for page in &pages {
        assert_eq!(fleet.asks(0, &page.canvas_path).await.expect("an answer").status, 200);
        let known = || !fleet.nodes[1].app.index.owners(&page.identifier).expect("an index").is_empty();
        patiently("the other node knows it", known).await;
    }
    let stream = "iiif-mender:{learned}:stream";
    let number = async |words: &[&str]| match redis.ask(words).await {
        redis::Value::Int(number) => number,
        other => panic!("{other:?}"),
    };
    let left = number(&["XLEN", stream]).await;
    assert!((1..12).contains(&left), "{left} entries are kept");
    assert!(number(&["PTTL", stream]).await > 6 * 24 * 3600 * 1000, "it ends a week after the last one");
}
