//! Viewers who break in the middle, and upstreams that do not wait for them.

use std::time::Duration;

use testbed::raw::{Peer, Step, answers, ok};
use testbed::{Flow, Origin};

use crate::faults::{NARROW, broken_once, next_works};
use crate::support::edge::{Edge, route, status};

#[tokio::test]
async fn an_answer_in_the_middle_of_an_upload_reaches_the_viewer_and_the_connection_is_not_used_again() {
    let early = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
    let peer = Peer::scripted(vec![
        vec![Step::ReadHead, Step::Read(5), Step::Write(early.into()), Step::Stall],
        answers(ok("ok")),
    ])
    .await;
    let edge = Edge::with(&peer.url(), NARROW).await;
    let mut viewer = edge.viewer().await;
    viewer.says("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nfirst").await;
    assert_eq!(status(&viewer.head().await), 413);
    viewer.until("big").await;
    next_works(&edge, "/").await;
    assert_eq!(peer.connections(), 2);
    viewer.leaves();
    edge.rests().await;
}

#[tokio::test]
async fn an_upload_may_take_longer_than_the_first_byte_of_its_answer() {
    let peer = Peer::start(vec![Step::ReadHead, Step::Read(6), Step::Write(ok("ok"))]).await;
    let edge = Edge::with(
        &peer.url(),
        "upstream.first_byte_timeout = 150ms\nupstream.body_timeout = 10s\nupstream.buffer = 0",
    )
    .await;
    let mut viewer = edge.viewer().await;
    viewer.says("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\n").await;
    // Six pieces that take three times as long as the first byte may.
    let mut every = tokio::time::interval(Duration::from_millis(90));
    for piece in ["u", "p", "l", "o", "a", "d"] {
        every.tick().await;
        viewer.says(piece).await;
    }
    assert_eq!(status(&viewer.head().await), 200);
}

#[tokio::test]
async fn a_viewer_that_stalls_in_its_upload_is_told_and_its_place_is_free() {
    let (peer, edge) = broken_once(vec![Step::ReadHead, Step::Read(100)]).await;
    let mut viewer = edge.viewer().await;
    viewer.says("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nsome").await;
    assert_eq!(status(&viewer.head().await), 408);
    next_works(&edge, "/").await;
    assert_eq!(peer.connections(), 2);
    assert!(!edge.app.metrics.scrape().contains("upstream_errors_total{"), "it was not the upstream");
}

#[tokio::test]
async fn a_broken_upload_is_400_and_not_the_upstreams_fault() {
    let (_peer, edge) = broken_once(vec![Step::ReadHead, Step::Read(100)]).await;
    let mut viewer = edge.viewer().await;
    viewer.says("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").await;
    assert_eq!(status(&viewer.head().await), 400);
    next_works(&edge, "/").await;
    assert!(!edge.app.metrics.scrape().contains("upstream_errors_total{"));
}

#[tokio::test]
async fn a_viewer_who_leaves_frees_place_and_connection_at_every_stage() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegin";
    let stages: [(Vec<Step>, &str, &str); 3] = [
        (vec![Step::ReadHead, Step::Read(1)], "GET / HTTP/1.1\r\nHost: h\r\n\r\n", ""),
        (
            vec![Step::ReadHead, Step::Write(head.into()), Step::Read(1)],
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "begin",
        ),
        (
            vec![Step::ReadHead, Step::Read(9)],
            "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nbegin",
            "",
        ),
    ];
    for (script, request, seen) in stages {
        let peer = Peer::scripted(vec![script, answers(ok("ok"))]).await;
        let edge = Edge::with(&peer.url(), "upstream.max_requests = 1\nupstream.buffer = 0").await;
        let mut viewer = edge.viewer().await;
        viewer.says(request).await;
        peer.heads_at_least(1).await;
        if !seen.is_empty() {
            viewer.until(seen).await;
        }
        viewer.leaves();
        next_works(&edge, "/").await;
    }
}

#[tokio::test]
async fn a_refusal_reaches_a_viewer_whose_body_nobody_wanted() {
    let edge = Edge::routed(&route("/a/", "http://127.0.0.1:9/", "plain", ""), "").await;
    for size in [5, 5000] {
        let mut viewer = edge.viewer().await;
        let body = "x".repeat(size);
        viewer.says(&format!("POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n{body}")).await;
        assert_eq!(status(&viewer.head().await), 404);
    }
    let answer = edge.says("GET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nmore").await;
    assert_eq!(status(&answer), 404);
}

#[tokio::test]
async fn a_viewer_who_does_not_take_the_answer_is_cut_and_its_place_is_free() {
    // More than the kernel keeps for both sides.
    let origin = Origin::start(|seen| {
        let body = if seen.path() == "/big" { vec![b'x'; 64 << 20] } else { b"ok".to_vec() };
        Origin::answer(200, &[], Flow::sized(body))
    });
    let edge = Edge::with(&origin.url(), &format!("{NARROW}\nserver.idle_timeout = 300ms")).await;
    let mut viewer = edge.viewer().await;
    viewer.gets("/big").await;
    edge.rests().await;
    next_works(&edge, "/").await;
    assert!(viewer.rest().await.text.len() < 64 << 20);
}

#[tokio::test]
async fn a_short_upload_takes_a_permit_and_a_connection_when_it_is_whole() {
    let script = vec![Step::ReadHead, Step::Read(11), Step::Write(ok("done"))];
    let peer = Peer::start(script).await;
    let edge = Edge::with(&peer.url(), "upstream.max_requests = 1\nupstream.body_timeout = 300ms").await;
    // Its first half, and then nothing.
    let mut stalled = edge.viewer().await;
    stalled.says("POST /form HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nfirst").await;
    assert_eq!(status(&stalled.head().await), 408);
    assert_eq!(peer.connections(), 0);
    let mut viewer = edge.viewer().await;
    viewer.says("POST /form HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nfirst").await;
    viewer.says("second").await;
    assert_eq!(status(&viewer.head().await), 200);
    assert_eq!(peer.heads_at_least(2).await[1], "firstsecond");
    edge.rests().await;
}
