//! What is read in one way only, or refused: lengths, codings, fields of one hop, and what strangers say.
#![allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use testbed::raw::{Peer, Step, answers, ok};
use testbed::{Flow, Origin};
use tokio::net::TcpStream;

use crate::hostile::before;
use crate::support::edge::{Edge, field, fields, status};
use crate::support::recorder::Recorder;

/// One request of HTTP/2.
async fn asks_in_http2(edge: &Edge, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
    let tcp = TcpStream::connect(edge.address()).await.expect("a connection");
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(tcp))
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    sender.send_request(request).await
}

#[tokio::test]
async fn two_lengths_of_http_2_go_nowhere() {
    let recorder = Recorder::start().await;
    let edge = before(&recorder).await;
    for lengths in [&["5", "5"][..], &["5", "05"], &["5", "5", "5"], &["5", "6"]] {
        let mut request = Request::post("http://h/form");
        for length in lengths {
            request = request.header("content-length", *length);
        }
        let request = request.body(Full::new(Bytes::from_static(b"hello"))).expect("a request");
        match asks_in_http2(&edge, request).await {
            Ok(answer) => {
                assert_eq!(answer.status(), 400, "{lengths:?}");
                assert_eq!(answer.headers()["access-control-allow-origin"], "*");
            }
            // A length that is not that of the body is an error of the stream (RFC 9113 section 8.1.1).
            Err(error) => assert_eq!(lengths, ["5", "6"], "{error:?}"),
        }
    }
    let seen = recorder.takes();
    assert!(seen.requests.is_empty() && seen.doubts.is_empty(), "{seen:?}");
    let request = Request::post("http://h/form").header("content-length", "5");
    let request = request.body(Full::new("hello".into())).expect("a request");
    assert_eq!(asks_in_http2(&edge, request).await.expect("an answer").status(), 200);
    assert_eq!(recorder.takes().requests.len(), 1);
}

#[tokio::test]
async fn an_answer_says_one_length_or_is_a_502() {
    for (lengths, expected) in [
        ("Content-Length: 2, 2\r\n", Some("2")),
        ("Content-Length: 2\r\nContent-Length: 2\r\n", Some("2")),
        ("Content-Length: 02\r\n", Some("2")),
        ("Content-Length: 2, 3\r\n", None),
        ("Content-Length: 2\r\nContent-Length: 3\r\n", None),
        ("Content-Length: +2\r\n", None),
        ("Content-Length: 2 2\r\n", None),
        ("Content-Length: 99999999999999999999999\r\n", None),
        ("Content-Length: \r\n", None),
    ] {
        for method in ["GET", "HEAD"] {
            let body = if method == "GET" { "ok" } else { "" };
            let peer = Peer::start(answers(format!("HTTP/1.1 200 OK\r\n{lengths}\r\n{body}"))).await;
            let edge = Edge::before(&peer.url()).await;
            let ask = format!("{method} / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            let answer = edge.says(&ask).await;
            if let Some(length) = expected {
                assert_eq!(status(&answer), 200, "{method} {lengths:?}: {answer}");
                assert_eq!(fields(&answer, "content-length"), [length], "{answer}");
            } else {
                assert_eq!(status(&answer), 502, "{method} {lengths:?}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn coded_bytes_never_go_out_as_plain_ones() {
    for coding in [
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "identity",
        "x-unknown",
        "gzip\r\nTransfer-Encoding: chunked",
    ] {
        for method in ["GET", "HEAD"] {
            let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n");
            let peer = Peer::start(answers(format!("{head}5\r\nCODED\r\n0\r\n\r\n"))).await;
            let edge = Edge::before(&peer.url()).await;
            let ask = format!("{method} / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            let answer = edge.says(&ask).await;
            assert_eq!(status(&answer), 502, "{coding:?}: {answer}");
            assert!(!answer.contains("CODED"), "{coding:?}: {answer}");
            let kind = "iiif_mender_upstream_errors_total{kind=\"http_response_transfer_coding\"}";
            assert_eq!(edge.metric(kind), 1.0);
        }
    }
}

#[tokio::test]
async fn an_answer_that_has_begun_is_not_asked_for_again() {
    for begun in [
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n",
        "HTTP/1.1 2",
        "H",
    ] {
        // The first connection is kept and answers once; the second request finds it warm.
        let first = vec![
            Step::ReadHead,
            Step::Write(ok("first")),
            Step::ReadHead,
            Step::Write(begun.into()),
            Step::Close,
        ];
        let peer = Peer::scripted(vec![first, answers(ok("again"))]).await;
        let edge = Edge::before(&peer.url()).await;
        assert_eq!(edge.get("/").await.text(), "first");
        let second = edge.get("/").await;
        assert_eq!((second.status, peer.connections()), (502, 1), "{begun:?}");
    }
    // Nothing came at all: it may go out once more.
    let first = vec![Step::ReadHead, Step::Write(ok("first")), Step::ReadHead, Step::Close];
    let peer = Peer::scripted(vec![first, answers(ok("again"))]).await;
    let edge = Edge::before(&peer.url()).await;
    assert_eq!(edge.get("/").await.text(), "first");
    assert_eq!(edge.get("/").await.text(), "again");
}

#[tokio::test]
async fn only_one_expectation_is_met() {
    let origin = Origin::fixed(200, "ok");
    let edge = Edge::before(&origin.url()).await;
    for expect in [
        "Expect: 100-continue\r\nExpect: x",
        "Expect: x\r\nExpect: 100-continue",
        "Expect: 100-continue\r\nExpect: 100-continue",
        "Expect: 100-continue, x",
        "Expect:",
        "Expect: x",
    ] {
        let ask = format!(
            "POST / HTTP/1.1\r\nHost: h\r\n{expect}\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
        );
        let answer = edge.says(&ask).await;
        assert_eq!(status(&answer), 417, "{expect:?}: {answer}");
    }
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn strangers_do_not_say_what_only_a_proxy_knows() {
    let hearsay = [
        "X-IIIF-ID",
        "X_IIIF_ID",
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-Forwarded-Ssl",
        "X-Forwarded-BasePath",
        "X-Forwarded-ID",
        "X-Forwarded-Path",
        "X_Forwarded_Host",
        "X-Forwarded_For",
        "X-Original-URL",
        "X-Original-Host",
        "X_Original_URI",
        "X-Rewrite-URL",
        "X-Real-IP",
        "X_Real_IP",
        "X-Proxied-Https",
    ];
    let said = hearsay.map(|name| format!("{name}: /evil\r\n")).concat();
    let ask = format!("GET / HTTP/1.1\r\nHost: h\r\n{said}X-Own: 1\r\nConnection: close\r\n\r\n");
    for (more, passes) in [("", false), ("server.trusted_proxies = 127.0.0.1", true)] {
        let peer = Peer::start(answers(ok("ok"))).await;
        let edge = Edge::with(&peer.url(), more).await;
        assert_eq!(status(&edge.says(&ask).await), 200);
        let head = &peer.heads_at_least(1).await[0];
        assert_eq!(field(head, "x-own"), "1");
        for name in hearsay {
            assert_eq!(fields(head, name).contains(&"/evil"), passes, "{name}: {head}");
        }
    }
}

#[tokio::test]
async fn a_health_check_of_http_1_0_needs_no_host_where_the_route_is_for_every_host() {
    let origin = Origin::start(|_| Origin::answer(200, &[], Flow::sized("well")));
    let edge = Edge::with(&origin.url(), "server.public_hosts = us.example").await;
    let answer = edge.says("GET /health HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("well"), "{answer}");
    let seen = &origin.seen()[0];
    assert_eq!(seen.header("host"), origin.url().trim_start_matches("http://"));
    assert_eq!(seen.header("x-forwarded-host"), "us.example");
    // HTTP/1.1 must say it.
    assert_eq!(status(&edge.says("GET /health HTTP/1.1\r\n\r\n").await), 400);
    let route =
        crate::support::edge::route("/", &format!("{}/", origin.url()), "plain", "hosts = [\"a.example\"]");
    let edge = Edge::routed(&route, "").await;
    assert_eq!(status(&edge.says("GET /health HTTP/1.0\r\n\r\n").await), 404);
    assert_eq!(status(&edge.says("GET /health HTTP/1.0\r\nHost: a.example\r\n\r\n").await), 200);
}
