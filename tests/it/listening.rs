//! How connections are taken, kept and ended.
#![allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]

use std::time::{Duration, Instant};

use testbed::{Flow, Origin};

use crate::support::edge::{Edge, field, status};
use crate::support::world::patiently;

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const SETTINGS: &str = "\0\0\0\x04\0\0\0\0\0";

/// Answers with the path that was asked for.
pub(crate) fn parrot() -> Origin {
    Origin::start(|seen| Origin::answer(200, &[], Flow::sized(seen.target.clone())))
}

#[tokio::test]
async fn stopping_refuses_new_connections_and_lets_requests_in_flight_end_well() {
    let origin = parrot();
    origin.stalls();
    let edge = Edge::before(&origin.url()).await;
    let (address, admin) = (edge.address(), edge.app.admin.expect("admin pages"));
    let mut viewer = edge.viewer().await;
    viewer.gets("/in-flight").await;
    origin.seen_at_least(1).await;
    let stopping = tokio::spawn(edge.app.stop());
    for address in [address, admin] {
        patiently("new connections are refused", || std::net::TcpStream::connect(address).is_err()).await;
    }
    assert!(!stopping.is_finished());
    origin.releases();
    let answer = viewer.rest().await;
    assert!(status(&answer.text) == 200 && answer.text.ends_with("/in-flight"), "{answer:?}");
    assert_eq!((field(&answer.text, "connection"), answer.reset), ("close", false));
    assert_eq!(stopping.await.expect("it stops"), 0);
}

#[tokio::test]
async fn stopping_waits_for_nobody_who_does_not_ask() {
    let origin = parrot();
    let edge = Edge::with(&origin.url(), "server.drain = 1h").await;
    let (mut idle, mut half, mut other_half) =
        (edge.viewer().await, edge.viewer().await, edge.viewer().await);
    idle.gets("/idle").await;
    idle.until("/idle").await;
    half.says("GET /half HTTP/1.1\r\nHo").await;
    other_half.gets("/whole").await;
    other_half.until("/whole").await;
    other_half.says("GET /half HTTP/1.1\r\nHo").await;
    let _silent = edge.viewer().await;
    patiently("all are accepted", || edge.metric("iiif_mender_connections") == 4.0).await;
    let cut = tokio::time::timeout(Duration::from_secs(10), edge.app.stop()).await;
    assert_eq!(cut.expect("it stops soon"), 0);
    assert_eq!(idle.rest().await.text, "");
}

#[tokio::test]
async fn at_the_drain_deadline_what_is_left_is_cut_and_counted() {
    let origin = parrot();
    origin.stalls();
    let edge = Edge::with(&origin.url(), "server.drain = 200ms\nheal.wait = 100ms").await;
    let mut viewer = edge.viewer().await;
    viewer.gets("/").await;
    origin.seen_at_least(1).await;
    let cut = tokio::time::timeout(Duration::from_secs(10), edge.app.stop()).await;
    assert_eq!(cut.expect("it stops"), 1);
    assert_eq!(viewer.rest().await.text, "");
}

#[tokio::test]
async fn who_says_nothing_or_half_a_head_is_closed_in_time() {
    let origin = parrot();
    let edge = Edge::with(&origin.url(), "server.head_timeout = 300ms\nserver.idle_timeout = 1h").await;
    let halves = [
        "",
        "G",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: ",
        "PRI * HT",
        PREFACE,
        &[PREFACE, SETTINGS].concat(),
    ];
    for said in halves {
        let started = Instant::now();
        let mut viewer = edge.viewer().await;
        viewer.says(said).await;
        viewer.rest().await;
        let took = started.elapsed().as_millis();
        assert!((250..5000).contains(&took), "{said:?}: {took}");
    }
    // The same on a connection that has served a request.
    let mut viewer = edge.viewer().await;
    viewer.gets("/one").await;
    viewer.until("/one").await;
    viewer.says("GET /two HTTP/1.1\r\n").await;
    assert_eq!(viewer.rest().await.text, "");
    assert_eq!(origin.seen().len(), 1);
    edge.is_alone().await;
}

#[tokio::test]
async fn a_head_in_drops_is_closed_as_well() {
    let origin = parrot();
    let edge = Edge::with(&origin.url(), "server.head_timeout = 300ms").await;
    let mut viewer = edge.viewer().await;
    let started = Instant::now();
    viewer.says("GET / HTTP/1.1\r\nHost: h\r\nX: ").await;
    let mut every = tokio::time::interval(Duration::from_millis(20));
    while viewer.tries(b"x").await.is_ok() {
        every.tick().await;
        assert!(started.elapsed() < Duration::from_secs(5), "it goes on for ever");
    }
    edge.is_alone().await;
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_idle_timeout_and_not_for_head_timeout() {
    let origin = parrot();
    let edge = Edge::with(&origin.url(), "server.head_timeout = 100ms\nserver.idle_timeout = 800ms").await;
    let mut viewer = edge.viewer().await;
    viewer.gets("/one").await;
    viewer.until("/one").await;
    let started = Instant::now();
    let rest = viewer.rest().await;
    let took = started.elapsed().as_millis();
    assert!((700..5000).contains(&took) && !rest.reset, "{took}");
}

/// After a second without a request a connection's buffers are let go, at the next look (a fourth of `head_timeout`).
pub(crate) const LULL: Duration = Duration::from_millis(1600);

#[tokio::test]
async fn who_rests_for_a_while_is_served_as_before() {
    let origin = parrot();
    let edge = Edge::with(&origin.url(), "server.head_timeout = 800ms\nserver.idle_timeout = 1h").await;
    let (mut reader, mut sender, mut slow) = (edge.viewer().await, edge.viewer().await, edge.viewer().await);
    for round in ["/1", "/2", "/3"] {
        reader.gets(round).await;
        reader.until(round).await;
        // Its body keeps it from being parked; what comes later is read as before.
        let post = format!("POST {round} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody");
        sender.says(&post).await;
        sender.until(round).await;
        slow.gets(round).await;
        slow.until(round).await;
        tokio::time::sleep(LULL).await;
    }
    // A head in pieces; then one that never ends.
    for piece in ["G", "ET /4 HTTP/1.1\r\nHo", "st: h\r\n\r\n"] {
        slow.says(piece).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    slow.until("/4").await;
    tokio::time::sleep(LULL).await;
    slow.says("GET /5 HTT").await;
    assert_eq!(slow.rest().await.text, "");
    // Who leaves is not kept, and who is still there when we stop ends well.
    drop(sender);
    patiently("it is gone", || edge.metric("iiif_mender_connections") == 1.0).await;
    assert_eq!(origin.seen().len(), 10);
    assert_eq!(edge.app.stop().await, 0);
    assert_eq!(reader.rest().await.text, "");
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_every_timeout_of_the_listener_arrives() {
    let slow = testbed::raw::Peer::start(vec![
        testbed::raw::Step::ReadHead,
        testbed::raw::Step::Write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n".into()),
        testbed::raw::Step::Dribble("in ten tim".into(), Duration::from_millis(50)),
    ])
    .await;
    let edge = Edge::with(&slow.url(), "server.head_timeout = 100ms\nserver.idle_timeout = 100ms").await;
    assert_eq!(edge.get("/").await.text(), "in ten tim");
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_one_that_is_at_rest() {
    let origin = parrot();
    let edge = Edge::with(&origin.url(), "server.max_connections = 1").await;
    origin.stalls();
    let mut first = edge.viewer().await;
    first.gets("/first").await;
    origin.seen_at_least(1).await;
    let mut second = edge.viewer().await;
    second.gets("/second").await;
    let closed = r#"iiif_mender_connections_cut_total{kind="evicted"}"#;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        (edge.metric("iiif_mender_connections"), edge.metric(closed), origin.seen().len()),
        (1.0, 0.0, 1)
    );
    origin.releases();
    first.until("/first").await;
    second.until("/second").await;
    assert_eq!((edge.metric(closed), origin.seen().len()), (1.0, 2));
    assert_eq!(first.rest().await.text, "", "it was at rest, and went");
}

#[tokio::test]
async fn a_request_needs_exactly_one_host() {
    let origin = parrot();
    let edge = Edge::before(&origin.url()).await;
    for hosts in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
        "Host: a:b\r\n",
    ] {
        let answer = edge.says(&format!("GET / HTTP/1.1\r\nConnection: close\r\n{hosts}\r\n")).await;
        assert_eq!(status(&answer), 400, "{hosts:?}");
    }
    assert_eq!(origin.seen().len(), 0);
}

#[tokio::test]
async fn dot_segments_are_refused_in_every_spelling() {
    let origin = parrot();
    let edge = Edge::before(&origin.url()).await;
    for path in [
        "/..",
        "/.",
        "/a/../b",
        "/a/./b",
        "/a/%2e%2e/b",
        "/a/.%2E/b",
        "/a/%2e",
        "/a%2F..%2Fb",
        "/a/..%2f",
        "/a%5c..%5cb",
        "/a\\..\\b",
        "/a/..;/b",
        "/a/..;x=y/b",
        "/a/..%3Bx/b",
        "/a%/../b",
        "//../",
    ] {
        let answer = edge.says(&format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(status(&answer), 400, "{path}");
    }
    assert_eq!(origin.seen().len(), 0);
    assert_eq!(edge.get("/a?/../%2e%2e/").await.status, 200);
}

#[tokio::test]
async fn what_is_too_long_is_414_and_431() {
    let origin = parrot();
    let edge = Edge::with(&origin.url(), "server.max_head_bytes = 16KiB\nserver.max_uri_bytes = 8KiB").await;
    let long = |bytes: usize| "x".repeat(bytes);
    for (head, expected) in [
        (format!("GET /{} HTTP/1.1\r\nHost: h\r\n", long(8191)), 200),
        (format!("GET /{} HTTP/1.1\r\nHost: h\r\n", long(8192)), 414),
        (format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n", long(20_000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: h\r\n{}", "X: y\r\n".repeat(200)), 431),
    ] {
        let answer = edge.says(&format!("{head}Connection: close\r\n\r\n")).await;
        assert_eq!(status(&answer), expected, "{}", &head[..40]);
    }
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_head_that_two_servers_could_read_differently_is_refused() {
    let origin = parrot();
    let edge = Edge::before(&origin.url()).await;
    for lines in [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Content-Length: 3, 4",
        "Content-Length: +3",
        "Content-Length: 3\r\nContent-Length: 4",
        "X : y",
        "X: y\r\n z: folded",
        "X: a\0b",
    ] {
        let answer = edge
            .says(&format!("POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{lines}\r\n\r\n0\r\n\r\n"))
            .await;
        assert_eq!(status(&answer), 400, "{lines}");
    }
    assert_eq!(origin.seen().len(), 0);
}
