//! Many readers of one cold tile: one request to the image server, and nobody is held up by another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rstest::rstest;
use testbed::raw::{Peer, Step};
use testbed::{Client, Flow, Origin};
use tokio::task::JoinHandle;

use crate::support::cache_world::{INFO, MINUTE, TILE, cached, did};
use crate::support::edge::{Edge, Viewer, status};
use crate::support::world::patiently;

/// Readers on connections of their own. What each gets: status, what the cache did, body; `None`: no whole answer.
type Readers = Vec<JoinHandle<Option<(u16, String, bytes::Bytes)>>>;

/// The name by which viewers that say every byte themselves ask, too.
const HOST: (&str, &str) = ("host", "viewer.example");

fn read(edge: &Edge, readers: usize) -> Readers {
    let url = edge.url(TILE);
    let reads = |_| {
        let url = url.clone();
        tokio::spawn(async move {
            let answer = Client::default().get(&url, &[HOST]).await.ok()?;
            Some((answer.status, did(&answer).to_owned(), answer.body))
        })
    };
    (0..readers).map(reads).collect()
}

async fn all(readers: Readers) -> Vec<(u16, String, bytes::Bytes)> {
    let mut answers = Vec::new();
    for reader in readers {
        answers.push(reader.await.expect("a task").expect("a whole answer"));
    }
    answers
}

/// Waits until so many readers wait for the request of another one.
async fn waiting(edge: &Edge, readers: usize) {
    patiently("they wait", || edge.metric("iiif_mender_cache_waiting") == readers as f64).await;
}

#[tokio::test]
async fn two_hundred_readers_of_a_cold_tile_are_one_request() {
    let origin = Origin::start(|_| Origin::answer(200, MINUTE, Flow::chunked(vec![7; 20_000])));
    let edge = cached(&origin.url(), "server.max_connections_per_address = 1000").await;
    origin.stalls();
    let readers = read(&edge, 200);
    waiting(&edge, 199).await;
    origin.releases();
    for (status, _, body) in all(readers).await {
        assert_eq!((status, body.len()), (200, 20_000));
    }
    assert_eq!(origin.seen().len(), 1);
    let shared = edge.metric("iiif_mender_cache_requests_total{target=\"image\",result=\"collapsed\"}");
    assert_eq!((shared, edge.metric("iiif_mender_cache_waiting")), (199.0, 0.0));
}

#[tokio::test]
async fn a_leader_who_leaves_breaks_nobody() {
    let origin = Origin::start(|_| Origin::answer(200, MINUTE, Flow::sized("a tile")));
    let edge = cached(&origin.url(), "").await;
    origin.stalls();
    let mut leader = edge.viewer().await;
    leader.gets(TILE).await;
    origin.seen_at_least(1).await;
    let readers = read(&edge, 20);
    waiting(&edge, 20).await;
    leader.leaves();
    patiently("his connection is closed", || edge.metric("iiif_mender_connections") == 20.0).await;
    origin.releases();
    for (status, _, body) in all(readers).await {
        assert_eq!((status, &body[..]), (200, &b"a tile"[..]));
    }
    assert_eq!(origin.seen().len(), 1, "his request went on");
}

#[tokio::test]
async fn a_leader_for_whom_nobody_waits_takes_his_request_along() {
    let origin = Origin::start(|_| Origin::answer(200, MINUTE, Flow::sized("a tile")));
    let edge = cached(&origin.url(), "").await;
    origin.stalls();
    let mut leader = edge.viewer().await;
    leader.gets(TILE).await;
    origin.seen_at_least(1).await;
    leader.leaves();
    edge.is_alone().await;
    origin.releases();
    assert_eq!(edge.get_with(TILE, &[HOST]).await.status, 200);
    assert_eq!(origin.seen().len(), 2);
}

/// The head of a tile of so many bytes that may be kept.
fn head(length: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// A tile that is longer than what is read before a head goes out (`upstream.buffer`).
const LONG: usize = 600 << 10;

/// An image server that stalls in the middle of a long tile, and what is left of it then.
async fn stalling(rest: Vec<Step>) -> Peer {
    let begun = [head(LONG).into_bytes(), vec![b'x'; LONG / 2]].concat();
    let script = [Step::ReadHead, Step::Write(begun.into()), Step::Stall].into_iter().chain(rest).collect();
    Peer::scripted(vec![script, vec![Step::ReadHead, Step::Close]]).await
}

/// Reads the head and the first half of a long tile.
async fn reads_half(edge: &Edge) -> Viewer {
    let mut viewer = edge.viewer().await;
    viewer.gets(TILE).await;
    assert_eq!(status(&viewer.head().await), 200);
    viewer.until(&"x".repeat(LONG / 2)).await;
    viewer
}

#[tokio::test]
async fn a_long_tile_goes_to_all_as_it_comes() {
    let peer = stalling(vec![Step::Write(vec![b'y'; LONG - LONG / 2].into()), Step::Stall]).await;
    let edge = cached(&peer.url(), "").await;
    let mut readers = Vec::new();
    for _ in 0..5 {
        readers.push(reads_half(&edge).await);
    }
    peer.releases();
    // The first one has gone, and does not read.
    for mut reader in readers.drain(1..) {
        reader.until(&"y".repeat(LONG - LONG / 2)).await;
    }
    assert_eq!(peer.heads().len(), 1);
    let kept = edge.get_with(TILE, &[HOST]).await;
    assert_eq!((did(&kept), kept.body.len()), ("hit", LONG));
}

#[tokio::test]
async fn a_tile_that_is_cut_is_cut_for_all_and_never_kept() {
    let peer = stalling(vec![Step::Close]).await;
    let edge = cached(&peer.url(), "").await;
    let (mut first, mut second) = (reads_half(&edge).await, reads_half(&edge).await);
    peer.releases();
    for reader in [&mut first, &mut second] {
        assert_eq!(reader.rest().await.text, "");
    }
    assert_eq!(edge.metric("iiif_mender_cache_stored_total"), 0.0);
    assert_eq!(edge.get(TILE).await.status, 502);
}

#[tokio::test]
async fn an_answer_whose_end_is_in_doubt_is_never_kept() {
    let told = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Type: image/jpeg\r\n";
    for (name, answer) in [
        ("shorter than told", format!("{told}Content-Length: 10\r\n\r\nhalf")),
        ("chunks without an end", format!("{told}Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")),
        ("ends with its connection", format!("{told}\r\nhalf")),
    ] {
        let peer = Peer::start(vec![Step::ReadHead, Step::Write(answer.into()), Step::Close]).await;
        let edge = cached(&peer.url(), "").await;
        for _ in 0..2 {
            let _cut = edge.client.get(&edge.url(TILE), &[]).await;
        }
        assert_eq!(peer.heads().len(), 2, "{name}");
        assert_eq!(edge.metric("iiif_mender_cache_stored_total"), 0.0, "{name}");
    }
}

#[tokio::test]
async fn who_does_not_read_holds_up_nobody() {
    let origin = Origin::start(|_| Origin::answer(200, MINUTE, Flow::sized(vec![7; 1 << 20])));
    let edge = cached(&origin.url(), "").await;
    let mut idle = Vec::new();
    for _ in 0..10 {
        let mut viewer = edge.viewer().await;
        viewer.gets(TILE).await;
        idle.push(viewer);
    }
    for (status, _, body) in all(read(&edge, 10)).await {
        assert_eq!((status, body.len()), (200, 1 << 20));
    }
    assert_eq!(origin.seen().len(), 1);
}

/// Readers of a tile that may not be shared: each gets his own.
async fn each_gets_his_own(edge: &Edge, origin: &Origin, length: usize) {
    origin.stalls();
    let readers = read(edge, 6);
    waiting(edge, 5).await;
    origin.releases();
    for (status, _, body) in all(readers).await {
        assert_eq!((status, body.len()), (200, length));
    }
    assert_eq!(origin.seen().len(), 6);
    assert_eq!(edge.metric("iiif_mender_cache_stored_total"), 0.0);
}

#[tokio::test]
async fn a_tile_that_is_too_long_is_each_readers_own() {
    for (length, buffer) in [(300_000, "0"), (100_000, "0"), (100_000, "256KiB")] {
        let more = format!("cache.max_body = 65536\nupstream.buffer = {buffer}");
        for is_chunked in [false, true] {
            let origin = Origin::start(move |_| {
                let body = vec![7; length];
                let body = if is_chunked { Flow::chunked(body) } else { Flow::sized(body) };
                Origin::answer(200, MINUTE, body)
            });
            let edge = cached(&origin.url(), &more).await;
            each_gets_his_own(&edge, &origin, length).await;
        }
    }
}

#[tokio::test]
async fn a_tile_that_may_not_be_kept_is_each_readers_own() {
    let fields = [("cache-control", "max-age=60"), ("set-cookie", "a=b")];
    let origin = Origin::start(move |_| Origin::answer(200, &fields, Flow::sized("a tile")));
    let edge = cached(&origin.url(), "").await;
    each_gets_his_own(&edge, &origin, 6).await;
}

/// So many readers at once are as many requests, although the first one has no answer yet.
async fn each_asks_for_himself(origin: &Origin, edge: &Edge, readers: usize) {
    let before = origin.seen().len();
    origin.stalls();
    let reading = read(edge, readers);
    origin.seen_at_least(before + readers).await;
    origin.releases();
    all(reading).await;
}

#[tokio::test]
async fn where_nothing_is_ever_kept_nobody_waits() {
    let origin = Origin::start(|_| Origin::answer(200, &[], Flow::sized("a tile")));
    let edge = cached(&origin.url(), "").await;
    for _ in 0..20 {
        edge.get(TILE).await;
    }
    each_asks_for_himself(&origin, &edge, 6).await;
}

#[tokio::test]
async fn who_has_waited_long_enough_asks_for_himself() {
    let origin = Origin::start(|_| Origin::answer(200, MINUTE, Flow::sized("a tile")));
    let edge = cached(&origin.url(), "cache.collapse_wait = 100ms").await;
    each_asks_for_himself(&origin, &edge, 3).await;
}

#[tokio::test]
async fn readers_who_want_other_variants_do_not_get_the_leaders() {
    let origin = Origin::start(|seen| {
        let fields = [("cache-control", "max-age=60"), ("vary", "Accept")];
        Origin::answer(200, &fields, Flow::sized(seen.header("accept").to_owned()))
    });
    let edge = Arc::new(cached(&origin.url(), "").await);
    origin.stalls();
    let asks = |accept: &'static str| {
        let edge = Arc::clone(&edge);
        tokio::spawn(async move { edge.get_with(TILE, &[("accept", accept)]).await.text() })
    };
    let leader = asks("image/webp");
    origin.seen_at_least(1).await;
    let others: Vec<_> =
        ["image/png", "image/webp"].into_iter().map(|accept| (accept, asks(accept))).collect();
    waiting(&edge, 2).await;
    origin.releases();
    assert_eq!(leader.await.expect("a task"), "image/webp");
    for (accept, reader) in others {
        assert_eq!(reader.await.expect("a task"), accept);
    }
    assert_eq!(origin.seen().len(), 2);
}

#[rstest]
#[case::as_long_as_the_server_may("upstream.first_byte_timeout = 500ms")]
#[case::as_long_as_a_reader_may_wait("")]
#[tokio::test]
async fn while_the_image_server_is_silent_a_stale_tile_goes_to_all_who_wait(#[case] more: &str) {
    let origin =
        Origin::start(|_| Origin::answer(200, &[("cache-control", "max-age=1")], Flow::sized("a tile")));
    let edge = cached(&origin.url(), more).await;
    edge.get_with(TILE, &[HOST]).await;
    edge.get_with(INFO, &[HOST]).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    origin.stalls();
    let begun = tokio::time::Instant::now();
    let (tiles, info) = tokio::join!(all(read(&edge, 10)), edge.get_with(INFO, &[HOST]));
    for (status, what, body) in tiles {
        assert_eq!((status, &*what, &body[..]), (200, "fwd=stale; detail=stale-if-error", &b"a tile"[..]));
    }
    assert_eq!(did(&info), "fwd=stale; detail=stale-if-error");
    assert!(begun.elapsed() < Duration::from_secs(15), "viewers drop a tile after 30 s");
    origin.releases();
}

/// Longer than what the system buffers for a reader who takes nothing.
const HUGE: usize = 12 << 20;

/// A cache before an image server whose tiles are huge.
async fn huge(more: &str) -> (Origin, Edge) {
    let origin = Origin::start(|_| Origin::answer(200, MINUTE, Flow::sized(vec![7; HUGE])));
    let edge = cached(&origin.url(), &format!("cache.max_body = 12MiB\n{more}")).await;
    (origin, edge)
}

/// Waits until the memory for bodies is, or is not, that of one huge tile.
async fn holds(edge: &Edge, is_held: bool) {
    let what = if is_held { "the tile is held" } else { "nothing is held" };
    let is_so = |held: f64| if is_held { held >= HUGE as f64 } else { held == 0.0 };
    patiently(what, || is_so(edge.metric("iiif_mender_held_bytes"))).await;
}

#[tokio::test]
async fn a_tile_counts_as_held_until_its_reader_has_it() {
    let (origin, edge) = huge("").await;
    let mut leader = edge.viewer().await;
    leader.gets(TILE).await;
    patiently("it is kept", || edge.metric("iiif_mender_cache_stored_total") == 1.0).await;
    holds(&edge, true).await;
    leader.leaves();
    holds(&edge, false).await;
    let mut reader = edge.viewer().await;
    reader.gets(TILE).await;
    holds(&edge, true).await;
    reader.leaves();
    holds(&edge, false).await;
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn who_holds_too_much_gets_no_long_tile_from_memory() {
    let (origin, edge) = huge("server.max_held_total = 64MiB").await;
    assert_eq!(edge.get_with(TILE, &[HOST]).await.body.len(), HUGE);
    holds(&edge, false).await;
    let mut reader = edge.viewer().await;
    reader.gets(TILE).await;
    holds(&edge, true).await;
    let own = edge.get_with(TILE, &[HOST]).await;
    assert_eq!((own.status, own.body.len(), origin.seen().len()), (200, HUGE, 2), "{:?}", own.headers);
    reader.leaves();
    holds(&edge, false).await;
    assert_eq!(did(&edge.get_with(TILE, &[HOST]).await), "hit");
}

#[tokio::test]
async fn a_route_whose_answers_may_never_be_kept_passes_by_until_they_may() {
    let (allows, refuses) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (may, must_not) = (Arc::clone(&allows), Arc::clone(&refuses));
    let origin = Origin::start(move |_| {
        let status = if must_not.load(Ordering::Relaxed) { 403 } else { 200 };
        let fields = if may.load(Ordering::Relaxed) { MINUTE } else { &[] };
        Origin::answer(status, fields, Flow::chunked("tile"))
    });
    let edge = cached(&origin.url(), "").await;
    for _ in 0..20 {
        edge.get(TILE).await;
    }
    assert_eq!(did(&edge.get(TILE).await), "fwd=bypass");
    // What is refused while requests pass by is never kept later.
    refuses.store(true, Ordering::Relaxed);
    let other = TILE.replacen("/2/", "/2/secret-", 1);
    assert_eq!(edge.get(&other).await.status, 403);
    refuses.store(false, Ordering::Relaxed);
    allows.store(true, Ordering::Relaxed);
    let mut asked = 0;
    while did(&edge.get(TILE).await) != "hit" {
        asked += 1;
        assert!(asked < 70, "it is not looked at again");
    }
    edge.get(&other).await;
    assert_ne!(did(&edge.get(&other).await), "hit");
}

#[tokio::test]
async fn a_stranger_with_no_store_or_a_cookie_does_not_end_the_sharing() {
    let origin =
        Origin::start(|_| Origin::answer(200, &[("cache-control", "max-age=60")], Flow::sized("a tile")));
    let edge = cached(&origin.url(), "").await;
    for number in 0..40 {
        let own = if number % 2 == 0 { ("cache-control", "no-store") } else { ("cookie", "a=b") };
        edge.get_with(&TILE.replacen("page", "other", 1), &[HOST, own]).await;
    }
    origin.stalls();
    let readers = read(&edge, 20);
    waiting(&edge, 19).await;
    origin.releases();
    assert!(all(readers).await.iter().all(|(status, _, body)| (*status, &body[..]) == (200, b"a tile")));
    assert_eq!(origin.seen().len(), 41);
}
