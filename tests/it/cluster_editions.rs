//! `index.store = "redis"`: a fleet whose nodes have no disk to rely on, against a real Redis.

use std::path::Path;

use iiif_mender::app::App;
use testbed::{Flow, Origin, Page, Testbed};

use crate::support::batch_world::Batch;
use crate::support::cluster_world::{Fleet, PATIENT, Server, TILE, all_served, book};
use crate::support::world::{asks_until, patiently, settings};

/// Published as soon as anything changes.
fn shared(redis: &Server, more: &str) -> String {
    let redis = redis.url();
    format!("{PATIENT}\ncluster.url = {redis}\nindex.store = redis\ncluster.edition_every = 1s\n{more}")
}

/// A node with sources, and one that has none and an empty disk.
async fn editor_and_reader(redis: &Server, pages: u32) -> Fleet {
    let mut fleet = Fleet::start(book(pages).await, 1, "", &shared(redis, "")).await;
    fleet.adds(&shared(redis, "index.sources = []")).await;
    fleet.are_joined(true).await;
    fleet
}

fn knows(app: &App, pages: &[Page]) -> bool {
    pages.iter().all(|page| !app.index.owners(&page.identifier).expect("an index").is_empty())
}

async fn all_are_known(fleet: &Fleet, node: usize) {
    let pages = fleet.bed.pages();
    patiently("the index has come from Redis", || knows(&fleet.nodes[node].app, &pages)).await;
}

#[tokio::test]
async fn a_node_without_sources_and_with_an_empty_disk_starts_fetches_the_index_and_heals() {
    let redis = Server::redis(&[]).await;
    let fleet = editor_and_reader(&redis, 5).await;
    all_are_known(&fleet, 1).await;
    for page in fleet.bed.pages() {
        let tile = fleet.asks(1, &page.image_path(TILE)).await.expect("an answer");
        assert_eq!((tile.status, tile.body), (200, page.picture(TILE)));
    }
    assert!(fleet.event(0, "edition_published") >= 1.0 && fleet.event(1, "edition_published") == 0.0);
    assert!(fleet.event(0, "edition_read") == 0.0 && fleet.event(1, "edition_read") >= 1.0);
}

#[tokio::test]
async fn redis_may_go_and_come_back_empty_the_copies_go_on_and_the_editor_publishes_again() {
    let mut redis = Server::redis(&[]).await;
    let mut fleet = editor_and_reader(&redis, 3).await;
    all_are_known(&fleet, 1).await;
    redis.dies();
    fleet.are_joined(false).await;
    all_served(fleet.storm(&fleet.bed.pages())).await;
    fleet.settles().await;
    redis.comes_back().await;
    fleet.are_joined(true).await;
    fleet.adds(&shared(&redis, "index.sources = []")).await;
    all_are_known(&fleet, 2).await;
    assert!(fleet.event(0, "edition_published") >= 2.0);
    assert!(knows(&fleet.nodes[1].app, &fleet.bed.pages()), "what it had stays");
}

#[tokio::test]
async fn a_moment_without_redis_sends_nobody_to_the_sources() {
    let mut redis = Server::redis(&[]).await;
    let bed = book(2).await;
    let manifest = bed.manifest_json("obj/book");
    let origin = Origin::start(move |_| {
        Origin::answer(200, &[("content-type", "application/json")], Flow::sized(manifest.clone()))
    });
    let source = format!("index.sources = [{{ url = \"{}/book.json\" }}]", origin.url());
    let fleet = Fleet::start(bed, 2, "", &shared(&redis, &source)).await;
    fleet.are_joined(true).await;
    all_are_known(&fleet, 0).await;
    all_are_known(&fleet, 1).await;
    let asked = origin.seen().len();
    redis.dies();
    fleet.are_joined(false).await;
    for _ in 0..100 {
        assert_eq!(fleet.asks(1, "/nothing").await.expect("an answer").status, 404);
    }
    assert_eq!(origin.seen().len(), asked);
}

#[tokio::test]
async fn a_node_that_starts_again_without_redis_has_the_copy_of_its_last_life() {
    let mut redis = Server::redis(&[]).await;
    let mut fleet = editor_and_reader(&redis, 3).await;
    all_are_known(&fleet, 1).await;
    let node = fleet.nodes.pop().expect("the second");
    node.app.stop().await;
    redis.dies();
    let (images, service) = (fleet.bed.images.origin(), fleet.bed.service.origin());
    let more = shared(&redis, "index.sources = []\ncluster.connect_timeout = 1s");
    let again = settings(node.folder.path(), &images, &service, &more);
    let app = App::start(again).await.expect("it starts");
    assert!(knows(&app, &fleet.bed.pages()));
    app.stop().await;
}

/// Says again and again that something was learned: a node that subscribes just now does not hear the first word, and looks by
/// itself in half a minute only.
async fn told_until(redis: &Server, what: &str, is_so: impl Fn() -> bool) {
    let tell = async || redis.ask(&["PUBLISH", "iiif-mender:all", "learned third"]).await;
    asks_until(what, tell, |_| is_so()).await;
}

#[tokio::test]
async fn who_is_too_far_behind_the_others_reads_the_whole_index_again() {
    let redis = Server::redis(&[]).await;
    let mut fleet = editor_and_reader(&redis, 3).await;
    all_are_known(&fleet, 1).await;
    // Both learn something, so that they stand somewhere in the stream; then the stream is gone.
    fleet.bed.registers_everything();
    let page = fleet.bed.page();
    assert_eq!(fleet.asks(0, &page.info_path()).await.expect("an answer").status, 200);
    let uuid = page.uuid.parse().expect("a UUID");
    let knows_file =
        |fleet: &Fleet, node: usize| fleet.nodes[node].app.index.file_url(uuid).expect("an index").is_some();
    told_until(&redis, "the file is known on both", || knows_file(&fleet, 1)).await;
    // No edition comes after this one: a new one would be a new place to go on from, and nobody would be behind.
    fleet.nodes.remove(0).app.stop().await;
    let edition = redis.text(&["HGET", "iiif-mender:{index}:edition", "name"]).await;
    // Opened anew for each look: an edition that is read comes in a file of its own.
    let own = || {
        let copy = rusqlite::Connection::open(fleet.nodes[0].app.index.path()).expect("a copy");
        copy.query_row("SELECT value FROM marks WHERE name = 'edition'", [], |row| row.get::<_, String>(0))
    };
    patiently("the last edition is read", || own().is_ok_and(|own| own == edition)).await;
    // It may be older than what was learned: then the stream is read once more.
    told_until(&redis, "the file is known still", || knows_file(&fleet, 0)).await;
    let read = fleet.event(0, "edition_read");
    // A third node has learned what both know: where a file is. (Told again and again: who reads the stream anew is
    // not behind the first time.)
    let url = fleet.nodes[0].app.index.file_url(uuid).expect("an index").expect("it is known");
    let fields = ["node", "third", "kind", "file", "name", &page.uuid, "body", &url];
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(40);
    while fleet.event(0, "cluster_behind") < 1.0 {
        assert!(tokio::time::Instant::now() < until, "it never notices");
        redis.ask(&["DEL", "iiif-mender:{learned}:stream"]).await;
        redis.ask(&[&["XADD", "iiif-mender:{learned}:stream", "*"][..], &fields[..]].concat()).await;
        redis.ask(&["PUBLISH", "iiif-mender:all", "learned third"]).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    patiently("it reads again", || fleet.event(0, "edition_read") > read).await;
    let pages = fleet.bed.pages();
    assert!(knows(&fleet.nodes[0].app, &pages) && knows_file(&fleet, 0), "nothing was lost");
}

#[tokio::test]
async fn a_chunk_that_is_gone_or_false_leaves_the_copies_as_they_are_and_is_published_again() {
    let redis = Server::redis(&[]).await;
    let mut fleet = editor_and_reader(&redis, 3).await;
    all_are_known(&fleet, 1).await;
    let chunks = redis.text(&["HGET", "iiif-mender:{index}:edition", "chunks"]).await;
    let key = format!("iiif-mender:{{{}}}:chunk", chunks.split(' ').next().expect("a chunk"));
    redis.ask(&["SET", &key, "nonsense"]).await;
    fleet.adds(&shared(&redis, "index.sources = []")).await;
    patiently("it does not believe it", || fleet.event(2, "edition_broken") >= 1.0).await;
    assert_eq!(fleet.nodes[2].app.index.stats().expect("an index").images, 0);
    redis.ask(&["DEL", &key]).await;
    all_are_known(&fleet, 2).await;
}

#[tokio::test]
async fn what_changes_in_the_sources_of_the_editor_reaches_everybody() {
    let redis = Server::redis(&[]).await;
    let fleet = editor_and_reader(&redis, 2).await;
    all_are_known(&fleet, 1).await;
    let more = Testbed::builder().book("obj/other", 4).page_size(64, 64).start().await;
    more.write_manifests(&fleet.nodes[0].folder.path().join("manifests")).expect("manifests");
    let pages = more.pages();
    patiently("the other node knows it", || knows(&fleet.nodes[1].app, &pages)).await;
    assert!(knows(&fleet.nodes[1].app, &fleet.bed.pages()));
}

#[tokio::test]
async fn index_build_publishes_for_nodes_that_have_no_sources() {
    let redis = Server::redis(&[]).await;
    let bed = Testbed::builder().book("obj/book", 3).page_size(64, 64).start().await;
    let times = "command_timeout = \"10s\"\nconnect_timeout = \"10s\"";
    let more = format!("[cluster]\nurl = \"{}\"\n{times}\n[index]\nstore = \"redis\"", redis.url());
    let batch = Batch::with(bed, &more);
    let built = batch.run(&["index", "build"]).await;
    assert_eq!(built.code, 0, "{}{}", built.stdout, built.stderr);
    let app = reader(batch.folder.path(), &batch.bed, &shared(&redis, "index.sources = []")).await;
    let pages = batch.bed.pages();
    patiently("the index has come from Redis", || knows(&app, &pages)).await;
    app.stop().await;
    drop(redis);
    let alone = batch.run(&["index", "build"]).await;
    assert_eq!(alone.code, 1);
    assert!(alone.stderr.contains("was not published"), "{}", alone.stderr);
}

/// A node with an empty disk below `folder`.
async fn reader(folder: &Path, bed: &Testbed, more: &str) -> App {
    let own = folder.join("reader");
    std::fs::create_dir(&own).expect("a folder");
    App::start(settings(&own, &bed.images.origin(), &bed.service.origin(), more)).await.expect("it starts")
}
