//! Viewers who end their side of a connection: those who wait for their answer, and those who are gone.
#![allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]

use testbed::raw::{Peer, Step, answers, ok};
use testbed::{Flow, Origin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::edge::{Edge, status};
use crate::support::world::patiently;

/// Sends this, ends its side, and gives the stream.
async fn ends_behind(edge: &Edge, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(edge.address()).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    stream.shutdown().await.expect("its side ends");
    stream
}

async fn rest(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    let patience = std::time::Duration::from_secs(20);
    tokio::time::timeout(patience, stream.read_to_end(&mut all)).await.expect("it ends").expect("no reset");
    String::from_utf8_lossy(&all).into_owned()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

#[tokio::test]
async fn who_ends_his_side_behind_a_whole_request_is_answered() {
    let long = "x".repeat(3 << 20);
    let body = long.clone();
    let origin = Origin::start(move |seen| {
        let text = if seen.target == "/long" { body.clone() } else { "fine".to_owned() };
        Origin::answer(200, &[], Flow::sized(text))
    });
    let edge = Edge::before(&origin.url()).await;
    for (request, expected) in [
        (GET.to_owned(), "fine"),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok".to_owned(), "fine"),
        (
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_owned(),
            "fine",
        ),
        (GET.replace("GET / ", "GET /long "), &long),
    ] {
        let answer = rest(ends_behind(&edge, &request).await).await;
        assert!(status(&answer) == 200 && answer.ends_with(expected), "{request}: {}", answer.len());
    }
    // Several at once, all of them whole.
    let answer = rest(ends_behind(&edge, &GET.repeat(3)).await).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 3, "{answer}");
    edge.is_alone().await;
}

#[tokio::test]
async fn who_ends_his_side_is_answered_although_the_upstream_takes_its_time() {
    let peer = Peer::start(vec![Step::ReadHead, Step::Stall, Step::Write(ok("late")), Step::Stall]).await;
    let edge = Edge::before(&peer.url()).await;
    let stream = ends_behind(&edge, GET).await;
    peer.heads_at_least(1).await;
    peer.releases();
    let answer = rest(stream).await;
    assert!(status(&answer) == 200 && answer.ends_with("late"), "{answer}");
}

#[tokio::test]
async fn half_a_request_is_none() {
    let origin = Origin::fixed(200, "fine");
    let edge = Edge::with(&origin.url(), "server.half_closed_timeout = 60s").await;
    for half in [
        "GET / HTTP/1.1\r\nHo",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nok",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
    ] {
        let answer = rest(ends_behind(&edge, half).await).await;
        assert!(answer.is_empty() || status(&answer) == 400, "{half:?}: {answer}");
    }
    edge.is_alone().await;
}

#[tokio::test]
async fn no_work_is_done_for_long_for_who_is_gone() {
    for (timeout, gone) in [("60s", "reset"), ("0s", "left"), ("300ms", "left"), ("300ms", "waits")] {
        let peer = Peer::start(vec![Step::ReadHead, Step::Stall]).await;
        let edge = Edge::with(&peer.url(), &format!("server.half_closed_timeout = {timeout}")).await;
        let mut stream = TcpStream::connect(edge.address()).await.expect("a connection");
        stream.write_all(GET.as_bytes()).await.expect("it is sent");
        peer.heads_at_least(1).await;
        assert_eq!(edge.metric("iiif_mender_upstream_in_flight"), 1.0);
        let _kept = match gone {
            "reset" => stream.set_zero_linger().map(|()| drop(stream)).err().map(|_| None),
            "left" => {
                drop(stream);
                None
            }
            _ => {
                stream.shutdown().await.expect("its side ends");
                Some(Some(stream))
            }
        };
        edge.is_alone().await;
        let cut = edge.metric("iiif_mender_connections_cut_total{kind=\"half_closed\"}");
        assert_eq!(cut, if gone == "reset" { 0.0 } else { 1.0 }, "{timeout} {gone}");
    }
}

#[tokio::test]
async fn who_is_gone_is_seen_at_the_first_bytes_for_him() {
    let begin = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    let (drop_by_drop, pause) = ("x".repeat(10_000), std::time::Duration::from_millis(10));
    let peer = Peer::start(vec![
        Step::ReadHead,
        Step::Write(begin.into()),
        Step::Dribble(drop_by_drop.into(), pause),
        Step::Stall,
    ])
    .await;
    let edge = Edge::with(&peer.url(), "server.half_closed_timeout = 60s").await;
    let stream = ends_behind(&edge, GET).await;
    drop(stream);
    edge.is_alone().await;
}

#[tokio::test]
async fn what_is_said_behind_a_request_is_not_lost_while_it_is_answered() {
    let peer = Peer::scripted(vec![
        vec![Step::ReadHead, Step::Stall, Step::Write(ok("one")), Step::Stall],
        answers(ok("two")),
    ])
    .await;
    let edge = Edge::before(&peer.url()).await;
    let mut viewer = edge.viewer().await;
    viewer.says(GET).await;
    peer.heads_at_least(1).await;
    // More than is read ahead, and in two pieces.
    let long = format!("GET /two HTTP/1.1\r\nHost: h\r\nX-Long: {}\r\n", "y".repeat(2000));
    viewer.says(&long).await;
    viewer.says("\r\n").await;
    peer.releases();
    viewer.until("one").await;
    patiently("the second arrives whole", || peer.heads().len() == 2).await;
    assert!(String::from_utf8_lossy(&peer.heads()[1]).contains(&"y".repeat(2000)));
}
