//! Where a message begins and ends: bodies, lengths, versions, hints.

use testbed::raw::{Peer, Step, answers, ok};
use testbed::{Flow, Origin};

use crate::support::edge::{Edge, Viewer, field, status};

#[tokio::test]
async fn a_request_body_streams_piece_by_piece_with_its_length() {
    let script = vec![Step::ReadHead, Step::Read(5), Step::Read(6), Step::Write(ok("done"))];
    let peer = Peer::start(script).await;
    let edge = Edge::with(&peer.url(), "upstream.buffer = 0").await;
    let mut viewer = edge.viewer().await;
    viewer.says("POST /form HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nfirst").await;
    let heads = peer.heads_at_least(2).await;
    assert_eq!(field(&heads[0], "content-length"), "11");
    assert_eq!(heads[1], "first");
    viewer.says("second").await;
    assert_eq!(status(&viewer.head().await), 200);
    assert_eq!(viewer.until("done").await, "done");
}

#[tokio::test]
async fn a_chunked_request_body_streams_chunked() {
    let first = "5\r\nfirst\r\n";
    let rest = "6\r\nsecond\r\n0\r\n\r\n";
    let script =
        vec![Step::ReadHead, Step::Read(first.len()), Step::Read(rest.len()), Step::Write(ok("done"))];
    let peer = Peer::start(script).await;
    let edge = Edge::with(&peer.url(), "upstream.buffer = 0").await;
    let mut viewer = edge.viewer().await;
    viewer.says(&format!("PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{first}")).await;
    let heads = peer.heads_at_least(2).await;
    assert_eq!((field(&heads[0], "transfer-encoding"), &*heads[1]), ("chunked", first));
    viewer.says(rest).await;
    assert_eq!(status(&viewer.head().await), 200);
    assert_eq!(peer.heads_at_least(3).await[2], rest);
}

#[tokio::test]
async fn an_answer_streams_before_its_upstream_has_sent_all() {
    // One that is told to be short is waited for: nobody makes it bit by bit.
    let long = "l".repeat(20_000);
    for (field, first, second) in [
        ("Content-Length: 20006", &*long, "second"),
        ("Transfer-Encoding: chunked", "5\r\nfirst\r\n", "6\r\nsecond\r\n0\r\n\r\n"),
    ] {
        let begin = format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n{first}");
        let peer = Peer::start(vec![
            Step::ReadHead,
            Step::Write(begin.into()),
            Step::Stall,
            Step::Write(second.into()),
            Step::Stall,
        ])
        .await;
        let edge = Edge::before(&peer.url()).await;
        let mut viewer = edge.viewer().await;
        viewer.gets("/").await;
        viewer.until(first).await;
        peer.releases();
        assert_eq!(viewer.until(second).await, second);
    }
}

#[tokio::test]
async fn expect_is_answered_here_and_goes_no_further() {
    let peer = Peer::start(vec![Step::ReadHead, Step::Read(4), Step::Write(ok("done"))]).await;
    let edge = Edge::before(&peer.url()).await;
    let mut viewer = edge.viewer().await;
    viewer.says("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    assert_eq!(viewer.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    viewer.says("body").await;
    assert_eq!(status(&viewer.head().await), 200);
    assert_eq!(field(&peer.heads_at_least(1).await[0], "expect"), "");
}

#[tokio::test]
async fn head_keeps_the_length_and_invents_none() {
    for (fields, length) in
        [("Content-Length: 4711\r\n", "4711"), ("Transfer-Encoding: chunked\r\n", ""), ("", "")]
    {
        let peer = Peer::start(answers(format!("HTTP/1.1 200 OK\r\n{fields}\r\n"))).await;
        let edge = Edge::before(&peer.url()).await;
        let mut viewer = edge.viewer().await;
        viewer.says("HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
        let answer = viewer.rest().await;
        assert_eq!((field(&answer.text, "content-length"), answer.reset), (length, false), "{}", answer.text);
        assert!(answer.text.ends_with("\r\n\r\n"));
    }
}

#[tokio::test]
async fn a_304_with_the_length_of_the_picture_is_no_empty_picture() {
    let peer =
        Peer::start(answers("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 4711\r\n\r\n"))
            .await;
    let edge = Edge::before(&peer.url()).await;
    let answer = edge.says("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), 304);
    assert_ne!(field(&answer, "content-length"), "0", "{answer}");
}

#[tokio::test]
async fn a_viewer_of_http_1_0_gets_what_it_understands() {
    let origin = Origin::start(|_| Origin::answer(200, &[], Flow::chunked("some text")));
    let edge = Edge::before(&origin.url()).await;
    let answer = edge.says("GET / HTTP/1.0\r\nHost: h\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(
        field(&answer, "transfer-encoding").is_empty() && answer.ends_with("\r\n\r\nsome text"),
        "{answer}"
    );
    assert_eq!(origin.seen()[0].header("via"), "1.0 iiif-mender");
}

#[tokio::test]
async fn hints_before_the_answer_are_passed_over() {
    let peer = Peer::start(answers(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ))
    .await;
    let edge = Edge::before(&peer.url()).await;
    assert_eq!(edge.get("/").await.text(), "ok");
}

#[tokio::test]
async fn an_answer_framed_twice_goes_on_framed_once() {
    let peer = Peer::start(answers(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n",
    ))
    .await;
    let edge = Edge::before(&peer.url()).await;
    let mut viewer = edge.viewer().await;
    viewer.gets("/").await;
    let head = viewer.head().await;
    assert_eq!(
        (field(&head, "content-length"), field(&head, "transfer-encoding")),
        ("", "chunked"),
        "{head}"
    );
    assert_eq!(viewer.until("0\r\n\r\n").await, "5\r\nwhole\r\n0\r\n\r\n");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start(|seen| Origin::answer(200, &[], Flow::sized(seen.target.clone())));
    let edge = Edge::before(&origin.url()).await;
    let mut viewer = Viewer::to(edge.address()).await;
    let ask = |n: u8, more: &str| format!("GET /number-{n} HTTP/1.1\r\nHost: h\r\n{more}\r\n");
    viewer.says(&[ask(1, ""), ask(2, ""), ask(3, "Connection: close\r\n")].concat()).await;
    let all = viewer.rest().await.text;
    let places = [1, 2, 3].map(|n| all.find(&format!("\r\n\r\n/number-{n}")).expect("an answer"));
    assert!(places.is_sorted(), "{all}");
}
