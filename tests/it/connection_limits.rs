//! How much one viewer gets: connections, requests, time, streams.
#![allow(clippy::disallowed_methods, reason = "viewers connect to the proxy; the rule is for the product")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use testbed::{Flow, Origin};
use tokio::net::TcpStream;

use crate::support::edge::{Edge, Viewer, field, status};
use crate::support::world::patiently;

fn cut(edge: &Edge, kind: &str) -> f64 {
    edge.metric(&format!(r#"iiif_mender_connections_cut_total{{kind="{kind}"}}"#))
}

#[tokio::test]
async fn one_address_gets_only_so_many_connections_and_others_still_get_theirs() {
    let origin = Origin::fixed(200, "here");
    let edge = Edge::with(&origin.url(), "server.max_connections_per_address = 2").await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut viewer = edge.viewer().await;
        viewer.gets("/").await;
        viewer.until("here").await;
        open.push(viewer);
    }
    let mut third = edge.viewer().await;
    third.gets("/").await;
    assert_eq!(third.rest().await.text, "");
    assert_eq!(cut(&edge, "per_address"), 1.0);
    // Another address of this machine.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.9:0".parse().expect("an address")).expect("an address of ours");
    let mut other = Viewer::on(socket.connect(edge.address()).await.expect("a connection"));
    other.gets("/").await;
    other.until("here").await;
    open.pop();
    patiently("its place is free again", || edge.metric("iiif_mender_connections") == 2.0).await;
    let mut fourth = edge.viewer().await;
    fourth.gets("/").await;
    fourth.until("here").await;
}

#[tokio::test]
async fn trusted_proxies_may_have_more_connections() {
    let origin = Origin::fixed(200, "here");
    let more = "server.max_connections_per_address = 1\nserver.trusted_proxies = 127.0.0.1";
    let edge = Edge::with(&origin.url(), more).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut viewer = edge.viewer().await;
        viewer.gets("/").await;
        viewer.until("here").await;
        open.push(viewer);
    }
    assert_eq!(cut(&edge, "per_address"), 0.0);
}

#[tokio::test]
async fn who_asks_too_often_gets_429_and_is_told_when_to_come_back() {
    let origin = Origin::fixed(200, "here");
    let more = "server.rate = 1\nserver.rate_burst = 3\nserver.trusted_proxies = 127.0.0.1\nheal.origins = 192.0.2.99";
    let mut edge = Edge::with(&origin.url(), more).await;
    let from = async |client: &str| edge.get_with("/", &[("x-forwarded-for", client)]).await;
    for _ in 0..3 {
        assert_eq!(from("192.0.2.1").await.status, 200);
    }
    let refused =
        edge.get_with("/", &[("x-forwarded-for", "192.0.2.1"), ("accept", "application/json")]).await;
    assert_eq!((refused.status, refused.header("content-type")), (429, "application/problem+json"));
    assert_eq!((refused.header("retry-after"), refused.header("cache-control")), ("1", "no-store"));
    assert_eq!(refused.json()["code"], "http_request_denied");
    assert_eq!(edge.metric(r#"iiif_mender_events_total{kind="rate_limited"}"#), 1.0);
    // Others, trusted ones and the canvas service are not concerned.
    for client in ["192.0.2.2", "127.0.0.1", "192.0.2.99"] {
        for _ in 0..3 {
            assert_eq!(from(client).await.status, 200, "{client}");
        }
    }
    assert_eq!(from("192.0.2.99").await.status, 200);
    assert_eq!(edge.get("/").await.status, 200);
    // A reload does not give a new burst.
    let mut settings = (*edge.app.settings()).clone();
    settings.server.idle_timeout = Duration::from_secs(50);
    edge.app.apply(settings).expect("in order");
    let again = edge.get_with("/", &[("x-forwarded-for", "192.0.2.2")]).await;
    assert_eq!(again.status, 429);
}

#[tokio::test]
async fn a_request_that_takes_longer_than_any_may_is_cut() {
    let origin = Origin::fixed(200, "late");
    origin.stalls();
    let edge = Edge::with(&origin.url(), "server.request_timeout = 300ms\nserver.head_timeout = 400ms").await;
    let mut viewer = edge.viewer().await;
    viewer.gets("/").await;
    assert_eq!(viewer.rest().await.text, "");
    assert_eq!(cut(&edge, "late"), 1.0);
    origin.releases();
    edge.is_alone().await;
}

/// A connection that speaks HTTP/2 with windows of this size.
async fn http2(edge: &Edge, window: u32) -> hyper::client::conn::http2::SendRequest<Empty<Bytes>> {
    let tcp = TcpStream::connect(edge.address()).await.expect("a connection");
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(TokioIo::new(tcp))
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

fn asks(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://h{path}")).body(Empty::new()).expect("a request")
}

#[tokio::test]
async fn a_viewer_who_opens_no_window_for_one_answer_is_cut_although_the_connection_lives() {
    let origin = Origin::start(|_| Origin::answer(200, &[], Flow::sized(vec![b'x'; 1 << 20])));
    let more = "server.idle_timeout = 500ms\nserver.head_timeout = 500ms\nserver.http2 = { ping = \"50ms\" }";
    let edge = Edge::with(&origin.url(), more).await;
    let mut sender = http2(&edge, 1024).await;
    let stuck = sender.send_request(asks("/")).await.expect("a head");
    assert_eq!(stuck.status(), 200);
    // Its body is never read, so its window stays shut; pings are answered all the while.
    patiently("it is cut", || cut(&edge, "stuck") == 1.0).await;
    assert!(stuck.into_body().collect().await.is_err());
    edge.is_alone().await;
}

#[tokio::test]
async fn only_so_many_streams_run_at_once() {
    let origin = Origin::fixed(200, "here");
    let edge = Edge::with(&origin.url(), "server.http2 = { max_streams = 2 }").await;
    let mut sender = http2(&edge, 65_535).await;
    // The first answer says that the settings have arrived.
    sender.send_request(asks("/first")).await.expect("an answer");
    origin.stalls();
    let asked: Vec<_> = (0..5).map(|_| tokio::spawn(sender.send_request(asks("/")))).collect();
    origin.seen_at_least(3).await;
    let mut other = edge.viewer().await;
    other.gets("/behind").await;
    origin.seen_at_least(4).await;
    assert_eq!(origin.seen().iter().filter(|seen| seen.target == "/").count(), 2);
    origin.releases();
    assert!(join_all(asked).await.into_iter().all(|asked| asked.expect("no panic").is_ok()));
}

#[tokio::test]
async fn rapid_resets_end_the_connection_and_reach_no_upstream_for_long() {
    let origin = Origin::fixed(200, "here");
    origin.stalls();
    let edge = Edge::with(&origin.url(), "server.http2 = { max_resets = 10 }").await;
    let mut viewer = edge.viewer().await;
    // The preface, empty SETTINGS, then HEADERS of `GET /` and RST_STREAM, again and again, in one write.
    let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1..4000_u32).step_by(2) {
        let id = stream.to_be_bytes();
        let block = [&[0x82, 0x86, 0x84, 0x41, 1, b'h'][..]].concat();
        said.extend([&[0, 0, u8::try_from(block.len()).expect("short"), 1, 5][..], &id, &block].concat());
        said.extend([&[0, 0, 4, 3, 0][..], &id, &[0, 0, 0, 8]].concat());
    }
    let _ = viewer.tries(&said).await;
    // GOAWAY, ENHANCE_YOUR_CALM (11), and the end.
    let rest = viewer.rest_bytes().await;
    assert!(rest.windows(4).any(|four| four == [0, 0, 0, 11]), "{rest:?}");
    origin.releases();
    assert!(origin.seen().len() < 100, "{}", origin.seen().len());
    edge.is_alone().await;
}

#[tokio::test]
async fn the_last_answer_before_we_stop_says_so_and_a_request_on_its_way_is_still_answered() {
    let origin = Origin::fixed(200, "here");
    let edge = Edge::before(&origin.url()).await;
    let address = edge.address();
    let (mut kept, mut fresh) = (edge.viewer().await, edge.viewer().await);
    kept.gets("/").await;
    let first = kept.until("here").await;
    assert_eq!(field(&first, "connection"), "");
    let stopping = tokio::spawn(edge.app.stop());
    patiently("new connections are refused", || std::net::TcpStream::connect(address).is_err()).await;
    kept.gets("/").await;
    fresh.gets("/").await;
    for mut viewer in [kept, fresh] {
        let answer = viewer.rest().await;
        assert_eq!(
            (status(&answer.text), field(&answer.text, "connection"), answer.reset),
            (200, "close", false)
        );
    }
    assert_eq!(stopping.await.expect("it stops"), 0);
}

#[tokio::test]
async fn fewer_connections_than_there_are_make_no_newcomer_wait_for_each_of_them() {
    let origin = Origin::fixed(200, "here");
    let mut edge = Edge::with(&origin.url(), "server.max_connections = 12").await;
    let mut open = Vec::new();
    for _ in 0..12 {
        let mut viewer = edge.viewer().await;
        viewer.gets("/").await;
        viewer.until("here").await;
        open.push(viewer);
    }
    let mut settings = iiif_mender::config::Settings::clone(&edge.app.settings());
    settings.server.max_connections = 2;
    edge.app.apply(settings).expect("it is in order");
    let mut newcomer = edge.viewer().await;
    newcomer.gets("/").await;
    newcomer.until("here").await;
    assert_eq!(cut(&edge, "evicted"), 11.0);
    drop(open);
}
