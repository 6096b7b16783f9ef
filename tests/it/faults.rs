//! Upstreams and viewers that break: the viewer is told, nobody hangs, nothing leaks, and the next request works.

use std::time::{Duration, Instant};

use http::Method;
use testbed::raw::{Peer, Step, answers, half_body, ok};
use testbed::{Flow, Origin};

use crate::support::edge::{Edge, field, manifest, route, status};

/// Every number of the pool small, so that a leak shows at the next request.
pub(crate) const NARROW: &str = "upstream.max_requests = 1\nupstream.queue_wait = 10s";

fn error_of(kind: &str) -> String {
    format!("iiif-mender; error={kind}")
}

/// The place of the request before is free, and the gauges say so.
pub(crate) async fn next_works(edge: &Edge, path: &str) {
    edge.rests().await;
    let next = edge.get(path).await;
    assert_eq!((next.status, &*next.text()), (200, "ok"));
    edge.rests().await;
}

/// A script for the first connection, and whole answers from then on.
pub(crate) async fn broken_once(script: Vec<Step>) -> (Peer, Edge) {
    let peer = Peer::scripted(vec![script, answers(ok("ok"))]).await;
    let edge = Edge::with(
        &peer.url(),
        &format!("{NARROW}\nupstream.first_byte_timeout = 300ms\nupstream.body_timeout = 300ms\nupstream.buffer = 0"),
    )
    .await;
    (peer, edge)
}

#[tokio::test]
async fn a_dead_upstream_is_502_at_once_and_serves_again_when_it_is_back() {
    let origin = Origin::fixed(200, "ok");
    let edge = Edge::with(&origin.url(), NARROW).await;
    next_works(&edge, "/").await;
    origin.goes_down().await;
    let started = Instant::now();
    let refused = edge.get("/").await;
    assert_eq!((refused.status, refused.header("proxy-status")), (502, &*error_of("connection_refused")));
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(edge.metric(r#"iiif_mender_upstream_errors_total{kind="connection_refused"}"#), 1.0);
    origin.comes_up();
    next_works(&edge, "/").await;
}

#[tokio::test]
async fn an_upstream_that_says_nothing_is_504_at_the_configured_time() {
    let (peer, edge) = broken_once(vec![Step::ReadHead, Step::Stall]).await;
    let started = Instant::now();
    let late = edge.get("/").await;
    let took = started.elapsed();
    assert_eq!((late.status, late.header("proxy-status")), (504, &*error_of("http_response_timeout")));
    assert!((300..3000).contains(&took.as_millis()), "{took:?}");
    next_works(&edge, "/").await;
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn a_reset_a_close_and_a_broken_head_are_502() {
    for (script, kind) in [
        (vec![Step::ReadHead, Step::Reset], "connection_terminated"),
        (vec![Step::ReadHead, Step::Close], "connection_terminated"),
        (answers("HTTP/1.1 200 OK\r\nContent-Len"), "connection_terminated"),
        (answers("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), "http_protocol_error"),
        (answers("SSH-2.0-OpenSSH_9.2\r\n\r\n"), "http_protocol_error"),
        (
            answers("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"),
            "http_protocol_error",
        ),
    ] {
        let (_peer, edge) = broken_once(script.clone()).await;
        let refused = edge.get("/").await;
        assert_eq!((refused.status, refused.header("proxy-status")), (502, &*error_of(kind)), "{script:?}");
        next_works(&edge, "/").await;
    }
}

#[tokio::test]
async fn an_upstream_that_closes_late_holds_nobody_up() {
    // It says that it closes, and does not: neither viewer nor place waits for it.
    let late = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nwhole";
    let script = vec![Step::ReadHead, Step::Write(late.into()), Step::Stall];
    let peer = Peer::start(script).await;
    let edge = Edge::with(&peer.url(), "upstream.max_requests = 1").await;
    for asked in 1..=3 {
        assert_eq!(edge.get("/").await.text(), "whole");
        edge.rests().await;
        assert_eq!(peer.connections(), asked);
    }
}

/// What the viewer gets of an answer that breaks: everything so far, and no end.
async fn assert_aborted(script: Vec<Step>, last: &str) {
    let (_peer, edge) = broken_once(script).await;
    let mut viewer = edge.viewer().await;
    viewer.gets("/").await;
    let head = viewer.head().await;
    assert_eq!(status(&head), 200);
    let rest = viewer.rest().await;
    assert!(rest.text.contains(last), "{rest:?}");
    if field(&head, "transfer-encoding") == "chunked" {
        assert!(!rest.text.ends_with("0\r\n\r\n"), "a clean end: {rest:?}");
    } else {
        let promised: usize = field(&head, "content-length").parse().expect("a length");
        assert!(rest.text.len() < promised, "{rest:?}");
    }
    next_works(&edge, "/").await;
}

const CHUNKED_BEGIN: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n";

#[tokio::test]
async fn a_body_cut_in_the_middle_is_an_aborted_message_and_never_a_clean_short_one() {
    assert_aborted(answers(half_body(10, "begin")), "begin").await;
    assert_aborted(answers(CHUNKED_BEGIN), "begin").await;
    // In the middle of a chunk, and with garbage for the next one.
    assert_aborted(answers(format!("{CHUNKED_BEGIN}ff\r\nmiddle")), "middle").await;
    assert_aborted(answers(format!("{CHUNKED_BEGIN}zz\r\n")), "begin").await;
}

#[tokio::test]
async fn all_that_came_before_the_cut_reaches_the_viewer_however_quickly_it_came() {
    for answer in [half_body(10, "begin"), CHUNKED_BEGIN.into()] {
        let peer = Peer::start(answers(answer)).await;
        let edge = Edge::before(&peer.url()).await;
        for _ in 0..50 {
            let mut viewer = edge.viewer().await;
            viewer.gets("/").await;
            assert_eq!(status(&viewer.head().await), 200);
            assert!(viewer.rest().await.text.contains("begin"));
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_with_rst_is_aborted_too() {
    let script = |begin: bytes::Bytes| vec![Step::ReadHead, Step::Write(begin), Step::Stall, Step::Reset];
    for begin in [half_body(10, "begin"), CHUNKED_BEGIN.into()] {
        let (peer, edge) = broken_once(script(begin)).await;
        let mut viewer = edge.viewer().await;
        viewer.gets("/").await;
        viewer.until("begin").await;
        peer.releases();
        let rest = viewer.rest().await;
        assert!(!rest.text.ends_with("0\r\n\r\n"), "{rest:?}");
        next_works(&edge, "/").await;
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_aborted_at_the_configured_time() {
    for begin in [half_body(10, "begin"), CHUNKED_BEGIN.into()] {
        assert_aborted(vec![Step::ReadHead, Step::Write(begin), Step::Stall], "begin").await;
    }
}

#[tokio::test]
async fn a_slow_body_that_goes_on_is_no_stall() {
    let script = vec![
        Step::ReadHead,
        Step::Write("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n".into()),
        Step::Dribble("in steps".into(), Duration::from_millis(100)),
    ];
    let (_peer, edge) = broken_once(script).await;
    assert_eq!(edge.get("/").await.text(), "in steps");
}

#[tokio::test]
async fn a_kept_alive_connection_closed_under_a_get_costs_the_viewer_nothing() {
    // The upstream closes when the second request arrives: its keep-alive time was over.
    for close in [Step::Close, Step::Reset] {
        let first = vec![Step::ReadHead, Step::Write(ok("ok")), Step::ReadHead, close];
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            let peer = Peer::scripted(vec![first.clone(), answers(ok("ok"))]).await;
            let edge = Edge::with(&peer.url(), NARROW).await;
            assert_eq!(edge.get("/first").await.status, 200);
            let second =
                edge.client.send(method.clone(), &edge.url("/second"), &[]).await.expect("an answer");
            assert_eq!(second.status, 200, "{method}");
            assert_eq!(peer.connections(), 2);
            assert_eq!(peer.heads_at_least(3).await[1], peer.heads_at_least(3).await[2]);
        }
    }
}

#[tokio::test]
async fn a_get_is_repeated_once_and_not_again() {
    let first = vec![Step::ReadHead, Step::Write(ok("ok")), Step::ReadHead, Step::Close];
    let peer = Peer::scripted(vec![first, vec![Step::ReadHead, Step::Close]]).await;
    let edge = Edge::with(&peer.url(), NARROW).await;
    assert_eq!(edge.get("/").await.status, 200);
    assert_eq!(edge.get("/").await.status, 502);
    assert_eq!((peer.connections(), peer.heads().len()), (2, 3));
}

#[tokio::test]
async fn a_post_is_never_repeated_once_it_was_sent() {
    for body in ["Content-Length: 4\r\n\r\nbody", "Content-Length: 0\r\n\r\n"] {
        let first = vec![Step::ReadHead, Step::Write(ok("ok")), Step::ReadHead, Step::Close];
        let peer = Peer::scripted(vec![first, answers(ok("ok"))]).await;
        let edge = Edge::with(&peer.url(), NARROW).await;
        assert_eq!(edge.get("/").await.status, 200);
        let answer = edge.says(&format!("POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{body}")).await;
        assert_eq!(status(&answer), 502, "{answer}");
        assert_eq!((peer.connections(), peer.heads().len()), (1, 2));
        next_works(&edge, "/").await;
    }
}

#[tokio::test]
async fn too_many_requests_queue_and_then_get_503_with_retry_after() {
    let origin = Origin::fixed(200, "ok");
    origin.stalls();
    let edge = Edge::with(&origin.url(), "upstream.max_requests = 2\nupstream.queue_wait = 200ms").await;
    let mut viewers = [edge.viewer().await, edge.viewer().await];
    for viewer in &mut viewers {
        viewer.gets("/").await;
    }
    origin.seen_at_least(2).await;
    let refused = edge.get("/").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    assert_eq!(refused.header("proxy-status"), error_of("connection_limit_reached"));
    assert_eq!((origin.seen().len(), edge.metric("iiif_mender_upstream_in_flight")), (2, 2.0));
    origin.releases();
    for viewer in &mut viewers {
        assert_eq!(status(&viewer.head().await), 200);
    }
    next_works(&edge, "/").await;
}

#[tokio::test]
async fn who_queues_gets_the_next_free_place() {
    let origin = Origin::fixed(200, "ok");
    origin.stalls();
    let edge = Edge::with(&origin.url(), NARROW).await;
    let answers = futures_util::future::join_all((0..5).map(|_| edge.get("/")));
    let release = async {
        origin.seen_at_least(1).await;
        assert_eq!(edge.metric("iiif_mender_upstream_in_flight"), 1.0);
        origin.releases();
    };
    let (answers, ()) = futures_util::future::join(answers, release).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn our_own_errors_are_for_people_or_machines_and_never_for_caches() {
    let origin = Origin::fixed(200, "");
    origin.goes_down().await;
    let edge = Edge::before(&origin.url()).await;
    let text = edge.get_with("/a%20b?q", &[("accept", "image/*,*/*;q=0.8")]).await;
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    assert!(text.text().starts_with("502 Bad Gateway\n\n"), "{}", text.text());
    for accept in ["application/json", "application/ld+json;q=0.9, */*", "application/problem+json"] {
        let json = edge.get_with("/a%20b?q", &[("accept", accept)]).await;
        assert_eq!(json.header("content-type"), "application/problem+json");
        let problem = json.json();
        assert_eq!((problem["status"].as_u64(), problem["title"].as_str()), (Some(502), Some("Bad Gateway")));
        assert_eq!(
            (problem["instance"].as_str(), problem["code"].as_str()),
            (Some(&*format!("/a%20b#{}", json.header("x-request-id"))), Some("connection_refused"))
        );
    }
    let head = edge.client.head(&edge.url("/x"), &[]).await.expect("an answer");
    for answer in [&text, &head] {
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("proxy-status"), error_of("connection_refused"));
    }
    assert_eq!((head.status, head.body.len()), (502, 0));
    assert_ne!(head.header("content-length"), "0");
    let addresses = [origin.address().to_string(), edge.address().to_string()];
    assert!(addresses.iter().all(|address| !text.text().contains(address)), "it tells where the upstream is");
}

#[tokio::test]
async fn an_unreachable_name_is_502_and_no_hang() {
    let edge = Edge::with("http://no-such-host.invalid", "upstream.connect_timeout = 2s").await;
    let refused = edge.get("/").await;
    assert!(matches!(refused.status, 502 | 504), "{}", refused.status);
    edge.rests().await;
}

/// Images at a raw peer, canvases nowhere; one identifier is known.
async fn images_at(peer: &Peer, more: &str) -> Edge {
    let service = Origin::fixed(500, "no canvas");
    let routes = [
        route("/iiif/2/", &format!("{}/iiif/2/", peer.url()), "image", ""),
        route("/iiif-service/", &format!("{}/iiif-service/", service.url()), "presentation", ""),
    ];
    let more = format!("heal.ladder = visit\nserver.public_hosts = us.example\nheal.wait = 2s\n{more}");
    let canvas = "https://us.example/iiif-service/fedora/canvas/a";
    Edge::knowing(&[manifest("a", canvas, KNOWN)], &routes.concat(), &more).await
}

const KNOWN: &str = "88c02c4f-cb78-3d8d-a4a5-2463f29a6565";
const TILE: &str = "/iiif/2/88c02c4f-cb78-3d8d-a4a5-2463f29a6565/full/full/0/default.jpg";

#[tokio::test]
async fn a_404_that_cannot_be_healed_arrives_whole_however_long_it_is() {
    for size in [3000, 200_000] {
        let body = "n".repeat(size);
        for answer in [
            format!("HTTP/1.1 404 Not Found\r\nContent-Length: {size}\r\nX-Mark: 1\r\n\r\n{body}"),
            format!(
                "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\nX-Mark: 1\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"
            ),
        ] {
            let peer = Peer::start(answers(answer)).await;
            let edge = images_at(&peer, "heal.max_held = 8KiB").await;
            let missing = edge.get(TILE).await;
            assert_eq!((missing.status, missing.body.len()), (404, size));
            assert_eq!((missing.header("x-mark"), missing.header("cache-control")), ("1", "no-store"));
            assert_eq!(missing.header("heal-status"), "failed");
            edge.rests().await;
        }
    }
}

#[tokio::test]
async fn a_404_that_is_cut_stays_cut() {
    for cut in [
        "HTTP/1.1 404 Not Found\r\nContent-Length: 10\r\n\r\nbegin",
        "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n",
    ] {
        let peer = Peer::start(answers(cut)).await;
        let edge = images_at(&peer, "").await;
        let mut viewer = edge.viewer().await;
        viewer.gets(TILE).await;
        assert_eq!(status(&viewer.head().await), 404);
        let rest = viewer.rest().await;
        assert!(rest.text.contains("begin") && !rest.text.ends_with("0\r\n\r\n"), "{rest:?}");
        edge.rests().await;
    }
}

#[tokio::test]
async fn a_404_without_end_keeps_no_connection_and_is_asked_for_again() {
    let chunk = format!("2000\r\n{}\r\n", "n".repeat(0x2000));
    let script = vec![
        Step::ReadHead,
        Step::Write(
            format!("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(16))
                .into(),
        ),
        Step::Stall,
    ];
    let peer =
        Peer::scripted(vec![script, answers("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")]).await;
    let edge = images_at(&peer, "heal.max_held = 16KiB").await;
    let mut viewer = edge.viewer().await;
    viewer.gets(TILE).await;
    assert_eq!(status(&viewer.head().await), 404);
    viewer.gets(TILE).await;
    assert_eq!(status(&viewer.head().await), 404);
    assert!(peer.heads().len() >= 3, "{:?}", peer.heads());
    edge.rests().await;
}

#[tokio::test]
async fn an_image_request_with_a_body_is_refused_and_others_have_a_bound() {
    let origin = Origin::start(|seen| Origin::answer(200, &[], Flow::sized(seen.body.clone())));
    let routes = [
        route("/iiif/2/", &format!("{}/iiif/2/", origin.url()), "image", ""),
        route("/iiif-service/", &format!("{}/iiif-service/", origin.url()), "presentation", ""),
    ];
    let edge = Edge::routed(&routes.concat(), "server.max_body_bytes = 10").await;
    let asks =
        |path: &str, body: &str| format!("POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{body}");
    let chunked = |pieces: usize| {
        let pieces = "4\r\nbody\r\n".repeat(pieces);
        format!("Transfer-Encoding: chunked\r\n\r\n{pieces}0\r\n\r\n")
    };
    let sized = |length: usize| format!("Content-Length: {length}\r\n\r\n{}", "x".repeat(length));
    for (path, body, expected) in [
        (TILE, sized(4), 413),
        (TILE, chunked(1), 413),
        (TILE, sized(0), 200),
        ("/iiif-service/a", sized(10), 200),
        ("/iiif-service/a", sized(11), 413),
        ("/iiif-service/a", chunked(2), 200),
        ("/iiif-service/a", chunked(3), 413),
    ] {
        let answer = edge.says(&asks(path, &body)).await;
        assert_eq!(status(&answer), expected, "{path} {body}");
    }
    assert_eq!(origin.seen().len(), 3);
    assert!(!edge.app.metrics.scrape().contains("upstream_errors_total{"), "it was not the upstream");
}
