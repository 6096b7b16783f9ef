//! Other protocols than HTTP behind a plain route: WebSocket and its like.
#![allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]

use testbed::raw::{Peer, Step, answers, ok};

use crate::support::edge::{Edge, Viewer, field, fields, route, status};
use crate::support::world::patiently;

const OPEN: &str = "iiif_mender_upgraded_connections";
const SWITCHES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nKeep-Alive: timeout=5\r\n\r\n";

fn asks(path: &str, upgrade: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n{upgrade}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

fn socket() -> String {
    asks("/socket", "Upgrade: websocket\r\n")
}

/// Switches, reads five bytes, says five, and waits to be let go.
fn echo() -> Vec<Step> {
    let switch = Step::Write(SWITCHES.into());
    vec![
        Step::ReadHead,
        switch,
        Step::Read(5),
        Step::Write("world".into()),
        Step::Stall,
        Step::Write("end".into()),
    ]
}

async fn opens(edge: &Edge) -> Viewer {
    let mut viewer = edge.viewer().await;
    viewer.says(&socket()).await;
    assert_eq!(status(&viewer.head().await), 101);
    viewer
}

#[tokio::test]
async fn another_protocol_is_passed_on_both_ways() {
    let peer = Peer::start(echo()).await;
    let edge = Edge::before(&peer.url()).await;
    let mut viewer = edge.viewer().await;
    // The first bytes come at once with the request.
    viewer.says(&format!("{}hel", socket())).await;
    let head = viewer.head().await;
    assert_eq!(status(&head), 101);
    assert_eq!((field(&head, "upgrade"), field(&head, "connection")), ("websocket", "upgrade"), "{head}");
    assert_eq!(field(&head, "sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    for gone in ["keep-alive", "content-length", "transfer-encoding"] {
        assert_eq!(fields(&head, gone), <[&str; 0]>::default(), "{head}");
    }
    assert_eq!(field(&head, "x-request-id").len(), 32);
    viewer.says("lo").await;
    assert_eq!(viewer.until("world").await, "world");
    let heads = peer.heads_at_least(2).await;
    assert_eq!((field(&heads[0], "upgrade"), field(&heads[0], "connection")), ("websocket", "upgrade"));
    assert_eq!(field(&heads[0], "sec-websocket-key"), "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(field(&heads[0], "x-forwarded-for"), "127.0.0.1");
    assert_eq!(heads[1], "hello");
    // Whoever stays takes no place of an upstream.
    assert_eq!((edge.metric(OPEN), edge.metric("iiif_mender_upstream_in_flight")), (1.0, 0.0));
    let counted = "iiif_mender_requests_total{route=\"plain\",outcome=\"served\",status=\"1xx\"}";
    assert_eq!(edge.metric(counted), 1.0);
    peer.releases();
    assert_eq!(viewer.until("end").await, "end");
    assert!(!viewer.rest().await.reset);
    patiently("nothing is left", || edge.metric(OPEN) == 0.0).await;
    edge.is_alone().await;
}

#[tokio::test]
async fn bytes_that_look_like_http_are_bytes() {
    let bad = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let script = vec![Step::ReadHead, Step::Write(SWITCHES.into()), Step::Read(3), Step::Write(bad.into())];
    let peer = Peer::start(script).await;
    let edge = Edge::before(&peer.url()).await;
    let mut viewer = opens(&edge).await;
    viewer.says("\r\n<").await;
    assert_eq!(viewer.rest().await.text, bad);
    assert_eq!(peer.heads().len(), 2);
}

#[tokio::test]
async fn another_answer_than_101_is_one_like_all_others_and_its_connection_is_not_kept() {
    for answer in [ok("no"), "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno".into()] {
        let peer = Peer::start(vec![Step::ReadHead, Step::Write(answer), Step::Stall]).await;
        let edge = Edge::before(&peer.url()).await;
        let mut viewer = edge.viewer().await;
        viewer.says(&socket()).await;
        assert!(matches!(status(&viewer.head().await), 200 | 426));
        viewer.until("no").await;
        // The viewer's connection goes on; upstream it is another one.
        viewer.gets("/next").await;
        peer.connections_at_least(2).await;
        viewer.head().await;
        viewer.until("no").await;
        patiently("nothing is left", || edge.metric(OPEN) == 0.0).await;
    }
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_switched_to() {
    for chosen in ["Upgrade: h2c\r\n", "Upgrade: websocket, other\r\n", ""] {
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n{chosen}\r\n");
        let peer = Peer::start(vec![Step::ReadHead, Step::Write(answer.into()), Step::Stall]).await;
        let edge = Edge::before(&peer.url()).await;
        let mut viewer = edge.viewer().await;
        viewer.says(&socket()).await;
        assert_eq!(status(&viewer.head().await), 502, "{chosen:?}");
        edge.rests().await;
        patiently("nothing is left", || edge.metric(OPEN) == 0.0).await;
    }
}

#[tokio::test]
async fn who_may_not_switch_stays_in_http() {
    let peer = Peer::start(answers(ok("plain"))).await;
    let routes = ["image", "presentation"].map(|kind| {
        let path = if kind == "image" { "/iiif/2/" } else { "/iiif-service/" };
        route(path, &format!("{}{path}", peer.url()), kind, "")
    });
    let routes = routes.concat() + &route("/", &format!("{}/", peer.url()), "plain", "");
    for (more, request) in [
        ("", asks("/iiif/2/x/info.json", "Upgrade: websocket\r\n")),
        ("", asks("/iiif/2/x/full/full/0/default.jpg", "Upgrade: websocket\r\n")),
        ("", asks("/iiif-service/x", "Upgrade: websocket\r\n")),
        ("", asks("/x", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n")),
        ("", asks("/x", "Upgrade: TLS/1.2, HTTP/2.0, H2C\r\n")),
        ("", socket().replace("keep-alive, Upgrade", "keep-alive")),
        ("", socket().replace("HTTP/1.1", "HTTP/1.0")),
        ("", socket().replace("GET", "DELETE")),
        ("", socket().replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nok")),
        ("server.max_upgrades = 0", socket()),
    ] {
        let edge = Edge::routed(&routes, &format!("heal.enabled = false\n{more}")).await;
        let before = peer.heads().len();
        let mut viewer = edge.viewer().await;
        viewer.says(&request).await;
        assert_eq!(status(&viewer.head().await), 200, "{request}");
        let head = &peer.heads_at_least(before + 1).await[before];
        for gone in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(field(head, gone), "", "{request}: {head}");
        }
    }
    // Of several only those that may pass.
    let edge = Edge::routed(&routes, "heal.enabled = false").await;
    let before = peer.heads().len();
    edge.viewer().await.says(&asks("/x", "Upgrade: h2c, websocket\r\nUpgrade: other/1\r\n")).await;
    assert_eq!(field(&peer.heads_at_least(before + 1).await[before], "upgrade"), "websocket, other/1");
}

#[tokio::test]
async fn nobody_takes_all_of_them() {
    let peer = Peer::start(echo()).await;
    let bounds = "server.max_upgrades = 3\nserver.max_upgrades_per_client = 2\nupstream.max_requests = 4";
    let edge = Edge::with(&peer.url(), bounds).await;
    let kept = [opens(&edge).await, opens(&edge).await];
    let mut third = edge.viewer().await;
    third.says(&socket()).await;
    let head = third.head().await;
    assert_eq!((status(&head), field(&head, "retry-after")), (503, "1"), "{head}");
    assert_eq!(edge.metric("iiif_mender_events_total{kind=\"upgrade_refused\"}"), 1.0);
    drop(kept);
    patiently("they are free again", || edge.metric(OPEN) == 0.0).await;
    drop(opens(&edge).await);
    // Behind a trusted proxy each viewer counts by himself, up to the bound of all.
    let more = bounds.to_owned() + "\nserver.trusted_proxies = 127.0.0.1";
    let edge = Edge::with(&peer.url(), &more).await;
    let mut statuses = Vec::new();
    let mut kept = Vec::new();
    for client in ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        let mut viewer = edge.viewer().await;
        viewer.says(&socket().replace("Host: h", &format!("Host: h\r\nX-Forwarded-For: {client}"))).await;
        statuses.push(status(&viewer.head().await));
        kept.push(viewer);
    }
    assert_eq!(statuses, [101, 101, 503, 101, 503]);
}

#[tokio::test]
async fn silence_ends_it_and_movement_does_not() {
    let pause = std::time::Duration::from_millis(100);
    let moving = Step::Dribble("0123456789012345678901234".into(), pause);
    let script = vec![Step::ReadHead, Step::Write(SWITCHES.into()), moving, Step::Stall];
    let peer = Peer::start(script).await;
    let edge = Edge::with(&peer.url(), "server.idle_timeout = 1s\nserver.head_timeout = 1s").await;
    let mut viewer = opens(&edge).await;
    assert_eq!(viewer.rest().await.text.len(), 25);
    let cut = "iiif_mender_connections_cut_total{kind=\"upgrade_idle\"}";
    patiently("it is counted", || edge.metric(cut) == 1.0).await;
    patiently("nothing is left", || edge.metric(OPEN) == 0.0).await;
}

#[tokio::test]
async fn one_side_may_end_before_the_other() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let script =
        vec![Step::ReadHead, Step::Write(SWITCHES.into()), Step::Read(5), Step::Read(1), Step::Close];
    let peer = Peer::start(script).await;
    let edge = Edge::before(&peer.url()).await;
    let mut stream = tokio::net::TcpStream::connect(edge.address()).await.expect("a connection");
    stream.write_all(socket().as_bytes()).await.expect("it is sent");
    let mut head = vec![0; 12];
    stream.read_exact(&mut head).await.expect("an answer");
    assert_eq!(head, b"HTTP/1.1 101");
    stream.write_all(b"hello").await.expect("it is sent");
    stream.shutdown().await.expect("its side ends");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("it ends in order");
    patiently("nothing is left", || edge.metric(OPEN) == 0.0).await;
    assert_eq!(peer.heads()[1], "hello");
}

#[tokio::test]
async fn they_have_the_time_of_the_drain_when_we_stop() {
    let peer = Peer::start(echo()).await;
    let edge = Edge::with(&peer.url(), "server.drain = 1s").await;
    let mut viewer = opens(&edge).await;
    let metrics = std::sync::Arc::clone(&edge.app.metrics);
    let stopping = tokio::spawn(edge.app.stop());
    viewer.says("hello").await;
    assert_eq!(viewer.until("world").await, "world");
    let _cut = viewer.rest().await;
    stopping.await.expect("it stops");
    assert!(metrics.scrape().contains("iiif_mender_connections_cut_total{kind=\"drain\"} 1"));
}
