//! Several servers behind one name: who is asked, who is passed over, and what a viewer sees of it (nothing).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};

use futures_util::future::join_all;
use http::Method;
use testbed::raw::{Peer, Step, answers, ok};
use testbed::{Flow, Origin};

use crate::support::edge::{Edge, Load, field, route, status};
use crate::support::world::{asks_until, patiently};

/// Times that let a test see a server go and come back.
const BRISK: &str = "upstream.health.failures = 2\nupstream.health.out = 50ms\nupstream.health.out_max = 200ms\n\
                     upstream.health.interval = 50ms\nupstream.health.timeout = 2s";

/// An address where nobody listens, kept for as long as the test lives.
fn nobody() -> (tokio::net::TcpSocket, String) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = socket.local_addr().expect("a bound address").to_string();
    (socket, address)
}

async fn before(servers: &[String], more_of_route: &str, more: &str) -> Edge {
    let connect = format!("connect = {servers:?}\n{more_of_route}");
    Edge::routed(&route("/", "http://pair.invalid/", "plain", &connect), &format!("{BRISK}\n{more}")).await
}

async fn before_both(one: &Origin, other: &Origin) -> Edge {
    before(&[one.address().to_string(), other.address().to_string()], "", "").await
}

fn is_up(edge: &Edge, server: &str) -> bool {
    let series = format!(r#"iiif_mender_upstream_server_up{{upstream="pair.invalid",server="{server}"}}"#);
    edge.metric(&series) == 1.0
}

#[tokio::test]
async fn each_request_goes_to_the_server_with_the_fewest_in_flight() {
    let (one, other) = (Origin::fixed(200, "one"), Origin::fixed(200, "other"));
    let edge = before_both(&one, &other).await;
    for _ in 0..10 {
        edge.get("/").await;
        edge.rests().await;
    }
    assert_eq!((one.seen().len(), other.seen().len()), (5, 5), "equals take turns");
    one.stalls();
    let mut viewers = Vec::new();
    for _ in 0..2 {
        let mut viewer = edge.viewer().await;
        viewer.gets("/").await;
        viewers.push(viewer);
    }
    patiently("one of them is stuck", || one.seen().len() == 6).await;
    patiently("and the other is not", || edge.metric("iiif_mender_upstream_in_flight") == 1.0).await;
    for _ in 0..10 {
        assert_eq!(edge.get("/").await.text(), "other");
    }
    one.releases();
    for viewer in &mut viewers {
        assert_eq!(status(&viewer.head().await), 200);
    }
    edge.rests().await;
    let heads = one.seen();
    assert!(heads.iter().all(|seen| seen.header("host") == "pair.invalid"), "{heads:?}");
}

#[tokio::test]
async fn a_server_that_closes_without_a_word_behind_each_answer_fails_no_get() {
    // Long enough for a request that waits to take the connection, and short enough to be closed under it.
    let closes = Step::Pause(std::time::Duration::from_millis(3));
    let peer = Peer::scripted(vec![vec![Step::ReadHead, Step::Write(ok("ok")), closes, Step::Close]]).await;
    let edge = Arc::new(before(&[peer.address().to_string()], "", "").await);
    let load = Load::on(&edge, 16);
    load.more(1000).await;
    load.ends().await;
}

#[tokio::test]
async fn a_server_killed_under_load_fails_no_get_and_is_used_again_when_it_is_back() {
    let (one, other) = (Origin::fixed(200, "one"), Origin::fixed(200, "other"));
    let edge = Arc::new(before_both(&one, &other).await);
    let load = Load::on(&edge, 16);
    for _ in 0..3 {
        load.more(100).await;
        one.goes_down().await;
        patiently("it is passed over", || !is_up(&edge, &one.address().to_string())).await;
        load.more(100).await;
        let seen = one.seen().len();
        one.comes_up();
        patiently("it is asked again", || one.seen().len() > seen + 10).await;
        assert!(is_up(&edge, &one.address().to_string()));
    }
    load.ends().await;
    edge.rests().await;
    assert_eq!(
        edge.metric(r#"iiif_mender_requests_total{route="plain",outcome="refused",status="5xx"}"#),
        0.0
    );
}

#[tokio::test]
async fn a_post_goes_to_the_next_server_when_nothing_of_it_was_sent() {
    let (_port, dead) = nobody();
    let origin = Origin::start(|seen| Origin::answer(200, &[], Flow::sized(seen.body.clone())));
    let edge = before(&[dead, origin.address().to_string()], "", "upstream.health.failures = 1000").await;
    for _ in 0..4 {
        let post = "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
        let answer = edge.says(post).await;
        assert!(status(&answer) == 200 && answer.ends_with("body"), "{answer}");
    }
    assert_eq!(origin.seen().len(), 4);
    assert!(edge.metric(r#"iiif_mender_upstream_retries_total{kind="next_server"}"#) >= 1.0);
    edge.rests().await;
}

#[tokio::test]
async fn a_request_without_another_server_counts_as_no_retry() {
    let (_port, dead) = nobody();
    let edge = before(&[dead], "", "").await;
    assert_eq!(edge.get("/").await.status, 502);
    assert_eq!(edge.metric(r#"iiif_mender_upstream_retries_total{kind="next_server"}"#), 0.0);
}

#[tokio::test]
async fn a_post_that_was_sent_and_a_get_that_was_answered_go_to_nobody_else() {
    let broken = Peer::start(vec![Step::ReadHead, Step::Close]).await;
    let wrong = Peer::start(answers("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n")).await;
    for peer in [&broken, &wrong] {
        let other = Origin::fixed(200, "other");
        let servers = [peer.address().to_string(), other.address().to_string()];
        let edge = before(&servers, "", "upstream.health.failures = 1000").await;
        let (mut lost, mut served) = (0, 0);
        for _ in 0..6 {
            let post = "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            match status(&edge.says(post).await) {
                502 => lost += 1,
                200 => served += 1,
                other => panic!("{other}"),
            }
            edge.rests().await;
        }
        assert_eq!((lost, served, other.seen().len()), (3, 3, 3));
    }
    // A GET without a byte of an answer is asked elsewhere; one with a head that makes no sense is not.
    for (peer, lost) in [(&broken, 0), (&wrong, 3)] {
        let other = Origin::fixed(200, "other");
        let servers = [peer.address().to_string(), other.address().to_string()];
        let edge = before(&servers, "", "upstream.health.failures = 1000").await;
        let mut refused = 0;
        for _ in 0..6 {
            refused += usize::from(edge.get("/").await.status == 502);
            edge.rests().await;
        }
        assert_eq!(refused, lost);
    }
}

#[tokio::test]
async fn an_error_that_a_server_answers_is_its_answer() {
    for code in [500, 502, 503, 504] {
        let (one, other) = (Origin::fixed(code, "no"), Origin::fixed(code, "no"));
        let edge = before_both(&one, &other).await;
        for _ in 0..4 {
            assert_eq!(edge.get("/").await.status, code);
        }
        assert_eq!(one.seen().len() + other.seen().len(), 4);
        assert!(is_up(&edge, &one.address().to_string()) && is_up(&edge, &other.address().to_string()));
    }
}

#[tokio::test]
async fn when_all_servers_are_out_one_is_asked_all_the_same() {
    let (one, other) = (Origin::fixed(200, "one"), Origin::fixed(200, "other"));
    let more = "upstream.health.out = 1h\nupstream.health.out_max = 1h";
    let servers = [one.address().to_string(), other.address().to_string()];
    let edge = before(&servers, "", more).await;
    one.goes_down().await;
    other.goes_down().await;
    for _ in 0..4 {
        let refused = edge.get("/").await;
        assert_eq!(refused.status, 502);
        assert_eq!(refused.header("proxy-status"), "iiif-mender; error=connection_refused");
    }
    assert!(servers.iter().all(|server| !is_up(&edge, server)));
    one.comes_up();
    other.comes_up();
    assert_eq!(edge.get("/").await.status, 200);
    assert!(servers.iter().any(|server| is_up(&edge, server)), "one answer brings a server back");
    edge.rests().await;
}

#[tokio::test]
async fn a_single_server_that_was_down_is_asked_by_the_next_request() {
    let origin = Origin::fixed(200, "ok");
    let more = "upstream.health.out = 1h\nupstream.health.out_max = 1h";
    let edge = before(&[origin.address().to_string()], "", more).await;
    origin.goes_down().await;
    for _ in 0..5 {
        assert_eq!(edge.get("/").await.status, 502);
    }
    assert!(!is_up(&edge, &origin.address().to_string()));
    origin.comes_up();
    assert_eq!(edge.get("/").await.status, 200);
    assert!(is_up(&edge, &origin.address().to_string()));
}

#[tokio::test]
async fn a_server_that_never_answers_is_tried_by_one_request_and_left_alone() {
    let silent = Peer::start(vec![Step::ReadHead, Step::Stall]).await;
    let other = Origin::fixed(200, "other");
    let servers = [silent.address().to_string(), other.address().to_string()];
    let more =
        "upstream.first_byte_timeout = 200ms\nupstream.health.out_max = 1h\nupstream.health.out = 100ms";
    let edge = before(&servers, "", more).await;
    let mut late = 0;
    for _ in 0..200 {
        late += usize::from(edge.get("/").await.status == 504);
    }
    patiently("it is out", || !is_up(&edge, &servers[0])).await;
    // Two put it out; each trial doubles the time until the next.
    assert!((2..=8).contains(&late), "{late}");
    edge.rests().await;
}

#[tokio::test]
async fn a_server_whose_checks_fail_gets_no_request_until_they_are_good() {
    let code = Arc::new(AtomicU16::new(200));
    let said = Arc::clone(&code);
    let one = Origin::start(move |seen| match seen.path() {
        "/health" => Origin::answer(said.load(Ordering::Relaxed), &[], Flow::sized("")),
        _ => Origin::answer(200, &[], Flow::sized("one")),
    });
    let other = Origin::fixed(200, "other");
    let servers = [one.address().to_string(), other.address().to_string()];
    let edge = before(&servers, "health = \"/health\"", "").await;
    let asked = |origin: &Origin| origin.seen().iter().filter(|seen| seen.path() == "/").count();
    patiently("it is checked", || one.seen().len() > 2).await;
    let check = one.seen()[0].clone();
    assert_eq!((check.method.clone(), check.header("host")), (Method::GET, "pair.invalid"));
    assert!(check.header("user-agent").starts_with("iiif-mender/"));
    code.store(503, Ordering::Relaxed);
    patiently("it is out", || !is_up(&edge, &servers[0])).await;
    let before = asked(&one);
    for _ in 0..10 {
        assert_eq!(edge.get("/").await.text(), "other");
    }
    assert_eq!(asked(&one), before);
    code.store(200, Ordering::Relaxed);
    patiently("it is in", || is_up(&edge, &servers[0])).await;
    for _ in 0..4 {
        edge.get("/").await;
        edge.rests().await;
    }
    assert!(asked(&one) > before);
}

#[tokio::test]
async fn a_route_has_times_of_its_own() {
    let origin = Origin::fixed(200, "ok");
    origin.stalls();
    let routes = [
        route("/slow/", &format!("{}/", origin.url()), "plain", "first_byte_timeout = \"1h\""),
        route("/", &format!("{}/", origin.url()), "image", "first_byte_timeout = \"100ms\""),
    ];
    let edge = Edge::routed(&routes.concat(), "heal.enabled = false").await;
    let mut patient = edge.viewer().await;
    patient.gets("/slow/").await;
    assert_eq!(edge.get("/x").await.status, 504);
    origin.releases();
    assert_eq!(status(&patient.head().await), 200);
    let stuck = Peer::start(vec![
        Step::ReadHead,
        Step::Write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegin".into()),
        Step::Stall,
    ])
    .await;
    let routes = route("/", &format!("{}/", stuck.url()), "plain", "body_timeout = \"100ms\"");
    let edge = Edge::routed(&routes, "").await;
    let mut viewer = edge.viewer().await;
    viewer.gets("/").await;
    assert_eq!(field(&viewer.head().await, "content-length"), "9");
    assert_eq!(viewer.rest().await.text, "begin");
    edge.rests().await;
}

#[tokio::test]
async fn a_connection_that_is_too_old_is_not_used_again() {
    let origin = Origin::fixed(200, "ok");
    let edge = Edge::with(&origin.url(), "upstream.pool_max_age = 1ms").await;
    let connections = async || {
        assert_eq!(edge.get("/").await.status, 200);
        origin.connections()
    };
    asks_until("connections are replaced", connections, |connections| *connections >= 5).await;
    let edge = Edge::before(&origin.url()).await;
    let before = origin.connections();
    for _ in 0..20 {
        assert_eq!(edge.get("/").await.status, 200);
        edge.rests().await;
    }
    assert_eq!(origin.connections(), before + 1);
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    // On most machines `localhost` is ::1 and 127.0.0.1, and the peer listens on one of them.
    let peer = Peer::start(answers(ok("ok"))).await;
    let port = peer.address().port();
    let edge = Edge::before(&format!("http://localhost:{port}")).await;
    assert_eq!(edge.get("/").await.text(), "ok");
}

/// What a viewer may see of servers that misbehave: the picture, an error of ours, or an aborted message.
async fn looks(edge: &Edge, path: &str, whole: &bytes::Bytes) -> bool {
    let asked = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        edge.client.get(&edge.url(path), &[]).await
    });
    match asked.await.expect("no hang past its deadline") {
        Ok(answer) if answer.status == 200 => {
            assert!(answer.body == *whole, "a wrong byte");
            true
        }
        Ok(answer) => {
            assert!(matches!(answer.status, 502..=504), "{}", answer.status);
            assert!(answer.header("proxy-status").starts_with("iiif-mender; error="));
            false
        }
        // A message that broke off is seen as broken.
        Err(_) => false,
    }
}

#[tokio::test]
async fn servers_that_reset_cut_refuse_and_die_under_load_cost_no_wrong_byte_and_leave_nothing_behind() {
    let whole: bytes::Bytes = (0..1_u32 << 15).flat_map(u32::to_be_bytes).collect();
    for http2 in ["off", "always"] {
        let tile = whole.clone();
        let one = Origin::start(move |_| Origin::answer(200, &[], Flow::sized(tile.clone())));
        let tile = whole.clone();
        let other = Origin::start(move |_| Origin::answer(200, &[], Flow::sized(tile.clone())));
        if http2 == "always" {
            one.speaks_http2(50);
            other.speaks_http2(50);
        }
        let servers = [one.address().to_string(), other.address().to_string()];
        let more =
            format!("upstream.http2 = {http2}\nupstream.first_byte_timeout = 2s\nupstream.body_timeout = 2s");
        let edge = Arc::new(before(&servers, "", &more).await);
        let (done, good, bad) = (Arc::new(AtomicBool::new(false)), counter(), counter());
        let viewers: Vec<_> = (0..12)
            .map(|_| {
                let (edge, done, whole) = (Arc::clone(&edge), Arc::clone(&done), whole.clone());
                let (good, bad) = (Arc::clone(&good), Arc::clone(&bad));
                tokio::spawn(async move {
                    while !done.load(Ordering::Relaxed) {
                        let seen = looks(&edge, "/", &whole).await;
                        if seen { &good } else { &bad }.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let total = || good.load(Ordering::Relaxed) + bad.load(Ordering::Relaxed);
        for round in 0..8 {
            match round % 4 {
                0 => one.resets(),
                1 => other.cuts_body_after(1000),
                2 => one.goes_down().await,
                _ => one.stalls(),
            }
            let aim = total() + 30;
            patiently("viewers go on", || total() > aim).await;
            one.recovers();
            other.recovers();
            // Well again: soon nothing fails any more.
            let aim = good.load(Ordering::Relaxed) + 30;
            patiently("viewers are served again", || good.load(Ordering::Relaxed) > aim).await;
        }
        done.store(true, Ordering::Relaxed);
        for viewer in join_all(viewers).await {
            viewer.expect("no wrong byte, no hang");
        }
        edge.rests().await;
        for _ in 0..50 {
            assert!(looks(&edge, "/", &whole).await);
        }
    }
}

fn counter() -> Arc<AtomicUsize> {
    Arc::default()
}
